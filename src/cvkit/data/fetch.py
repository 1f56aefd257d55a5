"""From indices to a batch, in whatever process: decode, per-image stage, stack."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvkit import seeding
from cvkit.data.datasets.base import is_deterministic, reads
from cvkit.data.datasets.joined import JoinedDataset
from cvkit.data.datasets.labels import number_one, unnumbered
from cvkit.data.image_cache import ImageCache
from cvkit.errors import CvkitError, DataError, ImageError
from cvkit.numbering import known_classes, text_among
from cvkit.pixels import as_image, eight_bit

__all__ = ["Fetched", "Fetcher", "FramedStage", "TwoStage"]


@runtime_checkable
class TwoStage(Protocol):
    """A transform in two stages: one image in a worker, then a whole batch on the device.

    Attributes:
        sample_random: Whether ``sample`` draws random numbers.
    """

    sample_random: bool

    def sample(self, image: Image.Image, /) -> Tensor:
        """Makes one image a uint8 tensor ``(C, H, W)`` of a fixed size."""

    def batch(self, images: Tensor, targets: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """Makes a batch ``(B, C, H, W)`` the model's input; ``generator`` is on the CPU."""


@runtime_checkable
class FramedStage(TwoStage, Protocol):
    """A two-stage transform that chooses what to take of an image from its size alone, and cuts it out then.

    Attributes:
        draws_global: Whether it also draws from torch's global generator.
    """

    draws_global: bool

    def frame(self, width: int, height: int, generator: torch.Generator | None = None, /) -> Any:
        """Chooses a frame, whose ``enough`` is the width and height at which the whole image is large enough for it."""

    def cut(self, image: Image.Image | Tensor, frame: Any, /) -> Tensor:
        """Cuts a frame out of an image, or out of its pixels."""

    def cut_target(self, target: Image.Image, frame: Any, /) -> Tensor:
        """Cuts out of a mask or image that is the target what belongs to a frame."""

    def pixels(self, image: Image.Image, /) -> Tensor:
        """Returns the pixels of an image that are worth keeping."""


@dataclass(slots=True)
class Fetched:
    """A batch as it leaves a worker.

    Attributes:
        indices: The samples in it, skipped ones left out.
        images: ``(B, …)``.
        targets: ``(B, …)``.
        skipped: The message of each sample that was left out, by index.
        finished: The batch after the transform's batch stage, where that has been done already.
    """

    indices: list[int]
    images: Tensor
    targets: Tensor
    skipped: dict[int, str]
    finished: tuple[Tensor, Tensor] | None = None


