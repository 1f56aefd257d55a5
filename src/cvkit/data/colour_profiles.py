"""Colours as a file means them to sRGB: embedded ICC profiles, and what a PNG says of its colours otherwise."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image, features

from cvkit.errors import ArgumentError, ImageError, MissingDependencyError
from cvkit.pixels import WHITE, scaled

__all__ = ["Colour", "check_colour", "other_than_srgb", "to_srgb"]

Colour: TypeAlias = Literal["convert", "ignore"]
"""What becomes of an image whose file says that its colours are not sRGB."""

_NEAR = 2
"""Levels of 255 by which a profile may differ from sRGB anywhere on a grid of colours, and be taken for it."""

_D65 = (0.3127, 0.329)
_SRGB = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_PRIMARIES = {
    1: _SRGB,
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
"""White, red, green and blue as x and y, by their number in H.273: BT.709 and sRGB, BT.2020, Display P3."""

_D50 = (0.9642, 1.0, 0.8249)  # the profile connection space's white (ICC.1:2022, 7.2.16)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1

_NOT_COLOUR = ("1", "F", "I", "LAB")
"""Modes with nothing to convert: black and white, numbers, and colours that no device is needed for."""

_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
_SAYING = ("icc_profile", "gamma", "chromaticity", "srgb")


def check_colour(colour: object) -> None:
    """Refuses what is no answer to the question.

    Raises:
        ArgumentError: Neither ``"convert"`` nor ``"ignore"``.
    """
    if colour not in ("convert", "ignore"):
        raise ArgumentError(
            "colour cannot be used", got=repr(colour), expected='"convert" or "ignore"', fix="leave it out"
        )


def to_srgb(
    image: Image.Image, data: bytes = b"", *, name: str = "given", background: tuple[int, int, int] = WHITE
) -> Image.Image:
    """Returns an image with its colours in sRGB; the same object where they are already, or nothing else is said of them.

    What counts is an ICC profile, and in a PNG before it ``cICP``, after it ``sRGB``, then ``gAMA`` and ``cHRM``. A profile
    that gives each of 985 colours to within 2 levels of 255 is sRGB. LittleCMS converts, by the perceptual intent.

    Args:
        image: A decoded image of any mode.
        data: The file's bytes, where they are at hand: Pillow keeps a PNG's ``cICP`` to itself.
        name: What to call the image in a message.
        background: What lies behind the transparent level of 16-bit grey, which becomes 8 bits here.

    Raises:
        ImageError: A profile that is damaged or made for other pixels, or colours that cannot be converted.
        MissingDependencyError: There is a profile, and Pillow was built without LittleCMS.
    """
    if image.mode in _NOT_COLOUR:
        return image
    try:
        profile = _profile_of(image, data)
        if profile is None:
            return image
        _check_littlecms(name)
        # neither the date (24 to 35) nor the checksum (84 to 99) in a profile's header tells colours apart
        known = _conversion(profile[:24] + bytes(12) + profile[36:84] + bytes(16) + profile[100:])
        converted = known.of(image, background)
    except (ImageError, MissingDependencyError, MemoryError):
        raise
    except Exception as error:  # LittleCMS is handed whatever stood in the file
        raise ImageError(
            f"the colours of the image {name} cannot be converted to sRGB",
            got=f"{type(error).__name__}: {error}",
            expected="a whole colour profile, made for such pixels",
            fix='save the image in sRGB, or pass colour="ignore", which takes its levels for sRGB as they are',
        ) from error
    if converted is not image:
        converted.format = image.format
        converted.info = {key: value for key, value in image.info.items() if key not in (*_SAYING, "transparency")}
    return converted


def other_than_srgb(image: Image.Image, data: bytes) -> str | None:
    """Returns what to call the colours of an image that are not sRGB; ``None`` where they are, or nothing is said of them.

    Args:
        image: An image of which the header has been read.
        data: The file's bytes.

    Raises:
        ValueError: A profile that is not whole.
        MissingDependencyError: There is a profile, and Pillow was built without LittleCMS.
    """
    profile = _profile_of(image, data) if image.mode not in _NOT_COLOUR else None
    if profile is None:
        return None
    _check_littlecms("")
    known = _conversion(profile[:24] + bytes(12) + profile[36:84] + bytes(16) + profile[100:])
    if known.transform is None and (known.curve is None or known.space == b"RGB "):
        return None
    if "icc_profile" not in image.info:
        return "PNG colour chunks"
    from PIL import ImageCms

    return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "without a name"


def _check_littlecms(name: str) -> None:
    if not features.check("littlecms2"):
        raise MissingDependencyError(
            f"the colours of the image {name} cannot be converted to sRGB",
            got="a Pillow that was built without LittleCMS (PIL.ImageCms)",
            expected="one with it, as the wheels of Pillow are",
            fix='pip install --force-reinstall --only-binary :all: pillow; or pass colour="ignore"',
        )


def _profile_of(image: Image.Image, data: bytes) -> bytes | None:
    """Returns the profile of an image's colours; ``None`` where they are sRGB or nothing is said.

    Raises:
        ValueError: What is said is not whole, or makes no sense.
    """
    info = image.info
    cicp = _cicp(data) if image.format == "PNG" and data else None
    if cicp is not None:
        return _coded(cicp)
    if "icc_profile" in info:
        profile = info["icc_profile"]
        if not isinstance(profile, bytes) or len(profile) < 128:
            raise ValueError("a profile that is not whole")
        return profile
    if "srgb" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    return _described(info.get("gamma"), info.get("chromaticity"))


def _cicp(data: bytes) -> bytes | None:
    """Returns the content of a PNG's chunk ``cICP``, which stands before the pixels."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"cICP":
            return data[at + 8 : at + 8 + length]
        if name in (b"IDAT", b"IEND"):
            return None
        at += 12 + length
    return None


