"""``show_masks``: images, their masks, and those that a model finds."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvkit.arguments import check_number
from cvkit.errors import ArgumentError
from cvkit.figures import BAD, FAINT, PALETTE
from cvkit.inference import Predictor
from cvkit.plots.captions import class_name, find_classes
from cvkit.plots.images import Denormalize, Pixels, check_count, first_batch, how_to_denormalize, to_pixels
from cvkit.plots.layout import Cell, draw_grid
from cvkit.plots.model_outputs import inference_function
from cvkit.training.runtime import Precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["show_masks"]

LEGEND = 20
"""Classes that the legend has room for."""
_NOTHING = -(2**31)
"""Where a model's output is not finite."""


def show_masks(
    loader: Any,
    model: nn.Module | Predictor | None = None,
    *,
    count: int = 4,
    columns: int | None = None,
    classes: Sequence[str] | None = None,
    denormalize: Denormalize | None = None,
    ground: int | None = 0,
    ignore: int | None = 255,
    opacity: float = 0.5,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Figure:
    """Shows images of the first batch of an epoch, each again with its mask over it, and with that which a model finds.

    Each class has a colour, which the legend names; the ground is left as it is. Over what a model finds stands how
    many of the pixels are right, and the mean over the classes of intersection over union (Jaccard, 1912).

    Args:
        loader: As in :func:`show_batch`; targets are masks ``(N, H, W)`` or ``(N, 1, H, W)`` of integers.
        model: A module or predictor with outputs ``(N, C, H, W)``, one a class, or ``(N, 1, H, W)``, a logit; or none.
        count: The most images that are shown.
        columns: Images to a row, each with its masks.
        classes: The class names; by default the loader's.
        denormalize: As in :func:`show_batch`.
        ground: The class that is not coloured; ``None`` colours all.
        ignore: A value that is no class: it is grey, and does not count.
        opacity: Of the masks, from 0 to 1.
        device: As in :func:`show_predictions`.
        precision: As in :func:`show_predictions`.

    Raises:
        ArgumentError: No images, no masks, or outputs that do not fit them.
        DataError: The loader fails to give a batch.
        MissingDependencyError: matplotlib is not installed.
    """
    check_count("count", count)
    if columns is not None:
        check_count("columns", columns)
    check_number("opacity", opacity, at_least=0, at_most=1, expected="a number from 0 to 1", fix="opacity=0.5")
    batch = first_batch(loader)
    pixels, notes = to_pixels(batch.inputs[:count], how_to_denormalize(loader, denormalize))
    truth = _masks(batch.targets, pixels.shape[1:3])[:count]
    found = None
    if model is not None:
        with inference_function(model, device, precision) as infer:
            found = _found(infer(batch.inputs[:count]), truth)
    colours = _colours(truth, found, ground, ignore)
    cells = []
    for i, image in enumerate(pixels):
        cells += [Cell(image, "image"), Cell(_tinted(image, truth[i], colours, opacity), "truth")]
        if found is not None:
            cells.append(Cell(_tinted(image, found[i], colours, opacity), _judged(found[i], truth[i], ignore)))
    panels = 2 if found is None else 3
    figure = draw_grid(cells, panels * (columns or (2 if len(pixels) > 2 else 1)), notes=notes)
    _add_legend(figure, colours, find_classes(loader, classes), ignore)
    return figure


def _masks(targets: Tensor | None, size: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns masks as integers ``(N, H, W)``."""
    if targets is not None and targets.ndim == 4 and targets.shape[1] == 1:
        targets = targets[:, 0]
    whole = targets is not None and (not targets.is_floating_point() or bool((targets == targets.round()).all()))
    if targets is None or targets.ndim != 3 or tuple(targets.shape[1:]) != tuple(size) or not whole:
        raise ArgumentError(
            "the targets are no masks of these images",
            got="no targets"
            if targets is None
            else f"{str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)} for images of {size[0]}×{size[1]}",
            expected=f"integers of shape (N, {size[0]}, {size[1]}), a class a pixel",
            fix="show other targets with show_batch(loader)",
        )
    masks: NDArray[np.int64] = targets.long().numpy()
    return masks


def _found(outputs: Tensor, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the class that a model finds at each pixel."""
    if outputs.ndim == 3:
        outputs = outputs.unsqueeze(1)
    if outputs.ndim != 4 or tuple(outputs.shape[2:]) != truth.shape[1:]:
        raise ArgumentError(
            "the model's outputs are no masks of these images",
            got=f"outputs of shape {tuple(outputs.shape)}, masks of shape {truth.shape}",
            expected=f"(N, C, {truth.shape[1]}, {truth.shape[2]})",
            fix="resize the outputs in the model, e.g. with torch.nn.functional.interpolate",
        )
    classes = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
    classes[~outputs.isfinite().all(1)] = _NOTHING
    found: NDArray[np.int64] = classes.numpy()
    return found


def _colours(
    truth: NDArray[np.int64], found: NDArray[np.int64] | None, ground: int | None, ignore: int | None
) -> dict[int, tuple[float, float, float]]:
    """Returns the colour of each value that is there and is not the ground, in the order of the values."""
    values = set(np.unique(truth).tolist()) | set([] if found is None else np.unique(found).tolist())
    if ground is not None:
        values.discard(ground)
    special = {_NOTHING: BAD, ignore: _rgb(FAINT)}
    return {one: special[one] if one in special else _class_colour(one) for one in sorted(values)}


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _class_colour(index: int) -> tuple[float, float, float]:
    """Returns the same colour for a class always; beyond the palette, hues a golden section apart, in two lightnesses."""
    shift = index - 1  # class 0 is the ground more often than not
    if 0 <= shift < len(PALETTE) - 1:
        return _rgb(PALETTE[shift])
    return colorsys.hls_to_rgb(index * 0.618034 % 1, 0.35 if index % 2 else 0.65, 0.9)


def _tinted(
    image: Pixels, mask: NDArray[np.int64], colours: dict[int, tuple[float, float, float]], opacity: float
) -> Pixels:
    shown = image.copy()
    for value, colour in colours.items():
        where = mask == value
        shown[where] = (1 - opacity) * shown[where] + opacity * np.asarray(colour, dtype=np.float32)
    return shown


def _judged(found: NDArray[np.int64], truth: NDArray[np.int64], ignore: int | None) -> str:
    """Returns in words how far a mask agrees with the truth."""
    counts = truth != ignore
    if not counts.any():
        return "found"
    found, truth = found[counts], truth[counts]
    classes = [one for one in np.union1d(found, truth).tolist() if one != _NOTHING]
    shares = [((found == one) & (truth == one)).sum() / ((found == one) | (truth == one)).sum() for one in classes]
    return f"found: {(found == truth).mean():.0%} right, IoU {np.mean(shares):.2f}".replace("%", " %")


def _add_legend(
    figure: Figure, colours: dict[int, tuple[float, float, float]], classes: list[str] | None, ignore: int | None
) -> None:
    from matplotlib.patches import Patch

    special = {ignore: f"{ignore}: does not count", _NOTHING: "not finite"}
    handles = [
        Patch(color=colour, label=special[value] if value in special else class_name(value, classes))
        for value, colour in list(colours.items())[:LEGEND]
    ]
    if len(colours) > LEGEND:
        handles.append(Patch(alpha=0, label=f"… and {len(colours) - LEGEND} more"))
    if handles:
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)
