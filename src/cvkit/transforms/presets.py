"""Presets: what the images of a task go through in training, and in evaluation.

Each is a function with keyword-only arguments after the size, filed under its name in :data:`cvkit.registry.presets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cvkit.registry import presets
from cvkit.transforms import stages
from cvkit.transforms.base import Transform
from cvkit.transforms.statistics import (
    CIFAR10,
    CIFAR10_MEAN,
    CIFAR10_STD,
    IMAGENET,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LEVELS,
    MNIST_MEAN,
    MNIST_STD,
    floats,
    number,
    statistics,
)

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
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str = "bilinear",
) -> Transform:
    """Photos in training: a random resized crop, a random mirror image, normalised.

    Source: Szegedy et al., Going Deeper with Convolutions, 2014, section 6.

    Args:
        size: Side of the result in pixels.
        scale: Bounds on the crop's share of the image's area.
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
        augment: A policy of torchvision's on each image after the crop: ``"autoaugment"`` (ImageNet's), ``"randaugment"``
            or ``"trivialaugment"``.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means, ImageNet's by default; of grey images the mean of its three.
        std: Channel standard deviations, by default in the same way.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    means, stds = statistics("classification_train", channels, mean, std, IMAGENET)
    return stages.ClassificationTrain(
        size=size,
        mean=means,
        std=stds,
        scale=floats("scale", scale),
        ratio=floats("ratio", ratio),
        flip=number("flip", flip),
        vertical_flip=number("vertical_flip", vertical_flip),
        brightness=number("brightness", brightness),
        contrast=number("contrast", contrast),
        saturation=number("saturation", saturation),
        hue=number("hue", hue),
        erase=number("erase", erase),
        mixup=number("mixup", mixup),
        cutmix=number("cutmix", cutmix),
        num_classes=num_classes,
        augment=augment,
        interpolation=interpolation,
    )


def classification_eval(
    size: int = 224,
    *,
    resize: int | None = None,
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str = "bilinear",
) -> Transform:
    """Photos in evaluation: the shorter side resized, the middle cut out, normalised.

    Args:
        size: Side of the result in pixels.
        resize: Length of the shorter side before the cut; ``round(size * 256 / 224)`` by default.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means, ImageNet's by default; of grey images the mean of its three.
        std: Channel standard deviations, by default in the same way.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    if resize is None and isinstance(size, int):
        resize = round(size * 256 / 224)
    means, stds = statistics("classification_eval", channels, mean, std, IMAGENET)
    return stages.ClassificationEval(
        size=size,
        mean=means,
        std=stds,
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
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Transform:
    """Small images in training: a random crop of the zero-padded image, a random mirror image, normalised.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2.

    Args:
        size: Side of the result in pixels; images of another size are resized.
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
        augment: A policy of torchvision's on each image after the crop: ``"autoaugment"`` (ImageNet's), ``"randaugment"``
            or ``"trivialaugment"``.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means, CIFAR-10's by default; of grey images the mean of its three.
        std: Channel standard deviations, by default in the same way.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    means, stds = statistics("small_image_train", channels, mean, std, CIFAR10)
    return stages.SmallImageTrain(
        size=size,
        mean=means,
        std=stds,
        padding=padding,
        flip=number("flip", flip),
        vertical_flip=number("vertical_flip", vertical_flip),
        brightness=number("brightness", brightness),
        contrast=number("contrast", contrast),
        saturation=number("saturation", saturation),
        hue=number("hue", hue),
        erase=number("erase", erase),
        mixup=number("mixup", mixup),
        cutmix=number("cutmix", cutmix),
        num_classes=num_classes,
        augment=augment,
    )


