"""Bytes to an 8-bit image: every mode right, nothing silent."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from cvkit.data.colour_profiles import Colour, check_colour, to_srgb
from cvkit.data.datasets.duplicates import no_file
from cvkit.data.truncation import JPEGS, loaded
from cvkit.errors import ArgumentError, ImageError, MissingDependencyError
from cvkit.pixels import WHITE, eight_bit

__all__ = ["FORMATS", "MAX_PIXELS", "Enough", "blamed_on", "decode", "header", "opened", "upright", "upright_size"]

MAX_PIXELS = 89_478_485
"""The default bound on an image's pixels, where Pillow begins to warn of decompression bombs (a quarter of a GiB in RGB)."""

Enough: TypeAlias = Callable[[int, int], tuple[int, int]]
"""From an image's width and height, upright, to those at which it is still large enough for what becomes of it."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""What is decoded, whatever a file's name says. Pillow knows more, but has another program run for some (PostScript)."""

_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation; 5 to 8 lie on their side."""

_NOTES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
"""Where an orientation may be noted."""

FEW_BITS = {"L;2": 3, "L;4": 15}
"""Pillow's names for grey of 2 and 4 bits, and the largest level that a file holds in them."""


def decode(
    source: str | Path | bytes,
    *,
    mode: Literal["RGB", "L"] = "RGB",
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
    enough: Enough | None = None,
    colour: Colour = "convert",
    name: str | None = None,
) -> Image.Image:
    """Decodes an image, upright, in 8 bits a channel.

    The orientation that a camera has noted is applied; colours that a profile in the file describes become sRGB; 16-bit grey
    is scaled, not clipped; transparent pixels show the background; of an animation the first frame is taken.

    Args:
        source: A file, or its bytes.
        mode: ``"RGB"`` or ``"L"`` (grey).
        background: What lies behind transparent pixels.
        max_pixels: The largest number of pixels that is decoded.
        enough: A function from the upright image's width and height in pixels to those that are enough. A JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, by its own cosine transform, where that is no smaller: many times faster,
            and 1 to 2 grey levels of 255 from decoding it whole and averaging (``benchmarks/data.py`` measures it).
        colour: ``"convert"`` brings colours to sRGB where the file says that they are something else: an ICC profile (in a
            JPEG, PNG, TIFF, WebP or AVIF), or a PNG's ``cICP``, ``gAMA`` and ``cHRM``. ``"ignore"`` takes all levels for sRGB.
        name: What to call it in messages; by default the file.

    Returns:
        The image in ``mode``.

    Raises:
        ImageError: Missing, damaged, no image, too large, of a kind that has no right answer in 8 bits (float, 32-bit), or
            with a colour profile that cannot be used.
        ArgumentError: Another ``mode`` or ``colour``.
        MissingDependencyError: The file has a colour profile, and Pillow was built without LittleCMS.
    """
    if mode not in ("RGB", "L"):
        raise ArgumentError("mode cannot be used", got=repr(mode), expected='"RGB" or "L"', fix='mode="RGB"')
    check_colour(colour)
    name = name if name is not None else _name(source)
    data = source if isinstance(source, bytes) else _bytes(source)
    image = _header(data, name, max_pixels)
    if enough is not None and image.format in JPEGS:
        width, height = (max(1, side) for side in enough(*upright_size(image)))
        image.draft(None, (height, width) if _orientation(image) >= 5 else (width, height))
    with blamed_on(name):
        if "transparency" in image.info and image.format == "PNG":
            _find_transparent(image, data)
        image = upright(image)
        if colour == "convert":
            image = to_srgb(image, data, name=name, background=background)
        return eight_bit(image, mode, name=name, background=background)


def header(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """Returns an image of which only the header has been read.

    Args:
        source: A file, or its bytes.
        max_pixels: The largest number of pixels.
        name: What to call it in messages; by default the file.

    Raises:
        ImageError: Missing, no image, damaged, or too large.
    """
    name = name if name is not None else _name(source)
    return _header(source if isinstance(source, bytes) else _bytes(source), name, max_pixels)


def _bytes(source: str | Path) -> bytes:
    try:
        return _content(source)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"cannot read the image {source}",
            got=f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}",
            expected="a file that can be read",
            fix="check the path and its permissions",
        ) from error


