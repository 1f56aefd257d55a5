"""Presets: what the pictures of a task go through in training, and in evaluation.

Each is a function with keyword-only arguments after the size, filed under its name in :data:`cvkit.registry.presets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ArgumentError, unknown_name
from cvkit.registry import presets
from cvkit.transforms import batch as ops
from cvkit.transforms import sample as one
from cvkit.transforms.base import Transform

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MNIST_MEAN",
    "MNIST_STD",
    "classification_eval",
    "classification_train",
    "digits_eval",
    "digits_train",
    "small_image_eval",
    "small_image_train",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training pictures, as torchvision's weights expect them; source: its ``transforms/_presets.py``."""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the pixels of CIFAR-10's 50,000 training pictures, to four places."""

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
"""Of the pixels of MNIST's 60,000 training pictures, to four places."""


def _check_probability(name: str, argument: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ArgumentError(
            f"{name}: {argument} cannot be used",
            got=repr(value),
            expected="a probability from 0 to 1",
            fix=f"pass e.g. {argument}=0.5",
        )


def _check_range(name: str, argument: str, value: tuple[float, ...], most: float, example: str) -> None:
    if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
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
class _ClassificationTrain(Transform):
    """A random resized crop of each picture; in the batch, a random mirror image."""

    name: ClassVar[str] = "classification_train"
    sample_random: ClassVar[bool] = True

    scale: tuple[float, ...]
    ratio: tuple[float, ...]
    flip: float
    interpolation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range(self.name, "scale", self.scale, 1.0, "(0.08, 1.0)")
        _check_range(self.name, "ratio", self.ratio, float("inf"), "(0.75, 1.33)")
        _check_probability(self.name, "flip", self.flip)
        _check_interpolation(self.interpolation)

    def sample(self, image: Image.Image) -> Tensor:
        image = one.to_channels(image, self.channels)
        box = one.random_box(image.width, image.height, self.scale, self.ratio)
        return one.to_tensor(one.crop_and_resize(image, box, self.size, self.interpolation))

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"flip": torch.rand(count, generator=generator) < self.flip}

    def apply(self, images: Tensor, targets: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.flip:
            images = ops.horizontal_flip(images, draws["flip"])
        return super().apply(images, targets, draws)

    def evaluation(self) -> Transform:
        return classification_eval(self.size, mean=self.mean, std=self.std, interpolation=self.interpolation)


@dataclass(frozen=True, repr=False)
class _ClassificationEval(Transform):
    """The middle of each picture, after its shorter side has been resized."""

    name: ClassVar[str] = "classification_eval"

    resize: int
    interpolation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.resize, bool) or not isinstance(self.resize, int) or self.resize < self.size:
            raise ArgumentError(
                f"{self.name}: resize cannot be used",
                got=repr(self.resize),
                expected=f"the shorter side in pixels before the cut, a whole number of size={self.size} or more",
                fix="leave resize out",
            )
        _check_interpolation(self.interpolation)

    def sample(self, image: Image.Image) -> Tensor:
        image = one.to_channels(image, self.channels)
        width, height = one.shorter_side(image.width, image.height, self.resize)
        return one.to_tensor(one.centre_crop(one.resize(image, width, height, self.interpolation), self.size))


@dataclass(frozen=True, repr=False)
class _Whole(Transform):
    """The whole picture, resized to ``size`` × ``size`` where it has another size."""

    def sample(self, image: Image.Image) -> Tensor:
        return one.to_tensor(one.resize(one.to_channels(image, self.channels), self.size, self.size))


