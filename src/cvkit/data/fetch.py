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
from cvkit.data.dataset import is_deterministic
from cvkit.errors import CvkitError, DataError, ImageError
from cvkit.pixels import eight_bit

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
        # what is not cvkit's own may draw from Python's and NumPy's generators as well
        self.foreign = self.random and not (_is_own(transform) and is_deterministic(dataset))

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
                fix=f"see its own traceback with this one; dataset[{index}] shows it alone",
            ) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"sample {index} of {type(self.dataset).__name__} is not (image, target)",
                got=f"{type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list) else ""),
                expected="a pair",
                fix="use a torch DataLoader and a step of your own for other samples; fit takes both",
            )
        return self._staged(item[0], index), item[1]

    def _staged(self, image: Any, index: int) -> Tensor:
        """Returns what the per-image stage makes of a picture; an error names the sample."""
        try:
            return _to_tensor(self.stage(image) if self.stage is not None else image)
        except CvkitError as error:
            raise type(error)(f"{_name(self.dataset, index)}: {error}") from error
        except Exception as error:
            raise DataError(
                f"the transform fails on {_name(self.dataset, index)}",
                got=f"{type(error).__name__}: {error}",
                expected="a tensor or a picture",
                fix=f"see its own traceback with this one; transform(dataset[{index}][0]) shows it alone",
            ) from error

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
            if image.dtype != first.dtype:  # stacked, levels to 255 would pass for levels to 1
                raise DataError(
                    f"samples {indices[0]} and {index} have different types and cannot share a batch",
                    got=f"{first.dtype} and {image.dtype}",
                    expected="one type for all",
                    fix="make them alike in the data set or in the transform",
                )
        return torch.stack(images)


def _draws(dataset: Any, transform: Any) -> bool:
    """Whether fetching a sample may draw random numbers; what is not known to be deterministic may."""
    stage_draws = transform.sample_random if isinstance(transform, TwoStage) else transform is not None
    return stage_draws or not is_deterministic(dataset)


def _is_own(transform: Any) -> bool:
    """Whether a transform is one of cvkit's, which draw from torch's generator only."""
    return transform is None or type(transform).__module__.split(".")[0] == __name__.split(".")[0]


def _name(dataset: Any, index: int) -> str:
    """Returns what to call a sample in a message: its index, and its file where the data set knows it."""
    paths = getattr(dataset, "paths", None)
    pairs = getattr(dataset, "samples", None)  # as torchvision's folders have it
    path = paths[index] if paths is not None else pairs[index][0] if isinstance(pairs, list) else None
    return f"sample {index}" + (f" ({path})" if path is not None else "")


def _to_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image
    if isinstance(image, Image.Image):
        pixels = torch.from_numpy(np.array(eight_bit(image)))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(image))
    raise DataError(
        "neither picture nor tensor",
        got=type(image).__name__,
        expected="a PIL image, a tensor or an array",
        fix="make it one in the data set or in the transform",
    )


def _stack_targets(targets: list[Any], indices: list[int]) -> Tensor:
    first = targets[0]
    shown = ", ".join(str(index) for index in indices[:8]) + (", …" if len(indices) > 8 else "")
    try:
        if isinstance(first, Tensor | np.ndarray):
            return torch.stack([torch.as_tensor(target) for target in targets])
        return torch.tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the targets of a batch do not make one tensor (samples {shown})",
            got=f"{type(first).__name__}: {error}",
            expected="class indices, numbers, or tensors of one size",
            fix="number the classes in the data set; for other targets use a torch DataLoader and a step of your own",
        ) from error
