"""Presets: what the pictures of a task go through in training, and in evaluation.

Each is a function with keyword-only arguments after the size, filed under its name in :data:`cvkit.registry.presets`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvkit.errors import ArgumentError
from cvkit.registry import presets
from cvkit.transforms import stages
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
    "denoise",
    "digits_eval",
    "digits_train",
    "segmentation_eval",
    "segmentation_train",
    "small_image_eval",
    "small_image_train",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training pictures, as torchvision's weights expect them; source: its ``transforms/_presets.py``."""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the pixels of CIFAR-10's 50,000 training pictures, to four places."""

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
"""Of the pixels of MNIST's 60,000 training pictures, to four places."""


def _number(argument: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{argument} cannot be used", got=repr(value), expected="a number", fix="leave it out for the usual one"
        ) from error


def _floats(argument: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        several = list(values)
    except TypeError as error:
        raise ArgumentError(
            f"{argument} cannot be used",
            got=repr(values),
            expected="a sequence of numbers",
            fix=f"pass e.g. {argument}=({values!r},), or leave it out for the usual ones",
        ) from error
    return tuple(_number(argument, value) for value in several)


def classification_train(
    size: int = 224,
    *,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    vertical_flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    erase: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    num_classes: int | None = None,
    augment: str | None = None,
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
        vertical_flip: Probability of an image upside down.
        brightness: Strength of a random change: the factor is uniform from ``max(0, 1 - brightness)`` to ``1 + brightness``.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: The largest turn of the colours, as a share of the colour circle, from 0 to 0.5.
        erase: Probability that a random box is painted over in the mean colour (random erasing).
        mixup: Parameter of mixup's beta distribution, e.g. 0.2; 0 for none. Targets become probabilities ``(N, num_classes)``.
        cutmix: The same for CutMix, e.g. 1.0; where both are on, each sample gets one of them by a fair coin.
        num_classes: How many classes there are, for mixup and CutMix.
        augment: A policy of torchvision's on each picture after the crop: ``"autoaugment"`` (ImageNet's), ``"randaugment"``
            or ``"trivialaugment"``.
        mean: Channel means, ImageNet's by default; three for RGB, one for grey.
        std: Channel standard deviations, ImageNet's by default.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.ClassificationTrain(
        size=size,
        mean=_floats("mean", mean),
        std=_floats("std", std),
        scale=_floats("scale", scale),
        ratio=_floats("ratio", ratio),
        flip=_number("flip", flip),
        vertical_flip=_number("vertical_flip", vertical_flip),
        brightness=_number("brightness", brightness),
        contrast=_number("contrast", contrast),
        saturation=_number("saturation", saturation),
        hue=_number("hue", hue),
        erase=_number("erase", erase),
        mixup=_number("mixup", mixup),
        cutmix=_number("cutmix", cutmix),
        num_classes=num_classes,
        augment=augment,
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
    return stages.ClassificationEval(
        size=size,
        mean=_floats("mean", mean),
        std=_floats("std", std),
        resize=resize,  # None only beside a size that is refused
        interpolation=interpolation,
    )


def small_image_train(
    size: int = 32,
    *,
    padding: int = 4,
    flip: float = 0.5,
    vertical_flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    erase: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    num_classes: int | None = None,
    augment: str | None = None,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
) -> Transform:
    """Small pictures in training: a random crop of the zero-padded picture, a random mirror image, normalised.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        padding: Zeros on each side in pixels, hence the largest shift.
        flip: Probability of a mirror image.
        vertical_flip: Probability of an image upside down.
        brightness: Strength of a random change: the factor is uniform from ``max(0, 1 - brightness)`` to ``1 + brightness``.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: The largest turn of the colours, as a share of the colour circle, from 0 to 0.5.
        erase: Probability that a random box is painted over in the mean colour (random erasing).
        mixup: Parameter of mixup's beta distribution, e.g. 0.2; 0 for none. Targets become probabilities ``(N, num_classes)``.
        cutmix: The same for CutMix, e.g. 1.0; where both are on, each sample gets one of them by a fair coin.
        num_classes: How many classes there are, for mixup and CutMix.
        augment: A policy of torchvision's on each picture after the crop: ``"autoaugment"`` (ImageNet's), ``"randaugment"``
            or ``"trivialaugment"``.
        mean: Channel means, CIFAR-10's by default; three for RGB, one for grey.
        std: Channel standard deviations, CIFAR-10's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.SmallImageTrain(
        size=size,
        mean=_floats("mean", mean),
        std=_floats("std", std),
        padding=padding,
        flip=_number("flip", flip),
        vertical_flip=_number("vertical_flip", vertical_flip),
        brightness=_number("brightness", brightness),
        contrast=_number("contrast", contrast),
        saturation=_number("saturation", saturation),
        hue=_number("hue", hue),
        erase=_number("erase", erase),
        mixup=_number("mixup", mixup),
        cutmix=_number("cutmix", cutmix),
        num_classes=num_classes,
        augment=augment,
    )


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
    return stages.SmallImageEval(size=size, mean=_floats("mean", mean), std=_floats("std", std))


def digits_train(
    size: int = 28,
    *,
    padding: int = 2,
    flip: float = 0.0,
    vertical_flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    erase: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    num_classes: int | None = None,
    augment: str | None = None,
    mean: Sequence[float] = MNIST_MEAN,
    std: Sequence[float] = MNIST_STD,
) -> Transform:
    """Digits and letters in training: grey, shifted by a few pixels, not mirrored unless asked for, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        padding: Zeros on each side in pixels, hence the largest shift.
        flip: Probability of a mirror image; a mirrored 2 is no digit.
        vertical_flip: Probability of an image upside down.
        brightness: Strength of a random change: the factor is uniform from ``max(0, 1 - brightness)`` to ``1 + brightness``.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: The largest turn of the colours, as a share of the colour circle, from 0 to 0.5.
        erase: Probability that a random box is painted over in the mean colour (random erasing).
        mixup: Parameter of mixup's beta distribution, e.g. 0.2; 0 for none. Targets become probabilities ``(N, num_classes)``.
        cutmix: The same for CutMix, e.g. 1.0; where both are on, each sample gets one of them by a fair coin.
        num_classes: How many classes there are, for mixup and CutMix.
        augment: A policy of torchvision's on each picture after the crop: ``"autoaugment"`` (ImageNet's), ``"randaugment"``
            or ``"trivialaugment"``.
        mean: Channel means, MNIST's by default; one for grey, three for RGB.
        std: Channel standard deviations, MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.DigitsTrain(
        size=size,
        mean=_floats("mean", mean),
        std=_floats("std", std),
        padding=padding,
        flip=_number("flip", flip),
        vertical_flip=_number("vertical_flip", vertical_flip),
        brightness=_number("brightness", brightness),
        contrast=_number("contrast", contrast),
        saturation=_number("saturation", saturation),
        hue=_number("hue", hue),
        erase=_number("erase", erase),
        mixup=_number("mixup", mixup),
        cutmix=_number("cutmix", cutmix),
        num_classes=num_classes,
        augment=augment,
    )


