"""What every dataset of this room has, and parts of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import ConcatDataset
from torch.utils.data import Subset as TorchSubset

from cvkit.data.datasets.class_tables import labels_of
from cvkit.data.datasets.joined import Joinable, JoinedDataset
from cvkit.data.datasets.traits import fingerprint_of, is_deterministic, reads
from cvkit.data.datasets.verification import why_bad
from cvkit.errors import ArgumentError
from cvkit.numbering import check_numbering

__all__ = [
    "Dataset",
    "Subset",
    "class_names",
    "concat",
    "fingerprint_of",
    "is_deterministic",
    "numbered_alike",
    "reads",
]


class Dataset(Protocol):
    """A sized, indexable collection of samples ``(image or tensor, target)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def class_names(classes: Iterable[str]) -> list[str]:
    """Returns class names as a list, each of which stands for one class.

    Raises:
        ArgumentError: One string instead of many, what is no string, or a name that comes twice.
    """
    names = list(classes)
    if isinstance(classes, str) or len(set(names)) != len(names) or not all(isinstance(one, str) for one in names):
        raise ArgumentError(
            "classes cannot be used",
            got=repr(classes),
            expected="a list of names, each of them once",
            fix="classes=train.classes" if not isinstance(classes, str) else f"classes=[{classes!r}]",
        )
    return names


