"""Figures without a display, colours that everybody can tell apart, and names that fit: what drawing needs everywhere.

It is a leaf, like ``errors`` and ``pixels``: ``plots`` draws most images, ``training.find_lr`` its own.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

from cvkit.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BAD", "FAINT", "PALETTE", "RIGHT", "WRONG", "new_figure", "shorten"]

# Okabe and Ito, Color Universal Design, 2008: told apart with every common colour blindness
RIGHT = "#0072B2"
"""Blue: what is right, and the first of several lines."""
WRONG = "#D55E00"
"""Vermilion: what is wrong."""
PALETTE = (RIGHT, WRONG, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Colours of lines and classes, in their order."""
FAINT = "#999999"
"""Grey: frames, and what does not count."""
BAD = (1.0, 0.0, 1.0)
"""Magenta: a pixel that holds no number."""


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure that pyplot knows nothing of: no display is needed and nothing has to be closed.

    A notebook shows it when it is the last line of a cell, whether or not pyplot has been imported there.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "drawing needs matplotlib", got=error, expected="matplotlib 3.9 or newer", fix='pip install "cvkit[plots]"'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    # matplotlib teaches notebooks to show figures only when pyplot is imported; IPython also asks the object itself
    vars(figure)["_repr_png_"] = functools.partial(_png, figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def shorten(text: str, most: int) -> str:
    """Returns a text that is no longer than ``most`` characters, with an ellipsis for its middle."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"
