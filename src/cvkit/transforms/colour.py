"""Colour operations on a whole batch, each sample with its own factor. They run on the device, on floats from 0 to 1.

Each is torchvision's of the same name (``torchvision.transforms.v2.functional.adjust_…``) with one factor a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["brightness", "contrast", "grey", "hue", "saturation"]

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's digits


def grey(images: Tensor) -> Tensor:
    """Returns the luma of float images: ``(B, 3, H, W)`` to ``(B, 1, H, W)``; grey ones as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiplies the levels: 0 is black, 1 changes nothing.

    Args:
        images: float ``(B, C, H, W)`` from 0 to 1.
        factors: ``(B,)``, at least 0.

    Returns:
        float ``(B, C, H, W)`` from 0 to 1.
    """
    return images.mul(_spread(factors)).clamp_(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Moves the levels away from the image's mean luma: 0 is all grey, 1 changes nothing; arguments as in brightness."""
    mean = grey(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _spread(factors)).clamp_(0, 1)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Moves the colours away from their luma: 0 is grey, 1 changes nothing; arguments as in brightness."""
    if images.shape[1] == 1:
        return images
    return torch.lerp(grey(images), images, _spread(factors)).clamp_(0, 1)


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turns the colours round the colour circle; grey images stay as they are.

    Args:
        images: float ``(B, 3, H, W)`` from 0 to 1.
        shifts: ``(B,)``, from -0.5 to 0.5 of the circle.

    Returns:
        float ``(B, 3, H, W)`` from 0 to 1.
    """
    if images.shape[1] == 1:
        return images
    turned, share, value = _to_hsv(images)
    return _from_hsv((turned + shifts.to(turned)[:, None, None]) % 1.0, share, value)


def _spread(factors: Tensor) -> Tensor:
    return factors[:, None, None, None]


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns hue, saturation and value ``(B, H, W)``, each from 0 to 1. Source: Foley et al., the HSV hexcone."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    range_ = value - low
    flat = range_ == 0
    share = range_ / torch.where(flat, 1.0, value)
    safe = torch.where(flat, 1.0, range_)
    from_red, from_green, from_blue = ((value - one) / safe for one in (red, green, blue))
    turned = torch.where(
        value == red,
        from_blue - from_green,
        torch.where(value == green, 2 + from_red - from_blue, 4 + from_green - from_red),
    )
    return (turned / 6 + 1) % 1.0, share, value


def _from_hsv(turned: Tensor, share: Tensor, value: Tensor) -> Tensor:
    """Undoes :func:`_to_hsv`: each channel is how far the hue is from it, cut to a plateau of a third of the circle."""
    sixths = turned * 6
    channels = []
    for start in (5.0, 3.0, 1.0):
        away = (sixths + start) % 6
        channels.append(value - value * share * torch.minimum(away, 4 - away).clamp(0, 1))
    return torch.stack(channels, 1).clamp_(0, 1)
