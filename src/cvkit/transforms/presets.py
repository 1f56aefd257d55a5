"""Presets: what a task's pictures go through in training, and its twin for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ArgumentError
from cvkit.registry import presets
from cvkit.transforms import batch as ops
from cvkit.transforms.sample import centre_crop, check_size, random_resized_crop, resize, to_channels, to_tensor

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Transform",
    "classification_eval",
    "classification_train",
    "digits_eval",
    "digits_train",
    "small_image_eval",
    "small_image_train",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet's training pictures, as torchvision's weights were trained with."""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Channel statistics of CIFAR-10's 50,000 training pictures."""

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
"""Statistics of MNIST's 60,000 training pictures."""


class Transform:
    """Two stages from a picture to the model's input.

    ``sample`` makes one picture a uint8 tensor of a fixed size, in a worker; ``batch`` makes a whole batch of these floats, on
    the device, each sample with random draws of its own. Presets are built by functions of their own; this is what they
    return.

    Attributes:
        sample_random: Whether ``sample`` draws random numbers (from torch's global generator). If not, its result can be
            kept.
        name: The preset's name.
        options: The preset's arguments, as plain types.
        mean: Channel means, on the scale 0 to 1.
        std: Channel standard deviations, on the scale 0 to 1.
    """

    name: ClassVar[str] = ""
    sample_random = False

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], **options: Any) -> None:
        self.size = check_size(self.name, size)
        self.mean, self.std = tuple(float(m) for m in mean), tuple(float(s) for s in std)
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise ArgumentError(
                f"{self.name} cannot normalise with these statistics",
                got=f"mean={self.mean}, std={self.std}",
                expected="one mean and one positive std a channel, for 1 or 3 channels",
                fix="leave both out for the usual ones",
            )
        self.options = {"size": self.size, "mean": list(self.mean), "std": list(self.std), **options}

    @property
    def channels(self) -> int:
        """Channels of the result: 1 (grey) or 3 (RGB)."""
        return len(self.mean)

    def sample(self, image: Image.Image) -> Tensor:
        """Makes one picture a uint8 tensor ``(C, size, size)``."""
        raise ArgumentError(
            "a Transform is made by a preset", got=type(self).__name__, fix="e.g. classification_train(224)"
        )

    def batch(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Makes a batch of these the model's input.

        Args:
            images: uint8 ``(B, C, size, size)``, on any device.
            targets: Their targets.
            generator: A CPU generator: the same draws on every device.

        Returns:
            float32 ``(B, C, size, size)`` on the same device, and the targets.
        """
        return ops.normalize(images, self.mean, self.std), targets

    def evaluation(self) -> Transform:
        """Returns the deterministic twin: what a picture goes through in validation."""
        return self

    def denormalize(self, images: Tensor) -> Tensor:
        """Undoes the normalisation, for looking at pictures: float on the scale 0 to 1, same shape."""
        return ops.denormalize(images, self.mean, self.std)

    def __call__(self, image: Image.Image) -> Tensor:
        """Takes one picture through both stages.

        Returns:
            float32 ``(C, size, size)``.
        """
        generator = (
            torch.Generator().manual_seed(int(torch.randint(0, 2**62, ()))) if self.random else torch.Generator()
        )
        return self.batch(self.sample(image).unsqueeze(0), torch.zeros(1), generator)[0][0]

    @property
    def random(self) -> bool:
        """Whether any stage draws random numbers."""
        return self.evaluation() is not self

    def to_config(self) -> dict[str, Any]:
        """Returns the preset's name and arguments as plain types, for :meth:`from_config`."""
        return {"name": self.name, **self.options}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Transform:
        """Builds a transform from what :meth:`to_config` returned.

        Raises:
            UnknownNameError: A preset that is not known.
            ArgumentError: Arguments that it does not take.
        """
        options = {
            key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key not in ("name", "size")
        }
        try:
            built: Transform = presets.get(config["name"])(config["size"], **options)
        except (TypeError, KeyError) as error:
            raise ArgumentError(
                "this is no configuration of a preset",
                got=dict(config),
                expected="what to_config() returned",
                fix=error,
            ) from error
        return built

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.options.items())})"


def _flags(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < probability


def _check_probability(name: str, flip: float) -> float:
    if not 0 <= flip <= 1:
        raise ArgumentError(
            f"{name}: flip cannot be used", got=flip, expected="a probability from 0 to 1", fix="flip=0.5"
        )
    return float(flip)


class _ClassificationTrain(Transform):
    name = "classification_train"
    sample_random = True

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        scale: tuple[float, float],
        ratio: tuple[float, float],
        flip: float,
    ) -> None:
        for name, (low, high), bound in (("scale", scale, 1.0), ("ratio", ratio, float("inf"))):
            if not 0 < low <= high <= bound:
                raise ArgumentError(
                    f"{self.name}: {name} cannot be used",
                    got=(low, high),
                    expected=f"0 < low <= high{' <= 1' if name == 'scale' else ''}",
                    fix="scale=(0.08, 1.0), ratio=(3/4, 4/3)",
                )
        self.scale, self.ratio, self.flip = scale, ratio, _check_probability(self.name, flip)
        super().__init__(size, mean, std, scale=list(scale), ratio=list(ratio), flip=self.flip)

    def sample(self, image: Image.Image) -> Tensor:
        return random_resized_crop(to_channels(image, self.channels), self.size, self.scale, self.ratio)

    def batch(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = ops.horizontal_flip(images, _flags(len(images), self.flip, generator))
        return ops.normalize(images, self.mean, self.std), targets

    def evaluation(self) -> Transform:
        return classification_eval(self.size, mean=self.mean, std=self.std)


class _ClassificationEval(Transform):
    name = "classification_eval"

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], resize: int | None) -> None:
        check_size(self.name, size)
        self.resized = check_size(f"{self.name}: resize", resize if resize is not None else round(size * 256 / 224))
        if self.resized < size:
            raise ArgumentError(
                f"{self.name}: resize cannot be used",
                got=resize,
                expected=f"at least size={size}",
                fix="leave resize out",
            )
        super().__init__(size, mean, std, resize=self.resized)

    def sample(self, image: Image.Image) -> Tensor:
        return centre_crop(to_channels(image, self.channels), self.resized, self.size)