def _coded(cicp: bytes) -> bytes | None:
    primaries, transfer, matrix, full = cicp if len(cicp) == 4 else (0, 0, 0, 0)
    if primaries not in _PRIMARIES or (transfer, matrix, full) != (13, 0, 1):
        raise ValueError(f"cICP {'-'.join(map(str, cicp))}, e.g. a high dynamic range")
    return None if primaries == 1 else _made(None, _PRIMARIES[primaries])


def _described(gamma: float | None, chromaticity: tuple[float, ...] | None) -> bytes | None:
    """Returns the profile of what ``gAMA`` and ``cHRM`` say; ``None`` for sRGB, give or take a hundredth of its gamma."""
    if gamma is not None and not 0.05 <= gamma <= 5:
        raise ValueError(f"gAMA {gamma}")
    usual_curve = gamma is None or abs(gamma * 2.2 - 1) <= 0.01
    where = chromaticity if chromaticity is not None else _SRGB
    usual_place = max(abs(one - other) for one, other in zip(where, _SRGB, strict=True)) <= 0.002
    return None if usual_curve and usual_place else _made(gamma if not usual_curve else None, where)


@lru_cache(maxsize=16)
def _made(gamma: float | None, chromaticity: tuple[float, ...]) -> bytes:
    """Returns an ICC profile of three primaries and one curve.

    Args:
        gamma: As ``gAMA`` has it: levels are light to this power; ``None`` for the curve of sRGB.
        chromaticity: White, red, green and blue as x and y.
    """
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(chromaticity[::2], chromaticity[1::2]))
    columns = np.stack(primaries, axis=1)
    columns = columns * np.linalg.solve(columns, white)  # together they are white
    cones = _BRADFORD @ np.array(_D50) / (_BRADFORD @ white)
    columns = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ columns
    kind, numbers = (3, _SRGB_CURVE) if gamma is None else (0, (1 / gamma,))
    curve = struct.pack(">4sIHH", b"para", 0, kind, 0) + _fixed(*numbers)
    tags = {b"rXYZ": columns[:, 0], b"gXYZ": columns[:, 1], b"bXYZ": columns[:, 2], b"wtpt": _D50}
    bodies = {name: b"XYZ \0\0\0\0" + _fixed(*values) for name, values in tags.items()}
    bodies |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, content, start = struct.pack(">I", len(bodies)), b"", 132 + 12 * len(bodies)
    for name, body in bodies.items():
        table += struct.pack(">4sII", name, start + len(content), len(body))
        content += body
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(content), b"", 0x04400000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    return header.ljust(68, b"\0") + _fixed(*_D50) + bytes(48) + table + content


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


