"""Small classifiers, written to be read. Sizes between layers are computed, never typed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from cvkit.models import blocks
from cvkit.models.blocks import Size
from cvkit.models.registry import register

__all__ = ["cifar_quick", "cnn_mnist", "lenet5", "linear", "mlp"]


@register("linear")
def linear(*, num_classes: int, in_channels: int = 3, size: Size = 32, in_features: int | None = None) -> nn.Module:
    """Linear or logistic regression: ``(N, …)`` flattened, then one linear layer to ``(N, num_classes)``.

    With ``loss="mse"`` it is linear regression (Legendre, 1805), with ``"cross_entropy"`` multinomial logistic regression, with
    one output and ``"bce"`` logistic regression (Cox, 1958), with ``"hinge"`` a linear support vector machine.

    Args:
        num_classes: Outputs; 1 for a regression of one number.
        in_channels: Channels of the images.
        size: Side of the images in pixels, or height and width.
        in_features: Numbers a sample; by default those of an image, ``in_channels * height * width``.
    """
    features = blocks.in_features(in_features, in_channels, size)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(features, num_classes)))


@register("mlp")
def mlp(
    *,
    num_classes: int,
    in_channels: int = 3,
    size: Size = 32,
    in_features: int | None = None,
    hidden: Sequence[int] = (256, 128),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """A multi-layer perceptron on flattened input ``(N, …)``, to ``(N, num_classes)``.

    Its layers are called ``hidden1``, ``relu1``, ``dropout1``, ``hidden2``, …, ``head``. Source: Rumelhart, Hinton and
    Williams, Learning representations by back-propagating errors, 1986.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        size: Side of the images in pixels, or height and width.
        in_features: Numbers a sample; by default those of an image, ``in_channels * height * width``.
        hidden: Width of each hidden layer; ``()`` for none.
        activation: ``"relu"``, ``"leaky_relu"``, ``"elu"``, ``"selu"``, ``"gelu"``, ``"silu"``, ``"mish"``, ``"softplus"``,
            ``"tanh"``, ``"sigmoid"`` or ``"identity"``.
        dropout: Probability of dropping a hidden unit.

    Raises:
        UnknownNameError: An activation that is not known.
        ArgumentError: A width that is none.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = blocks.in_features(in_features, in_channels, size)
    for index, units in enumerate(blocks.check_sizes("mlp", "hidden", hidden), start=1):
        layers[f"hidden{index}"] = nn.Linear(width, units)
        layers[f"{activation}{index}"] = blocks.activation(activation)
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        width = units
    layers["head"] = nn.Linear(width, num_classes)
    return nn.Sequential(layers)


def _convolutional(
    features: nn.Sequential, dense: Sequence[nn.Module | int], in_channels: int, size: Size
) -> nn.Module:
    """Joins convolutions and dense layers; a number stands for a linear layer of that width."""
    width = blocks.flat_features(features, in_channels, size)
    layers: list[nn.Module] = [nn.Flatten()]
    for layer in dense:
        if isinstance(layer, int):
            layers.append(nn.Linear(width, layer))
            width = layer
        else:
            layers.append(layer)
    return nn.Sequential(OrderedDict([("features", features), ("classifier", nn.Sequential(*layers))]))


@register("lenet5")
def lenet5(*, num_classes: int, in_channels: int = 1, size: Size = 28) -> nn.Module:
    """LeNet-5 with ReLU and max pooling: ``(N, in_channels, size, size)`` to ``(N, num_classes)``.

    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998; its 32×32 input is the 28×28 digit
    padded by 2, as here in the first convolution. For 28×28: 6 maps of 14×14, 16 of 5×5, then 120, 84 and the classes.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        size: Side of the images in pixels, or height and width; at least 12.

    Raises:
        ArgumentError: Images that are too small.
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
def cnn_mnist(*, num_classes: int, in_channels: int = 1, size: Size = 28, dropout: float = 0.4) -> nn.Module:
    """The tutorials' digit network: two 5×5 convolutions of 64 and 128 maps, 1,024 dense units with dropout.

    ``(N, in_channels, size, size)`` to ``(N, num_classes)``; for 28×28: 64 maps of 14×14, 128 of 7×7, then 1,024 and the
    classes. Source: TensorFlow's tutorial Build a Convolutional Neural Network using Estimators (32 and 64 maps there).

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        size: Side of the images in pixels, or height and width; at least 4.
        dropout: Probability of dropping a dense unit.

    Raises:
        ArgumentError: Images that are too small.
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
def cifar_quick(*, num_classes: int, in_channels: int = 3, size: Size = 32) -> nn.Module:
    """Caffe's quick CIFAR-10 network: three 5×5 convolutions of 32, 32 and 64 maps, 64 dense units.

    ``(N, in_channels, size, size)`` to ``(N, num_classes)``; for 32×32: maps of 16×16, 8×8 and 4×4. Source: Krizhevsky's
    cuda-convnet, as in Caffe's ``cifar10_quick``: max pooling once, average pooling twice, 3×3 windows of stride 2.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        size: Side of the images in pixels, or height and width; at least 8.

    Raises:
        ArgumentError: Images that are too small.
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
