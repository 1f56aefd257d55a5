"""Per-image operations: from a PIL image to a fixed-size uint8 tensor. They run in the workers.

Which part of an image is taken (a :class:`Frame`) is chosen from its size alone, before it is decoded; so a large JPEG need
not be decoded in full for a small result. Only Pillow, NumPy and torch are imported here: a worker starts sooner without
torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import DataError
from cvkit.pixels import eight_bit

__all__ = [
    "INTERPOLATIONS",
    "Frame",
    "centre_frame",
    "cut",
    "random_box",
    "shorter_side",
    "to_channels",
    "to_tensor",
    "whole_frame",
]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Filters by name; all but ``nearest`` are antialiased when an image gets smaller."""

_BY_TORCH = ("bilinear",)
# torch's uint8 kernel is three times as fast as Pillow's and on photos within one level of it; for bicubic, which many
# pretrained weights ask for, it is up to 26 away
_TRIES = 10

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels, as Pillow has it."""


class Frame(NamedTuple):
    """Which part of an image is taken, and how large it becomes.

    Attributes:
        of: Width and height of the whole image in pixels, which ``box`` refers to.
        box: What is cut out of it.
        size: Width and height that this is resized to.
        window: What is cut out of that, or ``None`` for all of it.
        spare: How many times more pixels than ``size`` an image that is decoded smaller must still have in each direction.
    """

    of: tuple[int, int]
    box: Box
    size: tuple[int, int]
    window: Box | None = None
    spare: float = 1.0

    @property
    def enough(self) -> tuple[int, int]:
        """The width and height at which the whole image is still large enough for this."""
        left, top, right, bottom = self.box
        width = math.ceil(self.of[0] * self.size[0] * self.spare / (right - left))
        height = math.ceil(self.of[1] * self.size[1] * self.spare / (bottom - top))
        return min(width, self.of[0]), min(height, self.of[1])

    def on(self, width: int, height: int) -> Box:
        """Returns the box on an image that is smaller than :attr:`of`, at least one pixel."""
        if (width, height) == self.of:
            return self.box
        across, down = width / self.of[0], height / self.of[1]
        left, top, right, bottom = self.box
        left, top = min(round(left * across), width - 1), min(round(top * down), height - 1)
        return left, top, max(round(right * across), left + 1), max(round(bottom * down), top + 1)


def whole_frame(width: int, height: int, size: int) -> Frame:
    """Returns the frame that resizes a whole image to ``size`` × ``size``."""
    return Frame((width, height), (0, 0, width, height), (size, size))


def centre_frame(width: int, height: int, resize: int, size: int) -> Frame:
    """Returns the frame that resizes the shorter side to ``resize`` and cuts ``size`` × ``size`` from the middle.

    Where the margin is odd the window is placed as by ``torchvision.transforms.CenterCrop``. A JPEG may be decoded smaller,
    to no less than twice the size wanted: the same image comes out, but for a fraction of a grey level.
    """
    wide, high = shorter_side(width, height, resize)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return Frame((width, height), (0, 0, width, height), (wide, high), (left, top, left + size, top + size), spare=2.0)


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Returns an image with 1 (grey) or 3 (RGB) channels of 8 bits; transparent pixels show white.

    Args:
        image: An image of any mode.
        channels: 1 or 3.

    Raises:
        ImageError: A mode without a right answer, as in :func:`cvkit.pixels.eight_bit`.
    """
    return eight_bit(image, "L" if channels == 1 else "RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Returns the pixels of a grey or RGB image as uint8 ``(C, H, W)``, a view of ``(H, W, C)``."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def cut(image: Image.Image | Tensor, frame: Frame, interpolation: str = "bilinear") -> Tensor:
    """Cuts a frame out of an image.

    It is cut first and resized then, as ``torchvision.transforms.v2.functional.resized_crop`` does: the filter sees nothing
    outside of the box. Bilinear and bicubic are torch's antialiased kernels for uint8, bitwise torchvision's for tensors.

    Args:
        image: An image of 8 bits a channel, or its pixels ``(C, H, W)``; it may be smaller than the frame says, if it
            was decoded so.
        frame: What to cut.
        interpolation: The filter.

    Returns:
        uint8 ``(C, H, W)``.
    """
    if isinstance(image, Image.Image):
        box = frame.on(*image.size)
        pixels = to_tensor(image if box == (0, 0, *image.size) else image.crop(box))
    else:
        left, top, right, bottom = frame.on(image.shape[2], image.shape[1])
        pixels = image[:, top:bottom, left:right]
    pixels = resize(pixels, *frame.size, interpolation)
    if frame.window is not None:
        left, top, right, bottom = frame.window
        pixels = pixels[:, top:bottom, left:right]
    return pixels


def resize(pixels: Tensor, width: int, height: int, interpolation: str = "bilinear") -> Tensor:
    """Returns uint8 pixels ``(C, H, W)`` resized; the same tensor where it has that size already."""
    if pixels.shape[1:] == (height, width):
        return pixels
    if interpolation in _BY_TORCH:
        made: Tensor = torch.nn.functional.interpolate(
            pixels[None], (height, width), mode=interpolation, align_corners=False, antialias=True
        )
        return made[0]
    channels = pixels.permute(1, 2, 0) if pixels.shape[0] > 1 else pixels[0]
    image = Image.fromarray(np.ascontiguousarray(channels.numpy()))
    return to_tensor(image.resize((width, height), INTERPOLATIONS[interpolation]))


def cut_mask(mask: Image.Image, frame: Frame) -> Tensor:
    """Cuts a frame out of an image of integers, each of which is kept or dropped and never blended.

    Returns:
        uint8 ``(H, W)``, or int32 for a mask of more than 8 bits.

    Raises:
        DataError: Not one integer a pixel.
    """
    wide = mask.mode == "I" or mask.mode.startswith("I;16")
    if not wide and mask.mode not in ("1", "L", "P"):
        raise DataError(
            "a target is no mask",
            got=f"mode {mask.mode!r}, {mask.width}×{mask.height}",
            expected="one integer a pixel (mode 1, L, P, I or 16-bit grey)",
            fix="save masks as class indices; for images as targets take the preset denoise",
        )
    image = mask.crop(frame.on(*mask.size)).resize(frame.size, Image.Resampling.NEAREST)
    values = np.asarray(image.crop(frame.window) if frame.window is not None else image)
    # torch mirrors no uint16
    return torch.from_numpy(values.astype(np.int32 if wide else np.uint8))


def shorter_side(width: int, height: int, length: int) -> tuple[int, int]:
    """Returns ``(width, height)`` scaled so that the shorter side is ``length``; the longer one is rounded down.

    So does ``torchvision.transforms.Resize(length)``.
    """
    if width <= height:
        return length, int(length * height / width)
    return int(length * width / height), length


def random_box(
    width: int, height: int, scale: Sequence[float], ratio: Sequence[float], generator: torch.Generator | None = None
) -> Box:
    """Draws a box inside an image, with a random area and aspect ratio.

    The area is uniform in ``scale``, the logarithm of the aspect ratio uniform in that of ``ratio``, the place uniform. After
    ten draws that do not fit, it is the largest centred box whose ratio is allowed. Always draws the same count of numbers.
    Source: Szegedy et al., Going Deeper with Convolutions, 2014, section 6; tries and fallback as in torchvision.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        scale: Bounds on the box's share of the image's area.
        ratio: Bounds on the box's width over its height.
        generator: Where the numbers come from; torch's global generator by default.

    Returns:
        ``(left, top, right, bottom)``, at least one pixel.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect, x, y in torch.rand(_TRIES, 4, dtype=torch.float64, generator=generator).tolist():
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
