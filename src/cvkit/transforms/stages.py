"""The transforms behind the presets, each a frozen dataclass; :mod:`cvkit.transforms.presets` builds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ArgumentError, unknown_name
from cvkit.transforms import batch as ops
from cvkit.transforms import sample as one
from cvkit.transforms.augment import Augmented, check_probability
from cvkit.transforms.base import Framed, Transform
from cvkit.transforms.sample import Frame

__all__ = [
    "ClassificationEval",
    "ClassificationTrain",
    "Denoise",
    "DigitsEval",
    "DigitsTrain",
    "SegmentationEval",
    "SegmentationTrain",
    "SmallImageEval",
    "SmallImageTrain",
]


def _check_range(name: str, argument: str, value: tuple[float, ...], most: float, example: str) -> None:
    if len(value) != 2 or not 0 < value[0] <= value[1] <= most or math.isinf(value[1]):
        raise ArgumentError(
            f"{name}: {argument} cannot be used",
            got=repr(value),
            expected=f"two numbers, 0 < low <= high{'' if most == float('inf') else f' <= {most:g}'}",
            fix=f"pass e.g. {argument}={example}",
        )


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in one.INTERPOLATIONS:
        raise unknown_name("interpolation", interpolation, one.INTERPOLATIONS)


@dataclass(frozen=True, repr=False)
class _RandomCrop(Augmented):
    """A random resized crop of each image."""

    sample_random: ClassVar[bool] = True

    scale: tuple[float, ...]
    ratio: tuple[float, ...]
    interpolation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range(self.name, "scale", self.scale, 1.0, "(0.08, 1.0)")
        _check_range(self.name, "ratio", self.ratio, float("inf"), "(0.75, 1.33)")
        _check_interpolation(self.interpolation)

    @property
    def filter(self) -> str:  # type: ignore[override]  # of a class above, of each object here
        """The filter that resizes."""
        return self.interpolation

    def frame(self, width: int, height: int, generator: torch.Generator | None = None) -> Frame:
        box = one.random_box(width, height, self.scale, self.ratio, generator)
        return Frame((width, height), box, (self.size, self.size))

    def most(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size at which the lowest and the narrowest crop are as large as the result; others are larger."""
        area = self.scale[0] * width * height
        narrowest = min(math.sqrt(area * self.ratio[0]), max(1, round(height * self.ratio[1])), width)
        lowest = min(math.sqrt(area / self.ratio[1]), max(1, round(width / self.ratio[0])), height)
        shrink = min(1.0, self.size / min(narrowest, lowest))
        return max(math.ceil(width * shrink), 1), max(math.ceil(height * shrink), 1)


class ClassificationTrain(_RandomCrop):
    """A random resized crop; in the batch, mirror images and what else is asked for."""

    name = "classification_train"
    flips_late: ClassVar[bool] = True

    def evaluation(self) -> Transform:
        """Returns the preset of the same images that draws nothing."""
        return ClassificationEval(self.size, self.mean, self.std, round(self.size * 256 / 224), self.interpolation)


@dataclass(frozen=True, repr=False)
class ClassificationEval(Framed):
    """The middle of each image, after its shorter side has been resized."""

    name: ClassVar[str] = "classification_eval"

    resize: int
    interpolation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.resize, bool) or not isinstance(self.resize, int) or self.resize < self.size:
            raise ArgumentError(
                f"{self.name}: resize cannot be used",
                got=repr(self.resize),
                expected=f"the shorter side in pixels before the cut, an integer of size={self.size} or more",
                fix="leave resize out",
            )
        _check_interpolation(self.interpolation)

    @property
    def filter(self) -> str:  # type: ignore[override]  # of a class above, of each object here
        """The filter that resizes."""
        return self.interpolation

    def frame(self, width: int, height: int, generator: torch.Generator | None = None) -> Frame:
        """Returns the middle of the resized image."""
        return one.centre_frame(width, height, self.resize, self.size)


class _Whole(Framed):
    """The whole image, resized to ``size`` × ``size`` where it has another size."""

    def frame(self, width: int, height: int, generator: torch.Generator | None = None) -> Frame:
        return one.whole_frame(width, height, self.size)