class Fetcher:
    """Makes batches of a dataset's samples; it is what a worker process gets.

    Args:
        dataset: The dataset.
        transform: The transform, of which only the per-image stage is used here.
        seed: The loader's seed: a sample's random numbers come from (seed, epoch, index).
        places: The number of each class by which labels that are text are numbered, if the loader was given classes.

    Attributes:
        random: Whether a sample may differ each time.
        threads: Whether several threads may fetch at a time: no global random generator is in use, and the dataset is known
            to stand it.
        images: Where decoded images are kept, if they are.
    """

    def __init__(self, dataset: Any, transform: Any, seed: int, places: Mapping[str, int] | None = None) -> None:
        self.dataset = dataset
        self.places = places
        self._numbered = places is not None and known_classes(dataset) is not None
        self.transform = transform
        self.seed = seed
        self.random = _draws(dataset, transform)
        self.framed = isinstance(transform, FramedStage) and getattr(transform, "by_frame", True)
        same = is_deterministic(dataset)
        self.explicit = self.framed and same and not transform.draws_global
        # what is not cvkit's own may draw from Python's and NumPy's generators as well
        self.foreign = self.random and not (_is_own(transform) and same)
        self.threads = self.explicit and _is_thread_safe(dataset)
        self.image_cache: ImageCache | None = None

    def __call__(self, epoch: int, indices: Sequence[int]) -> Fetched:
        """Returns a batch; the global random generators are as before afterwards.

        Raises:
            CvkitError: A sample that fails; it is named.
        """
        if not self.random or self.explicit:
            return self._fetch(epoch, indices)
        kept = seeding.capture() if self.foreign else torch.get_rng_state()
        try:
            return self._fetch(epoch, indices)
        finally:
            if isinstance(kept, dict):
                seeding.restore(kept)
            else:
                torch.set_rng_state(kept)

    def _fetch(self, epoch: int, indices: Sequence[int]) -> Fetched:
        images, targets, taken, skipped = [], [], [], {}
        prepare = getattr(self.dataset, "prepare", None)
        if prepare is not None:  # which samples are wanted together
            prepare(indices)
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
        return Fetched(taken, self._stack(images, taken), self._targets(targets, taken), skipped)

    def _targets(self, targets: list[Any], indices: list[int]) -> Tensor:
        """Stacks targets; labels that are text are numbered first, by the classes that the loader was given."""
        if self.places is not None:
            targets = [
                number_one(target, self.places, _name(self.dataset, index), numbered=self._numbered)
                for target, index in zip(targets, indices, strict=True)
            ]
        elif labels := text_among(targets):
            first = next(i for i, target in zip(indices, targets, strict=True) if isinstance(target, str))
            raise unnumbered(labels, self.dataset, _name(self.dataset, first))
        return _stack_targets(targets, indices)

    def _sample(self, epoch: int, index: int) -> tuple[Tensor, Any]:
        generator = self._seeded(epoch, index) if self.random else None
        if self.image_cache is not None:
            image, target = self.image_cache.get(index) or self._keep(index)
            if not self.framed:  # a transform may change in place what it is given
                return self._staged(_copied_image(image), _copied_image(target), index)
            size = (image.shape[2], image.shape[1])
            return self._framed(image, target, self.transform.frame(*size, generator), index)
        if not self.framed:
            image, target = self._load(index)
            return self._staged(image, target, index)
        frame = None

        def enough(width: int, height: int) -> tuple[int, int]:
            nonlocal frame
            frame = self.transform.frame(width, height, generator)
            size: tuple[int, int] = frame.enough
            return size

        image, target = self._load(index, enough)
        with self._named(index):
            image = as_image(image)
        if frame is None:  # nobody asked before decoding
            frame = self.transform.frame(*image.size, generator)
        return self._framed(image, target, frame, index)

    def _seeded(self, epoch: int, index: int) -> torch.Generator | None:
        """Returns the generator of a sample; ``None`` where the global ones are seeded for it instead."""
        seed = seeding.derive(self.seed, "sample", epoch, index)
        if self.explicit:
            return torch.Generator().manual_seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the GPUs as well
        if self.foreign:
            random.seed(seed)
            np.random.seed(seed % 2**32)
        return None

    def _load(self, index: int, enough: Any = None) -> tuple[Any, Any]:
        """Returns a sample of the dataset, whose image may come smaller if the dataset can do that."""
        try:
            read = self.dataset.read if enough is not None and reads(self.dataset) else None
            item = self.dataset[index] if read is None else read(index, enough)
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
                fix="use a torch DataLoader and your own step for other samples; fit takes both",
            )
        return item[0], item[1]

    def _keep(self, index: int) -> tuple[Any, Any]:
        """Decodes an image and keeps it, if there is room: its pixels, where the transform can cut those."""
        image, target = self._load(index)
        if self.framed:
            with self._named(index):
                image = self.transform.pixels(image)
        if self.image_cache is not None:
            self.image_cache.put(index, image, target)
        return image, target

    def _framed(self, image: Any, target: Any, frame: Any, index: int) -> tuple[Tensor, Any]:
        with self._named(index):
            made = self.transform.cut(image, frame)
            if isinstance(target, Image.Image):
                target = self.transform.cut_target(target, frame)
            elif getattr(self.transform, "takes_pairs", False) and np.ndim(target) >= 2:
                raise DataError(
                    f"{type(self.dataset).__name__} gives a mask as {type(target).__name__}, which stays behind its image",
                    got=f"a target of shape {tuple(np.shape(target))}",
                    expected="masks as PIL images, which are cut and mirrored with their images",
                    fix="return Image.fromarray(mask) from the dataset",
                )
            return made, target

    def _staged(self, image: Any, target: Any, index: int) -> tuple[Tensor, Any]:
        """Returns what the per-image stage makes of an image, and of a target that is one."""
        with self._named(index):
            paired = isinstance(target, Image.Image)
            if isinstance(self.transform, TwoStage):
                if paired and hasattr(self.transform, "sample_pair"):
                    made: tuple[Tensor, Any] = self.transform.sample_pair(image, target)
                    return made
                return _to_tensor(self.transform.sample(image)), target
            if self.transform is None:
                return _to_tensor(image), _target_tensor(target) if paired else target
            if paired:
                image, target = self.transform(*_as_tv(image, target))
                return _to_tensor(image), _target_tensor(target)
            return _to_tensor(self.transform(image)), target

    @contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Names the sample in whatever fails inside."""
        try:
            yield
        except CvkitError as error:
            raise type(error)(f"{_name(self.dataset, index)}: {error}") from error
        except Exception as error:
            raise DataError(
                f"the transform fails on {_name(self.dataset, index)}",
                got=f"{type(error).__name__}: {error}",
                expected="a tensor or an image",
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
                    fix="make them alike in the dataset or in the transform",
                )
        # one memory format whatever the samples' own: another would round a convolution differently
        return torch.stack(images, out=torch.empty(len(images), *first.shape, dtype=first.dtype))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": None}  # a worker decodes its own


def _copied_image(part: Any) -> Any:
    """Returns a copy that may be changed; of a TIFF with its tags, which say how many bits its levels have."""
    twin = copy.deepcopy(part)
    if hasattr(part, "tag_v2"):
        twin.tag_v2 = part.tag_v2
    return twin


def _draws(dataset: Any, transform: Any) -> bool:
    """Whether fetching a sample may draw random numbers; what is not known to be deterministic may."""
    stage_draws = transform.sample_random if isinstance(transform, TwoStage) else transform is not None
    return stage_draws or not is_deterministic(dataset)


def _is_thread_safe(dataset: Any) -> bool:
    """Whether a dataset is known to be read by several threads at a time: this room's own, and parts of them."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    if isinstance(dataset, JoinedDataset):
        return all(_is_thread_safe(part) for part in dataset.parts)
    return reads(dataset) or type(dataset).__module__.split(".")[0] == __name__.split(".")[0]


