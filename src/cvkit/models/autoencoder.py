"""Autoencoders: what comes out has the shape of what went in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from cvkit.models import blocks
from cvkit.models.blocks import Size
from cvkit.models.registry import register

__all__ = ["Autoencoder", "autoencoder_conv", "autoencoder_linear"]


class Autoencoder(nn.Module):
    """An encoder and a decoder whose result is given the shape of the input.

    ``model.encoder(inputs)`` gives the code. Where the decoder's maps are larger than the input, because the encoder halved an
    odd height or width upwards, what is too much is cut off.

    Args:
        encoder: Takes the input to the code.
        decoder: Takes the code back.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Returns the reconstruction, in the shape of ``x``."""
        out: Tensor = self.decoder(self.encoder(x))
        return out[..., : x.shape[-2], : x.shape[-1]] if out.ndim == 4 else out.reshape(x.shape)


@register("autoencoder_linear")
def autoencoder_linear(
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    size: Size = 28,
    in_features: int | None = None,
    hidden: Sequence[int] = (128, 64, 32),
    activation: str = "relu",
    output: str = "identity",
) -> nn.Module:
    """An autoencoder of dense layers: ``(N, …)`` to the same shape; the code is ``(N, hidden[-1])``.

    For grey images of 28×28: 784, 128, 64, 32, 64, 128, 784. Source: Hinton and Salakhutdinov, Reducing the Dimensionality of
    Data with Neural Networks, 2006, in the tutorials' sizes.

    Args:
        num_classes: Not used: an autoencoder has no classes.
        in_channels: Channels of the images.
        size: Side of the images in pixels, or height and width.
        in_features: Numbers a sample; by default those of an image, ``in_channels * height * width``.
        hidden: Width of each layer of the encoder; those of the decoder are the same backwards.
        activation: Between the layers, as for ``mlp``.
        output: What the last layer's numbers go through: ``"identity"``, or e.g. ``"sigmoid"`` for images from 0 to 1.

    Raises:
        UnknownNameError: An activation that is not known.
        ArgumentError: A width that is none, or no layer.
    """
    widths = blocks.check_sizes("autoencoder_linear", "hidden", hidden, least=1)
    widths = [blocks.in_features(in_features, in_channels, size), *widths]
    encoder: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    decoder: OrderedDict[str, nn.Module] = OrderedDict()
    last = len(widths) - 1
    for index in range(1, last + 1):
        encoder[f"hidden{index}"] = nn.Linear(widths[index - 1], widths[index])
        if index < last:  # the code itself is any real number
            encoder[f"{activation}{index}"] = blocks.activation(activation)
    for index in range(1, last):
        decoder[f"hidden{index}"] = nn.Linear(widths[last - index + 1], widths[last - index])
        decoder[f"{activation}{index}"] = blocks.activation(activation)
    decoder["head"] = nn.Linear(widths[1], widths[0])
    decoder["output"] = blocks.activation(output)
    return Autoencoder(nn.Sequential(encoder), nn.Sequential(decoder))


@register("autoencoder_conv")
def autoencoder_conv(
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    widths: Sequence[int] = (32, 32, 16),
    activation: str = "relu",
    output: str = "identity",
) -> nn.Module:
    """A convolutional autoencoder: ``(N, in_channels, H, W)`` of any size to the same shape.

    Each width stands for a 3×3 convolution and a 2×2 max pooling, and in the decoder for a doubling by nearest neighbours and
    a 3×3 convolution, which leaves no checkerboard as transposed convolutions do. By default the code of a 28×28 image is 16
    maps of 4×4. Sources: Masci et al., Stacked Convolutional Auto-Encoders, 2011; Odena et al., Deconvolution and Checkerboard
    Artifacts, 2016.

    Args:
        num_classes: Not used: an autoencoder has no classes.
        in_channels: Channels of the images, in and out.
        widths: Maps on each level, from fine to coarse.
        activation: After each convolution but the last, as for ``mlp``.
        output: What the last convolution's numbers go through: ``"identity"``, or e.g. ``"sigmoid"`` for images from 0 to 1.
            With the squared error and mostly black images, a sigmoid can stay at black for long.

    Raises:
        UnknownNameError: An activation that is not known.
        ArgumentError: A width that is none, or no level.
    """
    levels = blocks.check_sizes("autoencoder_conv", "widths", widths, least=1)
    encoder: OrderedDict[str, nn.Module] = OrderedDict()
    decoder: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for index, width in enumerate(levels, start=1):
        encoder[f"conv{index}"] = nn.Conv2d(channels, width, 3, padding=1)
        encoder[f"{activation}{index}"] = blocks.activation(activation)
        encoder[f"pool{index}"] = nn.MaxPool2d(2, ceil_mode=True)
        channels = width
    for index, width in enumerate(reversed(levels), start=1):
        decoder[f"up{index}"] = nn.Upsample(scale_factor=2, mode="nearest")
        decoder[f"conv{index}"] = nn.Conv2d(channels, width, 3, padding=1)
        decoder[f"{activation}{index}"] = blocks.activation(activation)
        channels = width
    decoder["head"] = nn.Conv2d(channels, in_channels, 3, padding=1)
    decoder["output"] = blocks.activation(output)
    return Autoencoder(nn.Sequential(encoder), nn.Sequential(decoder))
