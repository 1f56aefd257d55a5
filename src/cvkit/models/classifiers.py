"""Small classifiers, written to be read. Sizes between layers are computed, never typed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from cvkit.errors import ArgumentError, unknown_name
from cvkit.models.registry import register

__all__ = ["cifar_quick", "cnn_mnist", "lenet5", "linear", "mlp", "resnet9"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
}


def _flat_features(layers: nn.Module, in_channels: int, size: int) -> int:
    """Returns how many numbers ``layers`` make of one picture, by sending one through; it costs no arithmetic on ``meta``."""
    return int(deepcopy(layers).to("meta")(torch.empty(1, in_channels, size, size, device="meta")).numel())


def _in_features(in_features: int | None, in_channels: int, size: int) -> int:
    count = in_features if in_features is not None else in_channels * size * size
    if count < 1:
        raise ArgumentError("in_features cannot be used", got=in_features, expected="at least 1", fix="leave it out")
    return count


@register("linear")
def linear(*, num_classes: int, in_channels: int = 3, size: int = 32, in_features: int | None = None) -> nn.Module:
    """Linear or logistic regression: ``(N, …)`` flattened, then one linear layer to ``(N, num_classes)``.

    Args:
        num_classes: Outputs; 1 for a regression of one number.
        in_channels: Channels of the pictures.
        size: Side of the pictures in pixels.
        in_features: Numbers a sample; ``in_channels * size * size`` by default.
    """
    features = _in_features(in_features, in_channels, size)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(features, num_classes)))


@register("mlp")
def mlp(
    *,
    num_classes: int,
    in_channels: int = 3,
    size: int = 32,
    in_features: int | None = None,
    hidden: Sequence[int] = (256, 128),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """A multi-layer perceptron on flattened input ``(N, …)``, to ``(N, num_classes)``.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the pictures.
        size: Side of the pictures in pixels.
        in_features: Numbers a sample; ``in_channels * size * size`` by default.
        hidden: Width of each hidden layer.
        activation: ``"relu"``, ``"gelu"``, ``"silu"``, ``"tanh"``, ``"sigmoid"`` or ``"leaky_relu"``.
        dropout: Probability of dropping a hidden unit.

    Raises:
        UnknownNameError: An activation that is not known.
    """
    if activation not in _ACTIVATIONS:
        raise unknown_name("activation", activation, _ACTIVATIONS)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = _in_features(in_features, in_channels, size)
    for index, units in enumerate(hidden, start=1):
        layers[f"hidden{index}"] = nn.Linear(width, units)
        layers[f"{activation}{index}"] = _ACTIVATIONS[activation]()
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        width = units
    layers["head"] = nn.Linear(width, num_classes)
    return nn.Sequential(layers)


def _convolutional(features: nn.Sequential, dense: Sequence[nn.Module | int], in_channels: int, size: int) -> nn.Module:
    """Joins convolutions and dense layers; a number stands for a linear layer of that width."""
    layers: list[nn.Module] = [features, nn.Flatten()]
    try:
        width = _flat_features(features, in_channels, size)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            "size is too small for this model",
            got=repr(size),
            expected="the side of its pictures in pixels",
            fix="size=32",
        ) from error
    for layer in dense:
        if isinstance(layer, int):
            layers.append(nn.Linear(width, layer))
            width = layer
        else:
            layers.append(layer)
    return nn.Sequential(OrderedDict([("features", layers[0]), ("classifier", nn.Sequential(*layers[1:]))]))


@register("lenet5")
def lenet5(*, num_classes: int, in_channels: int = 1, size: int = 28) -> nn.Module:
    """LeNet-5 with ReLU and max pooling: ``(N, in_channels, size, size)`` to ``(N, num_classes)``.

    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998; its 32×32 input is the 28×28 digit
    padded by 2, as here in the first convolution.
    """
    features = nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return _convolutional(features, [120, nn.ReLU(), 84, nn.ReLU(), num_classes], in_channels, size)


@register("cnn_mnist")
def cnn_mnist(*, num_classes: int, in_channels: int = 1, size: int = 28, dropout: float = 0.4) -> nn.Module:
    """The tutorials' digit network: two 5×5 convolutions of 64 and 128 maps, 1,024 dense units with dropout.

    ``(N, in_channels, size, size)`` to ``(N, num_classes)``.
    """
    features = nn.Sequential(
        nn.Conv2d(in_channels, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return _convolutional(features, [1024, nn.ReLU(), nn.Dropout(dropout), num_classes], in_channels, size)


@register("cifar_quick")
def cifar_quick(*, num_classes: int, in_channels: int = 3, size: int = 32) -> nn.Module:
    """Caffe's quick CIFAR-10 network: three 5×5 convolutions of 32, 32 and 64 maps, 64 dense units.

    ``(N, in_channels, size, size)`` to ``(N, num_classes)``. Source: Krizhevsky's cuda-convnet, as in Caffe's
    ``cifar10_quick``: max pooling once, average pooling twice, 3×3 windows of stride 2.
    """
    features = nn.Sequential(
        nn.Conv2d(in_channels, 32, 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
    )
    return _convolutional(features, [64, num_classes], in_channels, size)


class _Residual(nn.Module):
    """Two convolutions beside the identity: ``(N, C, H, W)`` to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_bn(channels, channels)
        self.second = _conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x))
        return out


def _conv_bn(in_channels: int, out_channels: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


@register("resnet9")
def resnet9(*, num_classes: int, in_channels: int = 3, width: int = 64) -> nn.Module:
    """A small residual network for small pictures: ``(N, in_channels, H, W)``, at least 16×16, to ``(N, num_classes)``.

    Source: David Page, How to Train Your ResNet, 2018 (DAWNBench); its 4×4 max pooling at the end is global here, so that any
    size goes in.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the pictures.
        width: Maps of the first convolution; 64, and twice, four and eight times as many further on.
    """
    return nn.Sequential(
        OrderedDict(
            stem=_conv_bn(in_channels, width),
            layer1=nn.Sequential(_conv_bn(width, 2 * width, pool=True), _Residual(2 * width)),
            layer2=_conv_bn(2 * width, 4 * width, pool=True),
            layer3=nn.Sequential(_conv_bn(4 * width, 8 * width, pool=True), _Residual(8 * width)),
            pool=nn.AdaptiveMaxPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(8 * width, num_classes),
        )
    )