class _Whole(Transform):
    """The whole picture, resized to ``(size, size)`` where it has another size."""

    def sample(self, image: Image.Image) -> Tensor:
        return to_tensor(resize(to_channels(image, self.channels), self.size, self.size))


class _PaddedCrop(_Whole):
    """The whole picture; in the batch, a crop of the zero-padded picture at a random place, and a random flip."""

    twin: ClassVar[str] = ""

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], padding: int, flip: float) -> None:
        if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
            raise ArgumentError(
                f"{self.name}: padding cannot be used", got=padding, expected="0 or more pixels", fix="padding=4"
            )
        self.padding, self.flip = padding, _check_probability(self.name, flip)
        super().__init__(size, mean, std, padding=padding, flip=self.flip)

    def batch(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        count = len(images)
        top, left = torch.randint(0, 2 * self.padding + 1, (2, count), generator=generator)
        flags = _flags(count, self.flip, generator)
        if self.padding:
            images = ops.crop(ops.pad(images, self.padding), top, left, self.size, self.size)
        if self.flip:
            images = ops.horizontal_flip(images, flags)
        return ops.normalize(images, self.mean, self.std), targets

    def evaluation(self) -> Transform:
        twin: Transform = presets.get(self.twin)(self.size, mean=self.mean, std=self.std)
        return twin


class _SmallImageTrain(_PaddedCrop):
    name, twin = "small_image_train", "small_image_eval"


class _SmallImageEval(_Whole):
    name = "small_image_eval"


class _DigitsTrain(_PaddedCrop):
    name, twin = "digits_train", "digits_eval"


class _DigitsEval(_Whole):
    name = "digits_eval"


@presets.register("classification_train")
def classification_train(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Photos, for training: a random resized crop, a random mirror image, normalised.

    Args:
        size: Side of the result in pixels.
        scale: Bounds on the crop's share of the picture's area.
        ratio: Bounds on the crop's width over its height.
        flip: Probability of a mirror image.
        mean: Channel means; ImageNet's by default.
        std: Channel standard deviations; ImageNet's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _ClassificationTrain(size, mean, std, scale, ratio, flip)


@presets.register("classification_eval")
def classification_eval(
    size: int = 224,
    *,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Photos, for evaluation: the shorter side resized, the middle cut out, normalised.

    Args:
        size: Side of the result in pixels.
        resize: The shorter side before the cut; ``size * 256 / 224`` by default.
        mean: Channel means.
        std: Channel standard deviations.

    Raises:
        ArgumentError: A value out of range.
    """
    return _ClassificationEval(size, mean, std, resize)


@presets.register("small_image_train")
def small_image_train(
    size: int = 32,
    *,
    padding: int = 4,
    flip: float = 0.5,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
) -> Transform:
    """Small pictures, for training: a random crop of the zero-padded picture, a random mirror image, normalised.

    Source: He et al., Deep Residual Learning, 2015, section 4.2.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        padding: Zeros on each side, in pixels.
        flip: Probability of a mirror image.
        mean: Channel means; CIFAR-10's by default.
        std: Channel standard deviations; CIFAR-10's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _SmallImageTrain(size, mean, std, padding, flip)


@presets.register("small_image_eval")
def small_image_eval(
    size: int = 32, *, mean: Sequence[float] = CIFAR10_MEAN, std: Sequence[float] = CIFAR10_STD
) -> Transform:
    """Small pictures, for evaluation: the whole picture, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        mean: Channel means.
        std: Channel standard deviations.

    Raises:
        ArgumentError: A value out of range.
    """
    return _SmallImageEval(size, mean, std)


@presets.register("digits_train")
def digits_train(
    size: int = 28,
    *,
    padding: int = 2,
    flip: float = 0.0,
    mean: Sequence[float] = MNIST_MEAN,
    std: Sequence[float] = MNIST_STD,
) -> Transform:
    """Digits and letters, for training: grey, shifted by a few pixels, never mirrored unless asked for, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        padding: The largest shift, in pixels.
        flip: Probability of a mirror image.
        mean: Channel mean; MNIST's by default.
        std: Channel standard deviation; MNIST's by default.

    Raises:
        ArgumentError: A value out of range.
    """
    return _DigitsTrain(size, mean, std, padding, flip)


@presets.register("digits_eval")
def digits_eval(size: int = 28, *, mean: Sequence[float] = MNIST_MEAN, std: Sequence[float] = MNIST_STD) -> Transform:
    """Digits and letters, for evaluation: grey, the whole picture, normalised.

    Args:
        size: Side of the result in pixels; pictures of another size are resized.
        mean: Channel mean.
        std: Channel standard deviation.

    Raises:
        ArgumentError: A value out of range.
    """
    return _DigitsEval(size, mean, std)