@dataclass(frozen=True, slots=True)
class _Conversion:
    """How pixels become sRGB; several threads may use it at a time.

    Attributes:
        space: What the profile is made for: ``"RGB "``, ``"GRAY"`` or ``"CMYK"``.
        transform: Pillow's, of RGB or CMYK pixels; ``None`` where they are sRGB.
        curve: What becomes of 256 levels of grey ``(256,)``; ``None`` where they stay.
    """

    space: bytes
    transform: Any
    curve: np.ndarray[Any, np.dtype[np.float64]] | None

    def of(self, image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
        """Returns an image converted; the same object where nothing is to be done.

        Raises:
            ValueError: The profile is made for other pixels.
        """
        coloured = image.mode in ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr", "HSV")
        fit = (b"RGB ",) if coloured else (b"CMYK",) if image.mode == "CMYK" else (b"GRAY", b"RGB ")
        if self.space not in fit:
            raise ValueError(
                f"a profile for {self.space.decode('ascii', 'replace').strip()} in an image of {image.mode}"
            )
        if (self.transform if coloured or image.mode == "CMYK" else self.curve) is None:
            return image
        if image.mode.startswith("I;16"):
            return scaled(image, background, self.curve)
        plain = _with_alpha_apart(image)
        colours, alpha = (
            (plain, None)
            if plain.mode in ("L", "RGB", "CMYK")
            else (plain.convert(plain.mode[:-1]), plain.getchannel("A"))
        )
        made = self._grey(colours) if colours.mode == "L" else self.transform.apply(colours)
        if alpha is not None:
            made.putalpha(alpha)
        return made

    def _grey(self, image: Image.Image) -> Image.Image:
        return image.point([round(float(level)) for level in self.curve]) if self.curve is not None else image.copy()


def _with_alpha_apart(image: Image.Image) -> Image.Image:
    """Returns an image of mode L, LA, RGB, RGBA or CMYK: transparent levels and palettes are had in no other way."""
    image = image.convert(_STRAIGHT[image.mode]) if image.mode in _STRAIGHT else image
    if image.mode in ("P", "PA") or (image.mode in ("L", "RGB") and "transparency" in image.info):
        grey = image.mode == "L"
        return image.convert("LA" if grey else "RGBA" if image.has_transparency_data else "RGB")
    return image


@lru_cache(maxsize=64)
def _conversion(profile: bytes) -> _Conversion:
    """Returns what a profile asks for; it is built once a process, in milliseconds."""
    from PIL import ImageCms

    space = profile[16:20]
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(space)
    if mode is None:
        raise ValueError(f"a profile for {space.decode('ascii', 'replace').strip()}")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    # LittleCMS makes a short table of a curve of grey, too short for dark levels; only 256 go through it
    exact = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
    transform = ImageCms.ImageCmsTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags=exact)
    if mode == "CMYK":
        return _Conversion(space, transform, None)
    ramp = np.arange(256, dtype=np.uint8)[None]
    greys = np.asarray(transform.apply(Image.fromarray(ramp).convert(mode)))[0].astype(float)
    curve = greys @ (0.299, 0.587, 0.114)  # as Pillow makes grey of colour (BT.601)
    same = np.abs(curve - ramp[0]).max() <= _NEAR
    if mode == "L":
        return _Conversion(space, None, None if same else curve)
    axis = np.arange(0, 256, 255 / 8).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
    far = np.abs(np.asarray(transform.apply(Image.fromarray(grid))).astype(int) - grid).max()
    is_srgb = far <= _NEAR and np.abs(greys - ramp[0][:, None]).max() <= _NEAR
    return _Conversion(space, None if is_srgb else transform, None if same else curve)
