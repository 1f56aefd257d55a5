"""Bytes to an 8-bit picture: every mode right, nothing silent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from cvkit.errors import ArgumentError, ImageError

__all__ = ["MAX_PIXELS", "decode", "eight_bit"]

MAX_PIXELS = 89_478_485
"""The default bound on a picture's pixels, where Pillow begins to warn of decompression bombs (a quarter of a GiB in RGB)."""

_SIXTEEN_BIT_AS_32 = ("PNG", "PPM")
"""Formats whose pictures of mode ``"I"`` hold levels from 0 to 65,535, scaled by Pillow where the file's maximum is another."""


def decode(
    source: str | Path | bytes,
    *,
    mode: Literal["RGB", "L"] = "RGB",
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decodes a picture, upright, in 8 bits a channel.

    The orientation that a camera has noted is applied; 16-bit grey is scaled, not clipped; transparent pixels show the
    background; of an animation the first frame is taken.

    Args:
        source: A file, or its bytes.
        mode: ``"RGB"`` or ``"L"`` (grey).
        background: What lies behind transparent pixels.
        max_pixels: The largest number of pixels that is decoded.

    Returns:
        The picture in ``mode``.

    Raises:
        ImageError: Missing, damaged, no picture, too large, or of a kind that has no right answer in 8 bits (float, 32-bit).
        ArgumentError: Another ``mode``.
    """
    if mode not in ("RGB", "L"):
        raise ArgumentError("mode cannot be used", got=repr(mode), expected='"RGB" or "L"', fix='mode="RGB"')
    name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read the picture {name}",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a file that can be read",
            fix="check the path and its permissions",
        ) from error
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_pixels:
            raise ImageError(
                f"the picture {name} is too large",
                got=f"{image.width}×{image.height} pixels",
                expected=f"at most {max_pixels:,} pixels",
                fix="make it smaller, or decode() it with a larger max_pixels",
            )
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return eight_bit(image, name, background).convert(mode)
    except (ImageError, MemoryError):  # a full memory says nothing about the file
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"the picture {name} is too large",
            got=error,
            expected="no more than twice PIL.Image.MAX_IMAGE_PIXELS, whatever max_pixels says",
            fix="make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS as well",
        ) from error
    # Pillow's decoders raise whatever their parsers stumble over; all of it means that this file is no whole picture
    except Exception as error:
        raise ImageError(
            f"cannot decode the picture {name}",
            got=f"{type(error).__name__}: {error}",
            expected="a whole picture (JPEG, PNG, WebP, GIF, BMP, TIFF, …)",
            fix="replace or delete the file; a data set's verify() lists all such files",
        ) from error


def eight_bit(
    image: Image.Image, name: str = "given", background: tuple[int, int, int] = (255, 255, 255)
) -> Image.Image:
    """Returns a picture of mode L or RGB that looks like the given one.

    Args:
        image: A picture of any mode.
        name: What to call it in a message.
        background: What lies behind transparent pixels.

    Raises:
        ImageError: A mode that has no right answer in 8 bits (float, 32-bit).
    """
    if image.mode.startswith("I;16"):
        return _scaled(np.asarray(image).astype(np.uint32))
    if image.mode == "I" and image.format in _SIXTEEN_BIT_AS_32:
        return _scaled(np.asarray(image).astype(np.uint32))
    if image.mode in ("I", "F"):
        raise ImageError(
            f"the picture {name} has no right answer in 8 bits",
            got="32-bit whole numbers" if image.mode == "I" else "floating-point levels",
            expected="8 or 16 bits a channel",
            fix="scale it yourself and save it as 16-bit grey, or give the arrays to ArrayDataset",
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        under = Image.new("RGBA", picture.size, (*background, 255))
        return Image.alpha_composite(under, picture).convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(levels: np.ndarray[tuple[int, ...], np.dtype[np.uint32]]) -> Image.Image:
    """Scales 16-bit grey to 8 bits, rounding: 65,535 is 255."""
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