def _is_own(transform: Any) -> bool:
    """Whether a transform is one of cvkit's, which draw from torch's generator only."""
    return transform is None or type(transform).__module__.split(".")[0] == __name__.split(".")[0]


def _name(dataset: Any, index: int) -> str:
    """Returns what to call a sample in a message: its index, and its file where the dataset knows it."""
    paths = getattr(dataset, "paths", None)
    pairs = getattr(dataset, "samples", None)  # as torchvision's folders have it
    path = paths[index] if paths is not None else pairs[index][0] if isinstance(pairs, list) else None
    return f"sample {index}" + (f" ({path})" if path is not None else "")


def _to_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image.detach()  # no graph leaves a worker, and none is wanted here
    if isinstance(image, Image.Image):
        pixels = torch.from_numpy(np.array(eight_bit(image)))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(image))
    raise DataError(
        "neither image nor tensor",
        got=type(image).__name__,
        expected="a PIL image, a tensor or an array",
        fix="make it one in the dataset or in the transform",
    )


def _target_tensor(target: Any) -> Any:
    """Returns a mask as its integers ``(H, W)``, an image as uint8 ``(C, H, W)``."""
    if isinstance(target, Image.Image) and target.mode not in ("RGB", "RGBA"):
        values = np.array(target)
        return torch.from_numpy(values.astype(np.uint8 if target.mode == "1" else np.int64))
    return _to_tensor(target) if isinstance(target, Image.Image) else target


def _as_tv(image: Any, target: Image.Image) -> tuple[Any, Any]:
    """Returns a pair as torchvision's transforms v2 take it: a mask is marked as one, so that it is never blended."""
    from torchvision import tv_tensors  # here, because it takes long to load and few need it

    if target.mode in ("RGB", "RGBA"):
        return image, target
    return image, tv_tensors.Mask(_target_tensor(target))


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
            fix="number the classes in the dataset; for other targets use a torch DataLoader and your own step",
        ) from error