@dataclass(frozen=True, repr=False)
class _PaddedCrop(_Whole):
    """The whole picture; in the batch, a crop at a random place of the zero-padded picture, and a random mirror image."""

    padding: int
    flip: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise ArgumentError(
                f"{self.name}: padding cannot be used",
                got=repr(self.padding),
                expected="zeros on each side in pixels, a whole number of 0 or more",
                fix="pass e.g. padding=4",
            )
        _check_probability(self.name, "flip", self.flip)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        top, left = torch.randint(0, 2 * self.padding + 1, (2, count), generator=generator)
        return {"top": top, "left": left, "flip": torch.rand(count, generator=generator) < self.flip}

    def apply(self, images: Tensor, targets: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.padding or self.flip:
            padded = ops.pad(images, self.padding)
            images = ops.crop(padded, draws["top"], draws["left"], self.size, flip=draws["flip"] if self.flip else None)
        return super().apply(images, targets, draws)


class _SmallImageTrain(_PaddedCrop):
    name = "small_image_train"

    def evaluation(self) -> Transform:
        return small_image_eval(self.size, mean=self.mean, std=self.std)


class _SmallImageEval(_Whole):
    name = "small_image_eval"


class _DigitsTrain(_PaddedCrop):
    name = "digits_train"

    def evaluation(self) -> Transform:
        return digits_eval(self.size, mean=self.mean, std=self.std)


class _DigitsEval(_Whole):
    name = "digits_eval"


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def classification_train(
    size: int = 224,
    *,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> Transform:
    """Photos in training: a random resized crop, a random mirror image, normalised.

    Source: Szegedy et al., Going Deeper with Convolutions, 2014, section 6.

    Args:
        size: Side of the result in pixels.
        scale: Bounds on the crop's share of the picture's area.
        ratio: Bounds on the crop's width over its height.
        flip: Probability of a mirror image.
        mean: Channel means, ImageNet's by default; three for RGB, one for grey.
        std: Channel standard deviations, ImageNet's by default.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.

    Raises:
        ArgumentError: A value out of range.
    """
    return _ClassificationTrain(
        size=size,
        mean=_floats(mean),
        std=_floats(std),
        scale=_floats(scale),
        ratio=_floats(ratio),
        flip=float(flip),
        interpolation=interpolation,
    )


def classification_eval(
    size: int = 224,
    *,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> Transform:
    """Photos in evaluation: the shorter side resized, the middle cut out, normalised.

    Args:
        size: Side of the result in pixels.
        resize: Length of the shorter side before the cut; ``round(size * 256 / 224)`` by default.
        mean: Channel means, ImageNet's by default; three for RGB, one for grey.
        std: Channel standard deviations, ImageNet's by default.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.

    Raises:
        ArgumentError: A value out of range.
    """
    if resize is None and isinstance(size, int):
        resize = round(size * 256 / 224)
    return _ClassificationEval(
        size=size,
        mean=_floats(mean),
        std=_floats(std),
        resize=resize,  # None only beside a size that is refused
        interpolation=interpolation,
    )


def small_image_train(
    size: int = 32,
    *,
    padding: int = 4,
    flip: float = 0.5,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
) -> Transform:
    """Small pictures in training: a random crop of the zero-padded picture, a random mirror image, normalised.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        padding: Zeros on each side in pixels, hence the largest shift.
        flip: Probability of a mirror image.
        mean: Channel means, CIFAR-10's by default; three for RGB, one for grey.
        std: Channel standard deviations, CIFAR-10's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _SmallImageTrain(size=size, mean=_floats(mean), std=_floats(std), padding=padding, flip=float(flip))


def small_image_eval(
    size: int = 32, *, mean: Sequence[float] = CIFAR10_MEAN, std: Sequence[float] = CIFAR10_STD
) -> Transform:
    """Small pictures in evaluation: the whole picture, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        mean: Channel means, CIFAR-10's by default; three for RGB, one for grey.
        std: Channel standard deviations, CIFAR-10's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _SmallImageEval(size=size, mean=_floats(mean), std=_floats(std))


def digits_train(
    size: int = 28,
    *,
    padding: int = 2,
    flip: float = 0.0,
    mean: Sequence[float] = MNIST_MEAN,
    std: Sequence[float] = MNIST_STD,
) -> Transform:
    """Digits and letters in training: grey, shifted by a few pixels, not mirrored unless asked for, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        padding: Zeros on each side in pixels, hence the largest shift.
        flip: Probability of a mirror image; a mirrored 2 is no digit.
        mean: Channel means, MNIST's by default; one for grey, three for RGB.
        std: Channel standard deviations, MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _DigitsTrain(size=size, mean=_floats(mean), std=_floats(std), padding=padding, flip=float(flip))


def digits_eval(size: int = 28, *, mean: Sequence[float] = MNIST_MEAN, std: Sequence[float] = MNIST_STD) -> Transform:
    """Digits and letters in evaluation: grey, the whole picture, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        mean: Channel means, MNIST's by default; one for grey, three for RGB.
        std: Channel standard deviations, MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _DigitsEval(size=size, mean=_floats(mean), std=_floats(std))


# not as decorators: those would hide the signatures from type checkers
for _preset in (
    classification_train,
    classification_eval,
    small_image_train,
    small_image_eval,
    digits_train,
    digits_eval,
):
    presets.register(_preset.__name__)(_preset)
del _preset