def digits_eval(size: int = 28, *, mean: Sequence[float] = MNIST_MEAN, std: Sequence[float] = MNIST_STD) -> Transform:
    """Digits and letters in evaluation: grey, the whole picture, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        mean: Channel means, MNIST's by default; one for grey, three for RGB.
        std: Channel standard deviations, MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.DigitsEval(size=size, mean=_floats("mean", mean), std=_floats("std", std))


def segmentation_train(
    size: int = 256,
    *,
    scale: Sequence[float] = (0.25, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    vertical_flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> Transform:
    """Pictures and their masks in training: the same random resized crop and mirror images of both, the pictures normalised.

    Masks ``(N, size, size)`` come as class indices; none of their values is blended.

    Args:
        size: Side of the result in pixels.
        scale: Bounds on the crop's share of the picture's area.
        ratio: Bounds on the crop's width over its height.
        flip: Probability of a mirror image.
        vertical_flip: Probability of an image upside down.
        brightness: Strength of a random change: the factor is uniform from ``max(0, 1 - brightness)`` to ``1 + brightness``.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: The largest turn of the colours, as a share of the colour circle, from 0 to 0.5.
        mean: Channel means, ImageNet's by default; three for RGB, one for grey.
        std: Channel standard deviations, ImageNet's by default.
        interpolation: The filter for pictures, as in :func:`classification_train`.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.SegmentationTrain(
        size=size,
        mean=_floats("mean", mean),
        std=_floats("std", std),
        scale=_floats("scale", scale),
        ratio=_floats("ratio", ratio),
        flip=_number("flip", flip),
        vertical_flip=_number("vertical_flip", vertical_flip),
        brightness=_number("brightness", brightness),
        contrast=_number("contrast", contrast),
        saturation=_number("saturation", saturation),
        hue=_number("hue", hue),
        interpolation=interpolation,
    )


def segmentation_eval(
    size: int = 256,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> Transform:
    """Pictures and their masks in evaluation: both whole, resized to a square, the pictures normalised.

    Args:
        size: Side of the result in pixels.
        mean: Channel means, ImageNet's by default; three for RGB, one for grey.
        std: Channel standard deviations, ImageNet's by default.
        interpolation: The filter for pictures, as in :func:`classification_train`.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.SegmentationEval(
        size=size, mean=_floats("mean", mean), std=_floats("std", std), interpolation=interpolation
    )


def denoise(
    size: int = 64,
    *,
    noise: float = 0.1,
    flip: float = 0.0,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Transform:
    """Pictures to be restored: each with normal noise as input and without as target, whatever the data set says of it.

    Where the data set's targets are pictures (``ParallelDataset(…, kind="image")``), those are the targets; ``noise=0`` then
    leaves the inputs as they are. For an autoencoder take ``noise=0`` as well. Its evaluation twin adds no noise: to
    validate how well noise is removed, give the validation loader this preset too.

    Args:
        size: Side of the result in pixels; whole pictures are resized.
        noise: Standard deviation of the noise, on the scale 0 to 1.
        flip: Probability of a mirror image.
        mean: Channel means of inputs and targets, 0 by default; one for grey, three for RGB.
        std: Channel standard deviations, 1 by default: inputs (but for the noise) and targets are from 0 to 1.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.Denoise(
        size=size,
        mean=_floats("mean", mean),
        std=_floats("std", std),
        noise=_number("noise", noise),
        flip=_number("flip", flip),
    )


# not as decorators: those would hide the signatures from type checkers
for _preset in (
    classification_train,
    classification_eval,
    small_image_train,
    small_image_eval,
    digits_train,
    digits_eval,
    segmentation_train,
    segmentation_eval,
    denoise,
):
    presets.register(_preset.__name__)(_preset)
del _preset
