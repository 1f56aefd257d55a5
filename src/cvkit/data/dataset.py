"""What every data set of this room has, and parts of one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from cvkit import seeding
from cvkit.errors import ArgumentError

__all__ = ["Dataset", "Subset", "fingerprint_of", "split"]


class Dataset(Protocol):
    """A sized, indexable collection of samples ``(picture or tensor, target)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def fingerprint_of(*parts: object) -> str:
    """Returns a short stable hash of what a data set consists of."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


class Subset:
    """Some samples of a data set, which keeps its classes.

    Args:
        dataset: The whole.
        indices: Which samples, in this order.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = list(indices)
        self.deterministic = bool(getattr(dataset, "deterministic", False))
        self.on_error = getattr(dataset, "on_error", "raise")

    @property
    def classes(self) -> list[str] | None:
        """The class names of the whole."""
        return getattr(self.dataset, "classes", None)

    @property
    def targets(self) -> list[Any]:
        """The targets of these samples."""
        targets = self.dataset.targets
        return [targets[i] for i in self.indices]

    @property
    def paths(self) -> list[str] | None:
        """The files of these samples, where the whole has files."""
        paths = getattr(self.dataset, "paths", None)
        return [paths[i] for i in self.indices] if paths is not None else None

    @property
    def fingerprint(self) -> str:
        """A hash of the whole and of the choice."""
        return fingerprint_of(getattr(self.dataset, "fingerprint", len(self.dataset)), self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {self.dataset!r})"


def split(dataset: Any, fraction: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Splits a data set in two, each class by the same share.

    Args:
        dataset: A data set with ``targets``.
        fraction: The share of the second part, e.g. 0.2 for validation.
        seed: Which samples; the same seed gives the same split.

    Returns:
        The larger remainder and the part, each in the order of the whole. Every class of two samples or more is in both.

    Raises:
        ArgumentError: A fraction outside 0 to 1, or a data set without targets or with fewer than two samples.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(
            "fraction cannot be used", got=fraction, expected="a number between 0 and 1", fix="fraction=0.2"
        )
    targets = getattr(dataset, "targets", None)
    if targets is None or len(dataset) < 2:
        raise ArgumentError(
            "this data set cannot be split",
            got=f"{type(dataset).__name__} of {len(dataset)} samples, {'without' if targets is None else 'with'} targets",
            expected="at least two samples, with targets",
            fix="give the data set a list of targets",
        )
    generator = torch.Generator().manual_seed(seeding.derive(seed, "split"))
    groups: dict[Any, list[int]] = {}
    for index, target in enumerate(targets):
        discrete = not isinstance(target, float) and not (
            isinstance(target, torch.Tensor) and target.is_floating_point()
        )
        groups.setdefault(int(target) if discrete else None, []).append(index)
    part: set[int] = set()
    for members in groups.values():
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator).tolist()
        part.update(members[i] for i in order[:count])
    rest = [i for i in range(len(dataset)) if i not in part]
    return Subset(dataset, rest), Subset(dataset, sorted(part))