class Subset(Joinable):
    """Some samples of a dataset, which keeps its classes.

    Args:
        dataset: The whole.
        indices: Which samples, in this order.

    Raises:
        ArgumentError: Indices that are no integers, or that the whole does not have.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        # one buffer, as for the paths: a list's reference counts are copied into each worker that reads it
        self._places = _places(indices, len(dataset))
        self.on_error = getattr(dataset, "on_error", "raise")

    @property
    def indices(self) -> list[int]:
        """The places of these samples in the whole."""
        places: list[int] = self._places.tolist()
        return places

    def prepare(self, indices: Sequence[int]) -> None:
        """Tells the whole which samples are about to be read, where it wants to know."""
        prepare = getattr(self.dataset, "prepare", None)
        if prepare is not None:
            prepare([self.place(index) for index in indices])

    def place(self, index: int) -> int:
        """Returns the place of one of these samples in the whole."""
        return int(self._places[index])

    @property
    def deterministic(self) -> bool:
        """Whether a sample is known to be the same each time it is asked for."""
        return is_deterministic(self.dataset)

    @property
    def reads(self) -> bool:
        """Whether the whole can give a smaller image."""
        return reads(self.dataset)

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
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self._places[index])]

    def __getattr__(self, name: str) -> Any:
        """Offers what not every whole has: a ``kind``, ``read`` and ``size``, by which a loader saves work."""
        whole = self.__dict__.get("dataset")
        if name not in ("kind", "read", "size") or whole is None or (name == "read" and not reads(whole)):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        offered = getattr(whole, name)
        if name == "kind":
            return offered
        return lambda index, *arguments, **named: offered(int(self._places[index]), *arguments, **named)

    def verify(self, *, strict: bool = False, manifest: Any = False) -> Any:
        """Reads these samples, whole, and reports those that cannot be read, as the whole's ``verify`` does.

        Args:
            strict: As there.
            manifest: As there, for datasets of files.

        Raises:
            MissingDependencyError: As there.
            ArgumentError: The whole is a dataset that cannot do that.
        """
        found = getattr(self.dataset, "found_bad", None)
        if found is None:
            raise ArgumentError(
                "these samples cannot be verified",
                got=f"part of a {type(self.dataset).__name__}",
                expected="part of a dataset of cvkit.data",
                fix="read them one by one: for i in range(len(part)): part[i]",
            )
        more = {}
        if manifest is not False:
            self._check_manifest()
            more = {"manifest": manifest}
        return found([int(place) for place in self._places], strict=strict, **more)

    def found_bad(self, indices: Sequence[int], *, strict: bool = False, manifest: Any = False) -> Any:
        """Does what :meth:`verify` does for some of these samples."""
        return Subset(self.dataset, self._places[list(indices)].tolist()).verify(strict=strict, manifest=manifest)

    def manifest(self, path: Any = None) -> Any:
        """Hashes the files of these samples, as the whole's ``manifest`` does.

        Args:
            path: As there.

        Raises:
            DataError: As there.
            ArgumentError: The whole is no dataset of files.
        """
        return self.manifest_of(range(len(self)), path)

    def manifest_of(self, indices: Sequence[int], path: Any = None) -> Any:
        """Does what :meth:`manifest` does for some of these samples."""
        self._check_manifest()
        return self.dataset.manifest_of(self._chosen(indices), path)

    def _check_manifest(self) -> None:
        if not hasattr(self.dataset, "manifest_of"):
            raise ArgumentError(
                "these samples have no manifest",
                got=f"part of a {type(self.dataset).__name__}",
                expected="part of a dataset of files of cvkit.data",
                fix="make one for each dataset of files; of arrays in memory the fingerprint is a hash of their content",
            )

    def content_digest(self, indices: Sequence[int] | None = None) -> str | None:
        """Returns one hash over the content of these samples' files, as the whole's ``content_digest`` does."""
        made = getattr(self.dataset, "content_digest", None)
        return made(self._chosen(indices)) if made is not None else None

    def content_changes(self, indices: Sequence[int] | None = None) -> list[str]:
        """Returns the files of these samples whose content was another in an earlier state of the manifest."""
        made = getattr(self.dataset, "content_changes", None)
        return made(self._chosen(indices)) if made is not None else []

    def _chosen(self, indices: Sequence[int] | None) -> list[int]:
        places = self._places if indices is None else self._places[list(indices)]
        return [int(place) for place in places]

    def why_bad(self, index: int, *, strict: bool = False) -> str | None:
        """Returns the message of a sample that cannot be read, without its index; ``None`` where it can."""
        return why_bad(self.dataset, int(self._places[index]), strict=strict)

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {self.dataset!r})"


def _places(indices: Sequence[int], count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    places = np.asarray(indices if isinstance(indices, np.ndarray | range) else list(indices))
    whole = places.ndim == 1 and (places.dtype.kind in "iu" or places.size == 0)
    if whole and (places.size == 0 or -count <= int(places.min()) <= int(places.max()) < count):
        return places.astype(np.int64)
    wrong = [place for place in places.tolist() if not -count <= place < count] if whole else []
    raise ArgumentError(
        "indices cannot be used",
        got=f"{wrong[0]} and {len(wrong) - 1} more" if wrong else f"{places.dtype} {places.shape}",
        expected=f"integers from 0 to {count - 1}",
        fix="a mask is turned into indices by mask.nonzero()"
        if places.dtype.kind == "b"
        else "name samples that are there",
    )


def concat(*datasets: Any, classes: Sequence[str] | None = None) -> JoinedDataset:
    """Joins datasets to one, with their classes numbered together; ``first + second`` does the same.

    torch's ``ConcatDataset`` leaves each part its own numbers, so that class 0 means another class in each.

    Args:
        datasets: Datasets of cvkit.data or parts of such, all with class labels, all with masks, all with images or all with
            numbers as targets; also others that have ``classes`` and ``targets``, as torchvision's folders have.
        classes: The class names in their order. By default those of all datasets: sorted where each dataset has them sorted,
            else those of the first one first.

    Returns:
        A dataset with ``classes``, ``targets``, ``paths``, ``fingerprint`` and ``verify``.

    Raises:
        ArgumentError: No dataset, one that does not say what its targets are, or names that cannot be used.
        DataError: Targets of different kinds, or a class that ``classes`` lacks.

    Warns:
        CvkitWarning: Datasets with different backgrounds, or with class names that are nearly the same.
    """
    names = class_names(classes) if classes is not None else None
    parts = [Subset(one.dataset, one.indices) if type(one) is TorchSubset else one for one in datasets]
    return JoinedDataset([_joined(part) for part in parts], names)


def numbered_alike(dataset: Any) -> Any:
    """Returns a dataset as a loader uses it: torch's ``ConcatDataset``, also inside of subsets, as one that keeps its classes.

    Raises:
        DataError: A ``ConcatDataset`` whose parts number their classes differently, or have targets of different kinds.
    """
    check_numbering(dataset)
    return _joined(dataset)


def _joined(dataset: Any) -> Any:
    if type(dataset) in (Subset, TorchSubset):
        whole = _joined(dataset.dataset)
        return dataset if whole is dataset.dataset else Subset(whole, dataset.indices)
    if type(dataset) is not ConcatDataset:
        return dataset
    parts = [_joined(one) for one in dataset.datasets]
    parts = [Subset(one.dataset, one.indices) if type(one) is TorchSubset else one for one in parts]
    return JoinedDataset(parts) if all(labels_of(one) is not None for one in parts) else dataset
