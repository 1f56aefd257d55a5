"""What several builders need: activations by name, sizes, counts that are checked, and one error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import nn

from cvkit.errors import ArgumentError, unknown_name

__all__ = ["Size", "activation", "check_size", "check_sizes", "flat_features", "in_features", "no_small_stem", "sides"]

Size: TypeAlias = "int | Sequence[int]"
"""The side of square images in pixels, or their height and width."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """Returns a new activation.

    Args:
        name: ``"relu"``, ``"leaky_relu"``, ``"elu"``, ``"selu"``, ``"gelu"``, ``"silu"``, ``"mish"``, ``"softplus"``,
            ``"tanh"``, ``"sigmoid"`` or ``"identity"``.

    Raises:
        UnknownNameError: Any other.
    """
    if name not in _ACTIVATIONS:
        raise unknown_name("activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]()


def check_size(model: str, name: str, value: object, least: int = 1) -> int:
    """Returns an integer of ``least`` or more, or says which argument of which model is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(
            f"{model}: {name} cannot be used",
            got=repr(value),
            expected=f"an integer of {least} or more",
            fix=f"pass e.g. {name}={max(least, 3)}",
        )
    return value


def check_sizes(model: str, name: str, values: object, least: int = 0) -> list[int]:
    """Returns integers of 1 or more, at least so many, or says which argument of which model holds none."""
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else None
    if listed is None or len(listed) < least or not all(type(one) is int and one >= 1 for one in listed):
        raise ArgumentError(
            f"{model}: {name} cannot be used",
            got=repr(values),
            expected="integers of 1 or more, one a layer",
            fix=f"pass e.g. {name}=(64, 32)",
        )
    return listed


def sides(size: Size) -> tuple[int, int]:
    """Returns height and width in pixels.

    Raises:
        ArgumentError: Neither one integer of 1 or more nor two.
    """
    both = [size, size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) else []
    if len(both) != 2 or not all(type(one) is int and one >= 1 for one in both):
        raise ArgumentError(
            "size cannot be used",
            got=repr(size),
            expected="the side of the images in pixels, or their height and width",
            fix="pass e.g. size=32 or size=(48, 64)",
        )
    return both[0], both[1]


def in_features(given: int | None, in_channels: int, size: Size) -> int:
    """Returns how many numbers a flattened sample has: what is given, or those of an image."""
    if given is None:
        height, width = sides(size)
        return in_channels * height * width
    if type(given) is not int or given < 1:
        raise ArgumentError("in_features cannot be used", got=repr(given), expected="at least 1", fix="leave it out")
    return given


def flat_features(layers: nn.Module, in_channels: int, size: Size) -> int:
    """Returns how many numbers ``layers`` make of one image, by sending one through.

    Raises:
        ArgumentError: The image is too small to go through.
    """
    image = torch.zeros(1, in_channels, *sides(size), device=next(layers.parameters()).device)
    try:
        with torch.no_grad():
            return int(layers(image).numel())
    except RuntimeError as error:
        raise ArgumentError(
            "size is too small for this model",
            got=repr(size),
            expected="the side of its images in pixels",
            fix="size=32",
        ) from error


def no_small_stem(name: str) -> ArgumentError:
    """Builds the error for a model that cannot be given a stem for small images."""
    return ArgumentError(
        f"the model {name!r} has no small stem",
        got="stem='small'",
        expected="torchvision's ResNet, ResNeXt, Wide ResNet, DenseNet, GoogLeNet, ShuffleNet, SqueezeNet, RegNet, MobileNet, "
        "MNASNet, EfficientNet or a segmentation network on one of these; resnet and resnet9 are made for small images",
        fix="leave stem out",
    )
