"""Images side by side on one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cvkit.figures import FAINT, new_figure
from cvkit.plots.images import Pixels, check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Cell", "draw_grid", "side_by_side"]

CELL, LINE, MARGIN = 1.9, 0.19, 0.3
"""The width of an image, the height of a line of text over it, and the rest, in inches."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of a grid.

    Attributes:
        pixels: ``(H, W, 3)`` from 0 to 1.
        title: What is written over it.
        colour: Of title and frame; ``None`` for the usual one.
    """

    pixels: Pixels
    title: str = ""
    colour: str | None = None


def side_by_side(images: Sequence[Pixels]) -> Pixels:
    """Joins images ``(N, H, W, 3)`` of the same batch from left to right, with a white line between.

    Images of another size are padded with white below and on the right.
    """
    height, width = (max(one.shape[axis] for one in images) for axis in (1, 2))
    line = max(1, width // 32)
    parts: list[Pixels] = []
    for one in images:
        padded = np.ones((len(one), height, width + line, 3), dtype=np.float32)
        padded[:, : one.shape[1], : one.shape[2]] = one
        parts.append(padded)
    joined: Pixels = np.concatenate(parts, axis=2)[:, :, :-line]
    return joined


def draw_grid(
    cells: Sequence[Cell],
    columns: int | None,
    heading: str = "",
    notes: Sequence[str] = (),
    parts: Sequence[str] = (),
) -> Figure:
    """Draws images in rows, one axes each, and notes below them.

    Args:
        cells: The images.
        columns: Images to a row; by default about as many as there are rows.
        heading: What is written over all of them.
        notes: What is to be known of how they are shown.
        parts: What each image of :func:`side_by_side` shows, from left to right; it is written over those of the first row.
    """
    if columns is not None:
        check_count("columns", columns)
    height, width = (max(one.pixels.shape[axis] for one in cells) for axis in (0, 1))
    wide = max(1.0, width / height)
    if columns is None:
        columns = len(cells) if len(cells) * wide <= 4 else math.ceil(math.sqrt(len(cells) / wide))
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    lines = max(one.title.count("\n") + 1 if one.title else 0 for one in cells)
    row_height = CELL * wide * min(height / width, 4.0) + lines * LINE + 0.1
    rest = MARGIN + LINE * (bool(heading) + bool(notes) + bool(parts))
    figure = new_figure(columns * CELL * wide + MARGIN, rows * row_height + rest)
    for place, cell in enumerate(cells, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(cell.pixels, vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        # a class or a file may be called anything, also "$x$"
        title = axes.set_title(cell.title, fontsize=9, parse_math=False)
        for number, part in enumerate(parts if place <= columns else ()):
            axes.text(
                (number + 0.5) / len(parts), 1.02, part, transform=axes.transAxes, fontsize=9, ha="center", va="bottom"
            )
        if cell.colour:
            title.set_color(cell.colour)
        for spine in axes.spines.values():
            spine.set_color(cell.colour or FAINT)
            spine.set_linewidth(2.5 if cell.colour else 0.8)
    if heading:
        figure.suptitle(heading, fontsize=11)
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=8, color="#555555")
    return figure