def _header(data: bytes, name: str, max_pixels: int) -> Image.Image:
    with blamed_on(name):
        image = Image.open(io.BytesIO(data), formats=_formats())
        if image.width * image.height <= max_pixels:
            return image
    raise ImageError(
        f"the image {name} is too large",
        got=f"{image.width}×{image.height} pixels",
        expected=f"at most {max_pixels:,} pixels",
        fix="make it smaller, or pass a larger max_pixels",
    )


def opened(
    source: str | Path | bytes, use: Callable[[Image.Image], Image.Image], *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Returns what ``use`` makes of an image of which only the header has been read; what fails in it is the file's fault.

    Raises:
        ImageError: Missing, damaged, no image, or too large; or as ``use`` raises it.
    """
    image = header(source, max_pixels=max_pixels)
    with blamed_on(_name(source)):
        return use(image)


def _content(path: str | Path) -> bytes:
    """Returns the bytes of a file; a pipe, from which reading may never come back, is only opened.

    Raises:
        ImageError: A pipe, a socket or a device.
        OSError: It cannot be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            kind = no_file(os.fstat(file.fileno()).st_mode)
            if kind is None:
                return file.read()
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        kind = "a socket, or a device that is not there"
    raise ImageError(
        f"cannot read the image {path}",
        got=kind,
        expected="a file, which can be read to its end",
        fix="write the image to a file, or pass its bytes",
    )


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # else opening a pipe waits for somebody to write


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Returns the formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


_BUFFER = re.compile(r" ?<_io\.BytesIO object at \w+>")
"""How Pillow names a file of which it is given the bytes."""


@contextmanager
def blamed_on(name: object) -> Iterator[None]:
    """Turns whatever fails inside into an error that names a file.

    Raises:
        ImageError: Something did.
    """
    try:
        yield
    except (ImageError, MemoryError, MissingDependencyError):  # neither of the last two says anything about the file
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"the image {name} is too large",
            got=error,
            expected="no more than twice PIL.Image.MAX_IMAGE_PIXELS, whatever max_pixels says",
            fix="make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS as well",
        ) from error
    # Pillow's decoders raise whatever their parsers stumble over; all of it means that this file is no whole image
    except Exception as error:
        raise ImageError(
            f"cannot decode the image {name}",
            got=f"{type(error).__name__}: {_BUFFER.sub('', str(error))}",
            expected="a whole image (JPEG, PNG, WebP, GIF, BMP, TIFF, …)",
            fix="replace or delete the file; a dataset's verify() lists all such files",
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """Decodes an image and turns it as its camera has noted."""
    loaded(image)
    turn = _orientation(image)
    if turn not in _TURNS or image.format == "TIFF":  # whose pixels Pillow has turned already
        return image
    turned = image.transpose(_TURNS[turn])
    turned.format = image.format  # which tells what some levels mean
    for key in _NOTES:  # it is upright now, and nobody should turn it again
        turned.info.pop(key, None)
    return turned


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of an image as it will be once its orientation is applied; only the header is read."""
    # of a TIFF Pillow tells the upright size, and a PNG it would decode to look for notes behind the pixels
    known = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
    lies = not known and _orientation(image) >= 5
    return (image.height, image.width) if lies else image.size


def _orientation(image: Image.Image) -> int:
    try:
        noted = image.getexif().get(_ORIENTATION, 1)
    except (
        Exception
    ):  # a camera's notes that nobody can read turn nothing; Pillow raises whatever its parser stumbles over
        return 1
    return noted if isinstance(noted, int) and noted in _TURNS else 1


def _find_transparent(image: Image.Image, data: bytes) -> None:
    """Makes the transparent colour of a PNG fit what Pillow makes of its pixels.

    Grey of 2 and 4 bits is spread over 8; of colours of 16 bits only the high bytes are kept, so the low ones are decoded too.
    """
    clear, tiles = image.info["transparency"], getattr(image, "tile", ())
    kept = tiles[0].args if tiles else None
    if kept in FEW_BITS and isinstance(clear, int):
        most = FEW_BITS[kept]
        image.info["transparency"] = (clear & most) * (255 // most)
    elif kept == "RGB;16B" and isinstance(clear, tuple):
        low = Image.open(io.BytesIO(data), formats=("PNG",))
        low.tile = [tile._replace(args="RGB;16L") for tile in tiles]  # the other byte of two
        loaded(image)
        levels = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
        del image.info["transparency"]
        image.putalpha(Image.fromarray(np.where((levels == clear).all(axis=2), 0, 255).astype(np.uint8)))


def _name(source: str | Path | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
