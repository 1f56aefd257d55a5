"""One image of any mode to 8 bits a channel, right or refused: what ``data`` decodes and ``transforms`` is given.

It is a leaf, like ``errors`` and ``registry``: both rooms need it, and neither imports the other.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from cvkit.errors import ImageError

__all__ = ["WHITE", "as_image", "eight_bit", "scaled"]

WHITE = (255, 255, 255)
"""What lies behind transparent pixels unless it is said otherwise."""

_SIXTEEN_BIT_AS_32 = ("PNG", "PPM")
"""Formats whose images of mode ``"I"`` hold levels from 0 to 65,535, scaled by Pillow where the file's maximum is another."""

_WITH_ALPHA = {"La": "LA", "RGBa": "RGBA"}
"""What modes whose colours are multiplied by their alpha convert to; Pillow does nothing else with some of them."""

_BITS, _PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8


def as_image(given: Any) -> Image.Image:
    """Returns what is given as an image.

    Args:
        given: A PIL image; a uint8 array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` (RGB) or ``(H, W, 4)``; a uint16 array
            ``(H, W)``; or a uint8 tensor ``(H, W)`` or ``(C, H, W)``.

    Raises:
        ImageError: Anything else.
    """
    if isinstance(given, Image.Image):
        return given
    array = given
    if isinstance(given, Tensor):
        array = given.detach().cpu()
        array = (array.movedim(0, -1) if array.ndim == 3 else array).numpy()
    if isinstance(array, np.ndarray) and array.size:
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        coloured = array.ndim == 3 and array.shape[2] in (3, 4)
        if (array.dtype == np.uint8 and (array.ndim == 2 or coloured)) or (
            array.dtype == np.uint16 and array.ndim == 2
        ):
            return Image.fromarray(np.ascontiguousarray(array))
    shape = getattr(given, "shape", None)
    raise ImageError(
        "this is no image",
        got=type(given).__name__ if shape is None else f"{type(given).__name__} {given.dtype} {tuple(shape)}",
        expected="a PIL image, a uint8 array (H, W) or (H, W, 3) in the order RGB, or a uint8 tensor (C, H, W)",
        fix="scale floats from 0 to 1 by (255 * x).round().astype('uint8'), turn OpenCV's BGR round by x[:, :, ::-1]",
    )


def eight_bit(
    image: Image.Image,
    mode: Literal["RGB", "L"] | None = None,
    *,
    name: str = "given",
    background: tuple[int, int, int] = WHITE,
) -> Image.Image:
    """Returns an image of 8 bits a channel that looks like the given one.

    16-bit grey is scaled, not clipped; transparent pixels show the background. (``Image.convert`` alone would saturate the 16
    bits, turn floats black, and show the colour that happens to be hidden in transparent pixels.)

    Args:
        image: An image of any mode.
        mode: ``"RGB"`` or ``"L"`` (grey); ``None`` leaves grey grey.
        name: What to call the image in a message.
        background: What lies behind transparent pixels.

    Returns:
        The image; the same object where nothing is to be done.

    Raises:
        ImageError: A mode that has no right answer in 8 bits: floating point, 32-bit integers, or one that Pillow cannot
            convert.
    """
    if image.mode == mode and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT_AS_32):
        image = scaled(image, background)
    if image.mode in ("I", "F"):
        raise _no_answer(image, name, "scale it yourself and save it as 16-bit grey, or give arrays to ArrayDataset")
    wanted = mode or ("L" if image.mode in ("1", "L") else "RGB")
    try:
        if image.has_transparency_data:
            image = (image.convert(_WITH_ALPHA[image.mode]) if image.mode in _WITH_ALPHA else image).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")
        elif image.mode == "LAB":  # Pillow converts it to RGB alone
            image = image.convert("RGB")
        return image if image.mode == wanted else image.convert(wanted)
    except ValueError as error:
        raise _no_answer(image, name, f"convert it yourself ({error})") from error


def scaled(
    image: Image.Image,
    background: tuple[int, int, int] = WHITE,
    curve: np.ndarray[Any, np.dtype[np.float64]] | None = None,
) -> Image.Image:
    """Scales grey of 9 to 16 bits to 8, rounding: the highest level is 255. A transparent level shows the background.

    Args:
        image: An image of mode ``"I;16"`` or a relative of it, or of mode ``"I"`` with levels up to 65,535.
        background: What lies behind the transparent level.
        curve: What becomes of the levels 0 to 255 on the way ``(256,)``; those between are had in proportion.

    Returns:
        An image of mode ``"L"``, or ``"RGB"`` where a level is transparent.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF: Pillow hands over its levels as they are stored
    bits = tags.get(_BITS, (16,))
    levels = np.asarray(image).astype(np.uint32)
    most = (1 << int(bits[0] if isinstance(bits, tuple) else bits)) - 1 if image.mode != "I" else 65535
    clear = image.info.get("transparency")
    shown = np.minimum(levels, most)
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white
        shown = most - shown
    if curve is None:
        grey = ((shown * 255 + most // 2) // most).astype(np.uint8)
    else:
        grey = np.interp(shown * (255 / most), np.arange(256), curve).round().astype(np.uint8)
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    coloured = np.repeat(grey[:, :, None], 3, axis=2)
    coloured[levels == clear] = background
    return Image.fromarray(coloured)


def _no_answer(image: Image.Image, name: str, fix: str) -> ImageError:
    kinds = {"I": "32-bit integers", "F": "floating-point levels"}
    return ImageError(
        f"the image {name} has no right answer in 8 bits",
        got=f"{kinds.get(image.mode, f'mode {image.mode!r}')}, {image.width}×{image.height}",
        expected="8 or 16 bits a channel",
        fix=fix,
    )