def small_image_eval(
    size: int = 32,
    *,
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Transform:
    """Small images in evaluation: the whole image, normalised.

    Args:
        size: Side of the result in pixels; images of another size are resized.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means, CIFAR-10's by default; of grey images the mean of its three.
        std: Channel standard deviations, by default in the same way.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    means, stds = statistics("small_image_eval", channels, mean, std, CIFAR10)
    return stages.SmallImageEval(size=size, mean=means, std=stds)


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
        size: Side of the result in pixels; images of another size are resized.
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
        augment: A policy of torchvision's on each image after the crop: ``"autoaugment"`` (ImageNet's), ``"randaugment"``
            or ``"trivialaugment"``.
        mean: Channel means, MNIST's by default; one for grey, three for RGB.
        std: Channel standard deviations, MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.DigitsTrain(
        size=size,
        mean=floats("mean", mean),
        std=floats("std", std),
        padding=padding,
        flip=number("flip", flip),
        vertical_flip=number("vertical_flip", vertical_flip),
        brightness=number("brightness", brightness),
        contrast=number("contrast", contrast),
        saturation=number("saturation", saturation),
        hue=number("hue", hue),
        erase=number("erase", erase),
        mixup=number("mixup", mixup),
        cutmix=number("cutmix", cutmix),
        num_classes=num_classes,
        augment=augment,
    )


def digits_eval(size: int = 28, *, mean: Sequence[float] = MNIST_MEAN, std: Sequence[float] = MNIST_STD) -> Transform:
    """Digits and letters in evaluation: grey, the whole image, normalised.

    Args:
        size: Side of the result in pixels; images of another size are resized.
        mean: Channel means, MNIST's by default; one for grey, three for RGB.
        std: Channel standard deviations, MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return stages.DigitsEval(size=size, mean=floats("mean", mean), std=floats("std", std))


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
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str = "bilinear",
) -> Transform:
    """Images and their masks in training: the same random resized crop and mirror images of both, the images normalised.

    Masks ``(N, size, size)`` come as class indices; none of their values is blended.

    Args:
        size: Side of the result in pixels.
        scale: Bounds on the crop's share of the image's area.
        ratio: Bounds on the crop's width over its height.
        flip: Probability of a mirror image.
        vertical_flip: Probability of an image upside down.
        brightness: Strength of a random change: the factor is uniform from ``max(0, 1 - brightness)`` to ``1 + brightness``.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: The largest turn of the colours, as a share of the colour circle, from 0 to 0.5.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means, ImageNet's by default; of grey images the mean of its three.
        std: Channel standard deviations, by default in the same way.
        interpolation: The filter for images, as in :func:`classification_train`.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    means, stds = statistics("segmentation_train", channels, mean, std, IMAGENET)
    return stages.SegmentationTrain(
        size=size,
        mean=means,
        std=stds,
        scale=floats("scale", scale),
        ratio=floats("ratio", ratio),
        flip=number("flip", flip),
        vertical_flip=number("vertical_flip", vertical_flip),
        brightness=number("brightness", brightness),
        contrast=number("contrast", contrast),
        saturation=number("saturation", saturation),
        hue=number("hue", hue),
        interpolation=interpolation,
    )


def segmentation_eval(
    size: int = 256,
    *,
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str = "bilinear",
) -> Transform:
    """Images and their masks in evaluation: both whole, resized to a square, the images normalised.

    Args:
        size: Side of the result in pixels.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means, ImageNet's by default; of grey images the mean of its three.
        std: Channel standard deviations, by default in the same way.
        interpolation: The filter for images, as in :func:`classification_train`.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    means, stds = statistics("segmentation_eval", channels, mean, std, IMAGENET)
    return stages.SegmentationEval(size=size, mean=means, std=stds, interpolation=interpolation)


def denoise(
    size: int = 64,
    *,
    noise: float = 0.1,
    flip: float = 0.0,
    channels: Literal[1, 3] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Transform:
    """Images to be restored: each with normal noise as input and without as target, whatever the dataset says of it.

    Where the dataset's targets are images (``ParallelDataset(…, kind="image")``), those are the targets; ``noise=0`` then
    leaves the inputs as they are. For an autoencoder take ``noise=0`` as well. Its evaluation twin adds no noise: to
    validate how well noise is removed, give the validation loader this preset too.

    Args:
        size: Side of the result in pixels; whole images are resized.
        noise: Standard deviation of the noise, on the scale 0 to 1.
        flip: Probability of a mirror image.
        channels: 3 for RGB, 1 for grey; by default as many as ``mean`` has.
        mean: Channel means of inputs and targets, 0 by default.
        std: Channel standard deviations, 1 by default: inputs (but for the noise) and targets are from 0 to 1.

    Raises:
        ArgumentError: A value out of range, or statistics of another number of channels.
    """
    means, stds = statistics("denoise", channels, mean, std, LEVELS)
    return stages.Denoise(
        size=size,
        mean=means,
        std=stds,
        noise=number("noise", noise),
        flip=number("flip", flip),
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
