"""Means and standard deviations of channels: the usual ones, and those that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvkit.errors import ArgumentError

__all__ = [
    "CIFAR10",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "IMAGENET",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LEVELS",
    "MNIST_MEAN",
    "MNIST_STD",
    "floats",
    "number",
    "statistics",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as torchvision's weights expect them; source: its ``transforms/_presets.py``."""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the pixels of CIFAR-10's 50,000 training images, to four places."""

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
"""Of the pixels of MNIST's 60,000 training images, to four places."""

Usual = Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]
"""Mean and standard deviation of each channel, by the number of channels."""

# of grey images the mean over the three channels, near what a model pretrained on RGB saw
IMAGENET: Usual = {3: (IMAGENET_MEAN, IMAGENET_STD), 1: ((0.449,), (0.226,))}
CIFAR10: Usual = {3: (CIFAR10_MEAN, CIFAR10_STD), 1: ((0.4734,), (0.2507,))}
LEVELS: Usual = {3: ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 1: ((0.0,), (1.0,))}


def number(argument: str, value: float) -> float:
    """Returns an argument as a float, or refuses it."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError(f"{type(value).__name__} is no number")
        return float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{argument} cannot be used", got=repr(value), expected="a number", fix="leave it out for the usual one"
        ) from error


def floats(argument: str, values: Sequence[float]) -> tuple[float, ...]:
    """Returns an argument as several floats, or refuses it."""
    try:
        several = list(values)
    except TypeError as error:
        raise ArgumentError(
            f"{argument} cannot be used",
            got=repr(values),
            expected="a sequence of numbers",
            fix=f"pass e.g. {argument}=({values!r},), or leave it out for the usual ones",
        ) from error
    return tuple(number(argument, value) for value in several)


def statistics(
    name: str, channels: int | None, mean: Sequence[float] | None, std: Sequence[float] | None, usual: Usual
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel: those given, else the usual ones of RGB or of grey images.

    Raises:
        ArgumentError: Channels other than 1 and 3, or statistics of another number of channels.
    """
    if channels is not None and (type(channels) is not int or channels not in usual):
        raise ArgumentError(
            f"{name}: channels cannot be used",
            got=repr(channels),
            expected="1 for grey images, 3 for RGB",
            fix="pass channels=1 or channels=3, or leave it out",
        )
    usual_mean, usual_std = usual[channels or 3]
    means = usual_mean if mean is None else floats("mean", mean)
    stds = usual_std if std is None else floats("std", std)
    if channels is not None and not len(means) == len(stds) == channels:
        raise ArgumentError(
            f"{name}: mean and std are not of channels={channels}",
            got=f"mean={means}, std={stds}",
            expected=f"{channels} of each",
            fix="leave mean and std out for the usual ones, or leave channels out",
        )
    return means, stds
