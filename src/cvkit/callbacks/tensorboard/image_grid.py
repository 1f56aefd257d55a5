"""Images of batches: what the model saw, and what it made of it; drawn by Pillow, in no colour map of anybody else's."""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cvkit.callbacks.tensorboard.answers import Answers

__all__ = ["Pixels", "font", "grid", "is_image_batch", "predictions", "shortened", "sized", "squares", "to_pixels"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

RIGHT, WRONG, GAP = (20, 130, 70), (200, 30, 45), 4
"""Frames, and the white between images."""

_SMALL, _LARGE = 64, 256
_MOST_CHANNELS = 8


def is_image_batch(inputs: Any) -> bool:
    """Whether this is a batch that can be shown: ``(N, C, H, W)``."""
    return isinstance(inputs, Tensor) and inputs.ndim == 4 and not inputs.is_complex() and inputs[:1].numel() > 0


def to_pixels(images: Tensor, transform: Any = None) -> Pixels:
    """Turns a batch as the model sees it into images as people see them.

    Args:
        images: ``(N, C, H, W)`` on any device: uint8, or floats. One channel is grey, three are RGB; any other number of
            channels (up to eight of them) is shown side by side, each grey.
        transform: Something with ``denormalize``, for as many channels. Without it, floats beyond 0 to 1 are scaled from
            the smallest of the batch to the largest.

    Returns:
        uint8 ``(N, H, W, 3)``; ``W`` is a multiple of the images' where channels are side by side.
    """
    images = images.detach()
    if images.dtype == torch.uint8:
        images = images.float() / 255
    elif _fits(transform, images):
        images = transform.denormalize(images.float())
    else:
        images = _scaled(images.float())
    images = images.nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    if images.shape[1] not in (1, 3):
        images = torch.cat(torch.split(images[:, :_MOST_CHANNELS], 1, dim=1), dim=3)
    return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()


def _fits(transform: Any, images: Tensor) -> bool:
    channels = getattr(transform, "channels", images.shape[1])
    return callable(getattr(transform, "denormalize", None)) and channels == images.shape[1]


def _scaled(images: Tensor) -> Tensor:
    finite = images[torch.isfinite(images)]
    if not finite.numel():
        return images
    low, high = (float(value) for value in finite.aminmax())
    return images if low >= 0 and high <= 1 else (images - low) / max(high - low, 1e-12)


def grid(images: Sequence[Pixels]) -> Pixels:
    """Lays images of one size out in about as many rows as columns, white between them.

    Args:
        images: uint8 ``(H, W, 3)`` each.

    Returns:
        uint8 ``(H', W', 3)``.
    """
    height, width = images[0].shape[:2]
    columns = max(1, min(len(images), round(math.sqrt(len(images) * height / width)) or 1))
    rows = math.ceil(len(images) / columns)
    canvas = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    return canvas


def sized(source: Pixels, least: int = _SMALL) -> Pixels:
    """Enlarges a small image by a whole factor, pixel by pixel, and shrinks a large one."""
    height, width = source.shape[:2]
    if max(height, width) > _LARGE * max(1, width // height):
        image = Image.fromarray(source)
        image.thumbnail((_LARGE * max(1, width // height), _LARGE), Image.Resampling.BOX)
        return np.asarray(image)
    factor = math.ceil(least / max(1, min(height, width)))
    return source.repeat(factor, 0).repeat(factor, 1) if factor > 1 else source


def squares(images: Pixels, side: int) -> Pixels:
    """Returns images of ``side × side`` pixels, for a sprite."""
    made = [Image.fromarray(one).resize((side, side), Image.Resampling.BOX) for one in images]
    return np.stack([np.asarray(one) for one in made])


def predictions(inputs: Pixels, answers: Answers, names: Sequence[str], transform: Any) -> Pixels:
    """Draws what a model has made of images beside what would have been right.

    Classes, labels and numbers are written below each image, in a green frame where they are right and in a red one where
    not; masks and images stand beside it: input, output, target.

    Args:
        inputs: uint8 ``(N, H, W, 3)``.
        answers: Of these ``N`` samples.
        names: The name of each class.
        transform: As in :func:`to_pixels`, for outputs and targets that are images.

    Returns:
        uint8 ``(H', W', 3)``.
    """
    if answers.task == "reconstruction":
        made, wanted = to_pixels(answers.predicted, transform), to_pixels(answers.truth, transform)
        return grid([_beside([sized(one) for one in row]) for row in zip(inputs, made, wanted, strict=True)])
    if answers.task == "segmentation":
        made, wanted = (coloured(mask, answers.classes) for mask in (answers.predicted, answers.truth))
        return grid([_beside([sized(one) for one in row]) for row in zip(inputs, made, wanted, strict=True)])
    told = _captions(answers, names)
    return grid([_framed(sized(one, 80), *what) for one, what in zip(inputs, told, strict=True)])


def coloured(masks: Tensor, classes: int) -> Pixels:
    """Gives each class of masks ``(N, H, W)`` a colour: the first black, what is no class white."""
    palette = [(0, 0, 0)]
    for index in range(classes - 1):  # the golden ratio keeps neighbours apart
        hue = (0.02 + index * 0.618034) % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.95 if index % 2 == 0 else 0.7)
        palette.append((round(red * 255), round(green * 255), round(blue * 255)))
    palette.append((255, 255, 255))
    values = masks.cpu().numpy()
    return np.asarray(palette, np.uint8)[np.where((values < 0) | (values >= classes), classes, values)]


def _beside(images: Sequence[Pixels]) -> Pixels:
    height = max(one.shape[0] for one in images)
    parts: list[Pixels] = []
    for one in images:
        parts += [np.full((height, 1, 3), 255, np.uint8)] if parts else []
        filled = np.full((height, one.shape[1], 3), 255, np.uint8)
        filled[: one.shape[0]] = one
        parts.append(filled)
    return np.concatenate(parts, axis=1)


def _captions(answers: Answers, names: Sequence[str]) -> list[tuple[list[str], bool | None]]:
    """Returns the lines below each image, and whether the answer is right (``None`` for numbers)."""
    told: list[tuple[list[str], bool | None]] = []
    predicted, truth = answers.predicted.cpu(), answers.truth.cpu()
    if answers.task == "regression":
        return [
            ([_numbers(made), f"is {_numbers(wanted)}"], None) for made, wanted in zip(predicted, truth, strict=True)
        ]
    if answers.task == "multilabel":
        for made, wanted in zip(predicted, truth, strict=True):
            right = bool((made == wanted).all())
            told.append(([_several(made, names), "" if right else f"is {_several(wanted, names)}"], right))
        return told
    chances = answers.scores.amax(1).cpu().tolist() if answers.scores is not None else [math.nan] * len(predicted)
    for made, wanted, chance in zip(predicted.tolist(), truth.tolist(), chances, strict=True):
        known = names[wanted] if 0 <= wanted < len(names) else "no class"
        told.append(([f"{names[made]} {chance:.0%}", "" if made == wanted else f"is {known}"], made == wanted))
    return told


def _several(chosen: Tensor, names: Sequence[str]) -> str:
    return ", ".join(name for name, one in zip(names, chosen.tolist(), strict=True) if one) or "none"


def _numbers(values: Tensor) -> str:
    shown = " ".join(f"{value:.3g}" for value in values.tolist()[:4])
    return f"{shown} …" if values.numel() > 4 else shown


def _framed(image: Pixels, lines: Sequence[str], right: bool | None) -> Pixels:
    """Puts an image into a frame, with lines below it."""
    height, width = image.shape[:2]
    colour = (120, 120, 120) if right is None else RIGHT if right else WRONG
    canvas = Image.new("RGB", (width + 8, height + 8 + 15 * len(lines) + 3), colour)
    canvas.paste(Image.fromarray(image), (4, 4))
    draw = ImageDraw.Draw(canvas)
    for index, line in enumerate(lines):
        text = shortened(line, font(12), width)
        draw.text((5, height + 6 + 15 * index), text, fill="white", font=font(12))
    return np.asarray(canvas)


@functools.cache
def font(size: int) -> Any:
    """Returns the font that comes with Pillow."""
    return ImageFont.load_default(size)


def shortened(text: str, letters: Any, width: float) -> str:
    """Returns as much of a text as fits into a width in pixels."""
    if letters.getlength(text) <= width:
        return text
    kept = text
    while kept and letters.getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept + "…"
