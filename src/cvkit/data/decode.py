"""Bytes to an 8-bit picture: every mode right, nothing silent."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image, ImageOps

from cvkit.errors import ArgumentError, ImageError
from cvkit.pixels import WHITE, eight_bit

__all__ = ["MAX_PIXELS", "Enough", "decode", "opened", "upright_size"]

MAX_PIXELS = 89_478_485
"""The default bound on a picture's pixels, where Pillow begins to warn of decompression bombs (a quarter of a GiB in RGB)."""

Enough: TypeAlias = Callable[[int, int], tuple[int, int]]
"""From a picture's width and height, upright, to those at which it is still large enough for what becomes of it."""

_ORIENTATION = 0x0112  # EXIF's tag; 5 to 8 are lying on their side
_SCALABLE = ("JPEG", "MPO")


def decode(
    source: str | Path | bytes,
    *,
    mode: Literal["RGB", "L"] = "RGB",
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
    enough: Enough | None = None,
) -> Image.Image:
    """Decodes a picture, upright, in 8 bits a channel.

    The orientation that a camera has noted is applied; 16-bit grey is scaled, not clipped; transparent pixels show the
    background; of an animation the first frame is taken.

    Args:
        source: A file, or its bytes.
        mode: ``"RGB"`` or ``"L"`` (grey).
        background: What lies behind transparent pixels.
        max_pixels: The largest number of pixels that is decoded.
        enough: A function from the upright picture's width and height in pixels to those that are enough. A JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, by its own cosine transform, where that is no smaller: many times faster,
            and 1 to 2 grey levels of 255 from decoding it whole and averaging (``benchmarks/data.py`` measures it).

    Returns:
        The picture in ``mode``.

    Raises:
        ImageError: Missing, damaged, no picture, too large, or of a kind that has no right answer in 8 bits (float, 32-bit).
        ArgumentError: Another ``mode``.
    """
    if mode not in ("RGB", "L"):
        raise ArgumentError("mode cannot be used", got=repr(mode), expected='"RGB" or "L"', fix='mode="RGB"')
    name = _name(source)

    def develop(image: Image.Image) -> Image.Image:
        if enough is not None and image.format in _SCALABLE:
            width, height = enough(*upright_size(image))
            image.draft(None, (height, width) if _lies(image) else (width, height))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return eight_bit(image, mode, name=name, background=background)

    return opened(source, develop, max_pixels=max_pixels)


def opened(
    source: str | Path | bytes, use: Callable[[Image.Image], Image.Image], *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Returns what ``use`` makes of a picture whose header has been read, and turns whatever fails into an error by name.

    Args:
        source: A file, or its bytes.
        use: From the picture, not yet decoded, to another.
        max_pixels: The largest number of pixels that ``use`` is given.

    Raises:
        ImageError: Missing, damaged, no picture, or too large; or as ``use`` raises it.
    """
    name = _name(source)
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
                fix="make it smaller, or pass a larger max_pixels",
            )
        return use(image)
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


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of a picture as it will be once its orientation is applied; only the header is read."""
    return (image.height, image.width) if _lies(image) else image.size


def _lies(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) >= 5


def _name(source: str | Path | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
