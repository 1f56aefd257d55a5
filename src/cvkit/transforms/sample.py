"""Per-image operations: from a PIL image to a fixed-size uint8 tensor. They run in the workers.

What is random draws from torch's global generator, which the loader seeds for each sample. Only Pillow, NumPy and torch are
imported here: a worker starts sooner without torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ImageError

__all__ = [
    "INTERPOLATIONS",
    "centre_crop",
    "crop_and_resize",
    "random_box",
    "resize",
    "shorter_side",
    "to_channels",
    "to_tensor",
]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters by name; all but ``nearest`` are antialiased when a picture gets smaller."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
_TRIES = 10

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels, as Pillow has it."""


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Returns a picture with 1 (grey) or 3 (RGB) channels of 8 bits, from any mode that has a right answer.

    Transparent pixels show white, not the colour that happens to be hidden in them; 16-bit grey keeps its upper eight bits.
    (``Image.convert`` alone would show the hidden colour and saturate the 16 bits.)

    Args:
        image: A picture of any mode.
        channels: 1 or 3.

    Returns:
        A picture of mode ``"L"`` or ``"RGB"``; the same object where it has that mode already.

    Raises:
        ImageError: A mode without a fixed range of values: 32-bit integers, floats, or one that Pillow cannot convert.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F"):
        raise _no_answer(
            image, "scale it to 8 bits yourself, e.g. Image.fromarray((values / values.max() * 255).astype('uint8'))"
        )
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    try:
        if image.mode in _TRANSPARENT or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert(mode)
    except ValueError as error:
        raise _no_answer(image, f"convert it yourself ({error})") from error


def _no_answer(image: Image.Image, fix: str) -> ImageError:
    return ImageError(
        f"a picture of mode {image.mode!r} has no right answer as an 8-bit picture",
        got=f"mode {image.mode!r}, {image.width}×{image.height}",
        expected="1, 8 or 16 bits a channel",
        fix=fix,
    )


def to_tensor(image: Image.Image) -> Tensor:
    """Returns the pixels of a grey or RGB picture as uint8 ``(C, H, W)``."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def resize(image: Image.Image, width: int, height: int, interpolation: str = "bilinear") -> Image.Image:
    """Returns a picture of ``width`` × ``height`` pixels; the same object where it has that size already."""
    if image.size == (width, height):
        return image
    return image.resize((width, height), INTERPOLATIONS[interpolation])


def shorter_side(width: int, height: int, length: int) -> tuple[int, int]:
    """Returns ``(width, height)`` scaled so that the shorter side is ``length``; the longer one is rounded down.

    So does ``torchvision.transforms.Resize(length)``.
    """
    if width <= height:
        return length, int(length * height / width)
    return int(length * width / height), length


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Cuts ``size`` × ``size`` pixels from the middle of a picture that is at least that large.

    Where the margin is odd the box is placed as by ``torchvision.transforms.CenterCrop``.
    """
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def crop_and_resize(image: Image.Image, box: Box, size: int, interpolation: str = "bilinear") -> Image.Image:
    """Cuts a box and resizes it to ``size`` × ``size``, as ``torchvision.transforms.functional.resized_crop`` does.

    It is cut first: ``Image.resize(box=…)`` would let the filter see pixels outside of the box.
    """
    return resize(image.crop(box), size, size, interpolation)


def random_box(width: int, height: int, scale: Sequence[float], ratio: Sequence[float]) -> Box:
    """Draws a box inside a picture, with a random area and aspect ratio, from torch's global generator.

    The area is uniform in ``scale``, the logarithm of the aspect ratio uniform in that of ``ratio``, the place uniform. After
    ten draws that do not fit, it is the largest centred box whose ratio is allowed. Always draws the same count of numbers.
    Source: Szegedy et al., Going Deeper with Convolutions, 2014, section 6; tries and fallback as in torchvision.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        scale: Bounds on the box's share of the picture's area.
        ratio: Bounds on the box's width over its height.

    Returns:
        ``(left, top, right, bottom)``, at least one pixel.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect, x, y in torch.rand(_TRIES, 4, dtype=torch.float64).tolist():
        pixels = width * height * (scale[0] + area * (scale[1] - scale[0]))
        shape = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            # x < 1, so that each of the places is as likely as the next
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
