"""From indices to a batch, in whatever process: decode, per-image stage, stack."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvkit import seeding
from cvkit.errors import CvkitError, DataError, ImageError

__all__ = ["Fetched", "Fetcher", "TwoStage"]


@runtime_checkable
class TwoStage(Protocol):
    """A transform in two stages: one picture in a worker, then a whole batch on the device.

    Attributes:
        sample_random: Whether ``sample`` draws random numbers.
    """

    sample_random: bool

    def sample(self, image: Image.Image, /) -> Tensor:
        """Makes one picture a uint8 tensor ``(C, H, W)`` of a fixed size."""

    def batch(self, images: Tensor, targets: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """Makes a batch ``(B, C, H, W)`` the model's input; ``generator`` is on the CPU."""


@dataclass(slots=True)
class Fetched:
    """A batch as it leaves a worker.

    Attributes:
        indices: The samples in it, skipped ones left out.
        images: ``(B, …)``.
        targets: ``(B, …)``.
        skipped: The message of each sample that was left out, by index.
    """

    indices: list[int]
    images: Tensor
    targets: Tensor
    skipped: dict[int, str]


class Fetcher:
    """Makes batches of a data set's samples; it is what a worker process gets.

    Args:
        dataset: The data set.
        transform: The transform, of which only the per-image stage is used here.
        seed: The loader's seed: a sample's random numbers come from (seed, epoch, index).
    """

    def __init__(self, dataset: Any, transform: Any, seed: int) -> None:
        self.dataset = dataset
        self.stage: Callable[[Any], Any] | None = transform.sample if isinstance(transform, TwoStage) else transform
        self.seed = seed
        self.random = _draws(dataset, transform)
        # a stage that is not cvkit's may draw from Python's and NumPy's generators as well
        self.foreign = self.random and not (
            isinstance(transform, TwoStage) and getattr(dataset, "deterministic", False)
        )

    def __call__(self, epoch: int, indices: Sequence[int]) -> Fetched:
        """Returns a batch; the global random generators are as before afterwards.

        Raises:
            CvkitError: A sample that fails; it is named.
        """
        kept = seeding.capture() if self.foreign else torch.get_rng_state() if self.random else None
        try:
            return self._fetch(epoch, indices)
        finally:
            if isinstance(kept, dict):
                seeding.restore(kept)
            elif kept is not None:
                torch.set_rng_state(kept)

    def _fetch(self, epoch: int, indices: Sequence[int]) -> Fetched:
        images, targets, taken, skipped = [], [], [], {}
        for index in indices:
            try:
                image, target = self._sample(epoch, index)
            except ImageError as error:
                if getattr(self.dataset, "on_error", "raise") != "skip":
                    raise
                skipped[index] = str(error)
                continue
            images.append(image)
            targets.append(target)
            taken.append(index)
        if not images:
            return Fetched([], torch.empty(0), torch.empty(0), skipped)
        return Fetched(taken, self._stack(images, taken), _stack_targets(targets, taken), skipped)

    def _sample(self, epoch: int, index: int) -> tuple[Tensor, Any]:
        if self.random:
            seed = seeding.derive(self.seed, "sample", epoch, index)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the GPUs as well
            if self.foreign:
                random.seed(seed)
                np.random.seed(seed % 2**32)
        try:
            item = self.dataset[index]
        except CvkitError:
            raise
        except Exception as error:
            raise DataError(
                f"sample {index} of {type(self.dataset).__name__} cannot be loaded",
                got=f"{type(error).__name__}: {error}",
                expected="a sample (image, target)",
                fix="see the traceback above; dataset[index] shows it alone",
            ) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"sample {index} of {type(self.dataset).__name__} is not (image, target)",
                got=f"{type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list) else ""),
                expected="a pair",
                fix="use a torch DataLoader and a step of your own for other samples; fit takes both",
            )
        image = self.stage(item[0]) if self.stage is not None else item[0]
        return _to_tensor(image, index), item[1]

    def _stack(self, images: list[Tensor], indices: list[int]) -> Tensor:
        first = images[0]
        for image, index in zip(images, indices, strict=True):
            if image.shape != first.shape:
                raise DataError(
                    f"samples {indices[0]} and {index} have different sizes and cannot share a batch",
                    got=f"{tuple(first.shape)} and {tuple(image.shape)}",
                    expected="one size for all",
                    fix="give the loader a transform with a size, e.g. transform=cvkit.transforms.classification_eval(224)",
                )
        return torch.stack(images)


def _draws(dataset: Any, transform: Any) -> bool:
    """Whether fetching a sample may draw random numbers; what is not known to be deterministic may."""
    if isinstance(transform, TwoStage):
        stage_draws = transform.sample_random
    else:
        stage_draws = transform is not None
    known = bool(getattr(dataset, "deterministic", False)) or (
        type(dataset).__module__.startswith("torchvision.datasets.")
        and all(getattr(dataset, name, None) is None for name in ("transform", "target_transform", "transforms"))
    )
    return stage_draws or not known


def _to_tensor(image: Any, index: int) -> Tensor:
    if isinstance(image, Tensor):
        return image
    if isinstance(image, Image.Image):
        pixels = torch.from_numpy(np.array(image if image.mode in ("L", "RGB") else image.convert("RGB")))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        return torch.from_numpy(image)
    raise DataError(
        f"sample {index} is neither picture nor tensor",
        got=type(image).__name__,
        expected="a PIL image, a tensor or an array",
        fix="make it one in the data set or in the transform",
    )


def _stack_targets(targets: list[Any], indices: list[int]) -> Tensor:
    if isinstance(targets[0], Tensor):
        return torch.stack(targets)
    try:
        return torch.tensor(targets)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the targets of samples {indices[0]}, … are no numbers",
            got=repr(targets[0]),
            expected="class indices, numbers or tensors",
            fix="number the classes in the data set",
        ) from error
