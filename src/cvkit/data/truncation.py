"""Whether all pixels of a file are there: Pillow fills up in silence what a closed file lacks."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile

from cvkit.errors import ImageError, MissingDependencyError

__all__ = ["JPEGS", "check_strictly", "loaded", "strict_reader"]

JPEGS = ("JPEG", "MPO")

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column, first row, and steps to the right and down of each pass (PNG, section 8.2)."""

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel, by a PNG's colour type."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""What ends a JPEG's scan: a marker that is neither a stuffed byte nor a restart."""

_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN, _END = 0xDA, 0xD9
_ALONE = frozenset({*range(0xD0, 0xD9), 0xFF})
"""Markers without a length, and the fill byte."""

_OTHER = b"".join(
    restart + bytes(level * 167 % 255 for level in range(64 * place, 64 * place + 64))
    for place, restart in enumerate((b"", *(bytes((0xFF, 0xD0 + n)) for n in range(8))))
)
"""Bytes that change what is decoded, if they are: also where a restart is waited for."""


def loaded(image: Image.Image) -> None:
    """Decodes an image of which only the header has been read, and refuses one whose pixel data end early.

    A PNG is told by the number of bytes that its pixels inflate to, which are counted where its last row is all zero (or it
    is interlaced): rows that are not there stay zero. A JPEG in one scan that ends early goes on in the middle grey of level
    128 to its last block: where that is found, the file is decoded once more with other bytes before its end mark, and what
    is whole does not change by them. A JPEG in several scans must have sent every coefficient to its last bit.

    Raises:
        OSError: Pixels are missing. (With ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` they may be.)
    """
    file = getattr(image, "fp", None)
    image.load()
    if not isinstance(file, io.BytesIO) or file.closed or ImageFile.LOAD_TRUNCATED_IMAGES:
        return
    if image.format == "PNG":
        _check_png(image, file)
    elif image.format in JPEGS:
        _check_jpeg(image, file.getvalue())


def _check_png(image: Image.Image, file: io.BytesIO) -> None:
    width, height = image.size
    if not image.info.get("interlace"):
        last = image.getpixel((width - 1, height - 1))
        if (any(last) if isinstance(last, tuple) else last) or _shows(image.crop((0, height - 1, width, height))):
            return
    there, needed = _inflated(file.getvalue())
    if there < needed:
        raise OSError(f"{there:,} of {needed:,} bytes of pixels are there")


def _shows(image: Image.Image) -> bool:
    return image.getbbox(alpha_only=False) is not None


def _inflated(data: bytes) -> tuple[int, int]:
    """Returns how many bytes a PNG's pixels inflate to, no further than needed, and how many are needed."""
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits *= _SAMPLES[kind]
    needed = 0
    for x, y, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - x, 0) // right), -(-max(height - y, 0) // down)
        needed += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    inflate, there = zlib.decompressobj(), 0
    for piece in _pixel_chunks(data):
        while piece and there < needed:
            there += len(inflate.decompress(piece, 1 << 20))
            piece = inflate.unconsumed_tail
    return there, needed


def _pixel_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        elif name == b"IEND":
            return
        at += 12 + length


def _check_jpeg(image: Image.Image, data: bytes) -> None:
    progressive, components, at = _first_scan(data)
    if not progressive and at + 4 < len(data) and data[at + 4] == components:
        if _ends_grey(image) and _ends_early(data, at):
            raise OSError("the data end before the last block of pixels")
    elif components and not _all_sent(data, at, components):
        raise OSError("the data end before the last scan")


def _first_scan(data: bytes) -> tuple[bool, int, int]:
    """Returns whether a JPEG is progressive, the number of its components, and where its first scan's header is."""
    at, end, progressive, components = 2, len(data) - 9, False, 0
    while at < end:  # once a segment of every JPEG there is: kept short
        marker = data[at + 1]
        if data[at] != 0xFF or marker < 0xC0 or marker in _ALONE:  # what decoders skip
            at += 2 if data[at] == 0xFF and marker != 0xFF else 1
            continue
        if marker in (_SCAN, _END):
            return progressive, components, at
        if marker in _FRAMES:
            progressive, components = marker in _PROGRESSIVE, data[at + 9]
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return progressive, 0, len(data)


def _ends_grey(image: Image.Image) -> bool:
    """Whether the last block of a JPEG's pixels is as one that is not there: of level 128, give or take rounding.

    Colours are kept in fewer pixels, and may have run in from the neighbours; brightness, and the black of four inks, are not.
    """
    width, height = image.size
    last: Any = image.getpixel((width - 1, height - 1))  # all that is looked at, as a rule
    levels = last if isinstance(last, tuple) else (last,) * 3
    bright = levels[3] if len(levels) == 4 else 0.299 * levels[0] + 0.587 * levels[1] + 0.114 * levels[2]
    if not 126 <= bright <= 130:
        return False
    side = 8 // (getattr(image, "decoderconfig", None) or (1, 0))[0]
    block = image.crop(((width - 1) // side * side, (height - 1) // side * side, width, height))
    lowest, highest = (block.getchannel("K") if block.mode == "CMYK" else block.convert("L")).getextrema()
    return isinstance(lowest, int) and isinstance(highest, int) and 126 <= lowest <= highest <= 130


def _ends_early(data: bytes, scan: int) -> bool:
    """Whether a JPEG's decoder would take more bytes than the one scan has."""
    end = _MARKER.search(data, scan + 2)
    at = end.start() if end is not None else len(data)
    try:
        return _small(data) != _small(data[:at] + _OTHER + data[at:])
    except OSError:
        return True  # it took them, and they are none


def _small(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.draft(None, (1, 1))  # at an eighth: of all blocks, the mean is enough
        return image.tobytes()


def _all_sent(data: bytes, at: int, components: int) -> bool:
    """Whether a JPEG's scans tell each of 64 coefficients of each component to its last bit (T.81, G.1.1.1)."""
    left: dict[int, list[int]] = {}
    while at + 4 < len(data) and data[at + 1] != _END:
        length = data[at + 2] << 8 | data[at + 3]
        if data[at + 1] == _SCAN and at + 2 + length <= len(data):
            count = data[at + 4]
            first, last, bits = data[at + 5 + 2 * count : at + 8 + 2 * count]
            for one in data[at + 5 : at + 5 + 2 * count : 2]:
                left.setdefault(one, [1] * 64)[first : last + 1] = [bits & 15] * (last + 1 - first)
        found = _MARKER.search(data, at + 2 + length)
        at = found.start() if found is not None else len(data)
    return len(left) == components and not any(map(any, left.values()))


def strict_reader() -> None:
    """Refuses to go on without the decoder that tells what it had to guess.

    Raises:
        MissingDependencyError: simplejpeg is not installed.
    """
    try:
        import simplejpeg  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "verify(strict=True) needs simplejpeg",
            got=str(error),
            expected="the package simplejpeg, which tells what a JPEG's decoder had to guess",
            fix='pip install "cvkit[jpeg]"',
        ) from error


def check_strictly(path: Path | bytes, name: str | None = None) -> None:
    """Refuses a JPEG at which libjpeg has anything to say: data that end early, are left over, or are no code.

    Raises:
        ImageError: It has; the file is named.
    """
    import simplejpeg

    data = path if isinstance(path, bytes) else path.read_bytes()
    if data[:3] != b"\xff\xd8\xff":
        return
    components = _first_scan(data)[1]
    try:
        simplejpeg.decode_jpeg(data, colorspace={1: "GRAY", 4: "CMYK"}.get(components, "RGB"), strict=True)
    except ValueError as error:
        raise ImageError(
            f"the JPEG {name if name is not None else str(path)} is damaged",
            got=f"libjpeg: {error}",
            expected="data that are decoded without a warning",
            fix="replace or delete the file; verify() without strict accepts it",
        ) from error