@dataclass(frozen=True, repr=False)
class _PaddedCrop(Augmented):
    """The whole image; in the batch, a crop at a random place of the zero-padded image, and a random mirror image."""

    padding: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise ArgumentError(
                f"{self.name}: padding cannot be used",
                got=repr(self.padding),
                expected="zeros on each side in pixels, an integer of 0 or more",
                fix="pass e.g. padding=4",
            )

    @property
    def sample_random(self) -> bool:  # type: ignore[override]  # of a class above, of each object here
        """Whether the first stage draws: only a policy does."""
        return self.augment is not None

    def frame(self, width: int, height: int, generator: torch.Generator | None = None) -> Frame:
        return one.whole_frame(width, height, self.size)

    def most(self, width: int, height: int) -> tuple[int, int]:
        return self.size, self.size

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        top, left = torch.randint(0, 2 * self.padding + 1, (2, count), generator=generator)
        return {"top": top, "left": left, **super().draw(count, generator)}

    def moved(self, images: Tensor, targets: Tensor, draws: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Crops and mirrors in one gather."""
        if self.padding or self.flip:
            padded = ops.pad(images, self.padding)
            images = ops.crop(padded, draws["top"], draws["left"], self.size, flip=draws.get("flip"))
        if "vertical_flip" in draws:
            images = ops.vertical_flip(images, draws["vertical_flip"])
        return images, targets


class SmallImageTrain(_PaddedCrop):
    """Small images in training."""

    name = "small_image_train"

    def evaluation(self) -> Transform:
        """Returns the preset of the same images that draws nothing."""
        return SmallImageEval(self.size, self.mean, self.std)


class SmallImageEval(_Whole):
    """Small images in evaluation."""

    name = "small_image_eval"


class DigitsTrain(_PaddedCrop):
    """Digits in training."""

    name = "digits_train"

    def evaluation(self) -> Transform:
        """Returns the preset of the same images that draws nothing."""
        return DigitsEval(self.size, self.mean, self.std)


class DigitsEval(_Whole):
    """Digits in evaluation."""

    name = "digits_eval"


def _indices(masks: Tensor) -> Tensor:
    """Returns masks as class indices; floats, e.g. of depth, as they are."""
    return masks if masks.is_floating_point() else masks.long()


class _WithMask(Framed):
    """A first stage that moves a mask with its image."""

    takes_pairs = True

    def cut_target(self, target: Image.Image, frame: Frame) -> Tensor:
        """Cuts the frame out of a mask; no value is blended."""
        return one.cut_mask(target, frame)


@dataclass(frozen=True, repr=False)
class SegmentationTrain(_WithMask, _RandomCrop):
    """The same random resized crop of image and mask; in the batch, the same mirror images."""

    name: ClassVar[str] = "segmentation_train"
    flips_late: ClassVar[bool] = False  # masks are mirrored by the same draw, and are not normalised

    # what would leave the masks behind is no argument
    erase: float = field(default=0.0, init=False)
    mixup: float = field(default=0.0, init=False)
    cutmix: float = field(default=0.0, init=False)
    num_classes: int | None = field(default=None, init=False)
    augment: str | None = field(default=None, init=False)

    def moved(self, images: Tensor, targets: Tensor, draws: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mirrors images and masks alike; masks of integers become class indices."""
        if targets.ndim == 3:
            targets, _ = super().moved(targets, targets, draws)
            targets = _indices(targets)
        images, _ = super().moved(images, targets, draws)
        return images, targets

    def evaluation(self) -> Transform:
        """Returns the preset of the same images that draws nothing."""
        return SegmentationEval(self.size, self.mean, self.std, self.interpolation)


@dataclass(frozen=True, repr=False)
class SegmentationEval(_WithMask, _Whole):
    """The whole image and the whole mask, resized."""

    name: ClassVar[str] = "segmentation_eval"

    interpolation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_interpolation(self.interpolation)

    @property
    def filter(self) -> str:  # type: ignore[override]  # of a class above, of each object here
        """The filter that resizes."""
        return self.interpolation

    def apply(self, images: Tensor, targets: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Normalises the images; masks of integers become class indices."""
        images, targets = super().apply(images, targets, draws)
        return images, _indices(targets) if targets.ndim == 3 else targets


@dataclass(frozen=True, repr=False)
class Denoise(_Whole):
    """The whole image with noise as input, without as target; or the image that a dataset has as its target."""

    name: ClassVar[str] = "denoise"
    takes_pairs: ClassVar[bool] = True

    noise: float
    flip: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability(self.name, "flip", self.flip)
        if not 0 <= self.noise < float("inf"):
            raise ArgumentError(
                f"{self.name}: noise cannot be used",
                got=repr(self.noise),
                expected="a standard deviation on the scale 0 to 1, 0 for none",
                fix="pass e.g. noise=0.1",
            )

    def cut_target(self, target: Image.Image, frame: Frame) -> Tensor:
        """Resizes an image that is the target, whatever its size."""
        return self.sample(target)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws who is mirrored, and a seed for the noise of the whole batch."""
        seed = torch.randint(0, 2**63 - 1, (1,), generator=generator)
        noise = torch.stack([seed.expand(count), torch.arange(count), torch.full((count,), count)], 1)
        return {"flip": torch.rand(count, generator=generator) < self.flip, "noise": noise}

    def apply(self, images: Tensor, targets: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the noisy images and the clean ones, mirrored alike."""
        clean = targets if targets.dtype == torch.uint8 and targets.shape == images.shape else None
        images = ops.horizontal_flip(images, draws["flip"])
        inputs = truth = ops.normalize(images, self.mean, self.std)
        if clean is not None:
            truth = ops.normalize(ops.horizontal_flip(clean, draws["flip"]), self.mean, self.std)
        if self.noise and len(images):
            inputs = inputs + self._noise(inputs, draws["noise"])
        return inputs, truth

    def _noise(self, images: Tensor, draws: Tensor) -> Tensor:
        """Returns the rows of the whole batch's noise that belong to these samples, so that processes may share a batch."""
        seed, _, count = draws[0].tolist()
        noise = ops.add_noise(images.new_zeros(count, *images.shape[1:]), self.noise, seed)
        if count != len(images):
            noise = noise[ops.to_device(draws[:, 1], images.device)]
        return noise / torch.tensor(self.std, device=images.device)[:, None, None]

    def evaluation(self) -> Transform:
        """Returns the same without noise and mirror images."""
        return Denoise(self.size, self.mean, self.std, 0.0, 0.0)
