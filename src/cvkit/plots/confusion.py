"""``confusion_matrix``: which classes a model takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.figures import new_figure, shorten
from cvkit.inference import Predictor
from cvkit.plots.captions import find_classes
from cvkit.plots.images import Batch
from cvkit.plots.model_outputs import inference_function, iterate_epoch
from cvkit.training.runtime import Precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix"]

Counts = NDArray[np.int64]

WRITTEN = 20
"""Classes up to which every count is written into its cell."""
TICKS = 60
"""Names on an axis, beyond which they are thinned out."""
LISTED = 12
"""Confusions that are listed beside a matrix whose counts are not written."""


def confusion_matrix(
    predicted: nn.Module | Predictor | Tensor | Any,
    truth: Any = None,
    *,
    classes: Sequence[str] | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Figure:
    """Draws how often each class (rows) is taken for which (columns).

    The colour is the share of its row, so that rare classes are seen as well as frequent ones; the numbers are counts.
    Of more than 20 classes, the numbers give way to a list of the most frequent confusions. A class without samples has
    an empty row.

    Args:
        predicted: A module or predictor, with a loader as ``truth``; or outputs ``(N, C)`` or classes ``(N,)`` of as
            many samples, with their classes as ``truth``; or the matrix of counts itself, ``(C, C)``, or a metric that
            computes it.
        truth: What is so: a loader, which is iterated once and stays where it is, or classes ``(N,)``. Negative ones do
            not count.
        classes: The class names; by default the predictor's or the loader's.
        device: For a module: ``"auto"`` or a device.
        precision: For a module: as in :func:`cvkit.fit`.

    Raises:
        ArgumentError: Nothing to count, or classes that do not fit each other.
        MissingDependencyError: matplotlib is not installed.
    """
    holder = predicted if isinstance(predicted, Predictor) else truth
    names = find_classes(None if isinstance(holder, Tensor | np.ndarray | list) else holder, classes)
    if isinstance(predicted, nn.Module | Predictor) and truth is not None:
        counts = _of_model(predicted, truth, names, device, precision)
    elif truth is not None:
        counts = _count(_indices("predicted", predicted), _indices("truth", truth), len(names) if names else 0)
    else:
        counts = _given(predicted)
    if names is not None and len(names) != len(counts):
        raise _unfit(f"{len(names)} class names", f"a matrix of {len(counts)} classes")
    names = names or [str(index) for index in range(len(counts))]
    listed = len(counts) > WRITTEN
    side = min(max(0.42 * len(counts) + 1.6, 3.6), 9.0)
    figure = new_figure(side + (3.2 if listed else 0.6), side)
    places = figure.add_gridspec(1, 2, width_ratios=[side, 3.2]) if listed else [111]
    _draw(figure.add_subplot(places[0]), counts, names)
    if listed:
        _list(figure.add_subplot(places[1]), counts, names)
    right, total = int(counts.trace()), int(counts.sum())
    figure.suptitle(f"{right:,} of {total:,} right ({right / total:.1%})".replace("%", " %"), fontsize=11)
    return figure


def _unfit(got: str, expected: str) -> ArgumentError:
    return ArgumentError(
        "the confusion matrix does not fit its classes",
        got=got,
        expected=expected,
        fix="pass the names of all classes, in the order of the model's outputs: classes=train.classes",
    )


def _of_model(
    model: Any, loader: Any, names: list[str] | None, device: str | torch.device, precision: Precision
) -> Counts:
    said, so, outputs = [], [], 1
    with inference_function(model, device, precision) as infer:
        for batch, _ in iterate_epoch(loader):
            scores = infer(batch.inputs)
            outputs = scores.shape[1] if scores.ndim > 1 else 1
            said.append(_indices("the model's outputs", scores))
            so.append(_indices("the targets", _targets(batch)))
    return _count(np.concatenate(said), np.concatenate(so), max(outputs, 2, len(names) if names else 0))


def _targets(batch: Batch) -> Tensor:
    if batch.targets is None:
        raise ArgumentError(
            "there is nothing to compare with",
            got="batches of inputs alone",
            expected="batches (inputs, targets)",
            fix="pass a loader whose dataset has targets",
        )
    return batch.targets


def _indices(name: str, given: Any) -> NDArray[np.int64]:
    """Returns classes ``(N,)`` of classes, of scores ``(N, C)``, or of one logit a sample."""
    values = torch.as_tensor(given).detach().cpu()
    if values.ndim == 2 and values.shape[1] > 1:
        values = values.argmax(1)
    elif values.is_floating_point() and values.numel() == len(values) and bool((values != values.round()).any()):
        values = values > 0
    values = values.reshape(-1) if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise ArgumentError(
            f"{name} cannot be counted",
            got=f"shape {tuple(values.shape)}",
            expected="classes (N,), or scores (N, C)",
            fix="show masks with show_masks(loader, model)",
        )
    indices: NDArray[np.int64] = values.long().numpy()
    return indices


def _count(said: NDArray[np.int64], so: NDArray[np.int64], classes: int) -> Counts:
    """Counts pairs; what is so may be negative where it does not count."""
    if len(said) != len(so):
        raise ArgumentError(
            "predicted and truth are not of the same samples",
            got=f"{len(said)} and {len(so)} of them",
            expected="as many of both",
            fix="predict in order: cvkit.predict(model, loader) over a loader that does not shuffle",
        )
    said, so = said[so >= 0], so[so >= 0]
    size = max(classes, int(so.max(initial=-1)) + 1, int(said.max(initial=-1)) + 1)
    if classes and size > classes:
        raise _unfit(f"a class {size - 1}", f"classes from 0 to {classes - 1}")
    return _given(np.bincount(so * size + said, minlength=size * size).reshape(size, size))


def _given(matrix: Any) -> Counts:
    """Returns counts as given, checked."""
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    counts = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else np.asarray(matrix)
    whole = counts.dtype.kind in "iu" or (counts.dtype.kind == "f" and bool((counts == counts.round()).all()))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not whole or (counts < 0).any() or not counts.sum():
        raise ArgumentError(
            "there is no confusion matrix to draw",
            got=f"{counts.dtype} {counts.shape}" + (", all zero" if counts.size and not counts.any() else ""),
            expected="counts (C, C), rows the truth; or a model and a loader; or predictions and truth",
            fix="confusion_matrix(model, loader)",
        )
    return counts.astype(np.int64)


def _draw(axes: Axes, counts: Counts, names: list[str]) -> None:
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    every = -(-len(names) // TICKS)
    places = list(range(0, len(names), every))
    size = 9 if len(names) <= WRITTEN else max(4, min(8, 300 // len(places)))
    shown = [shorten(names[place], 18) for place in places]
    upright = len(names) > 6 or max(map(len, shown)) > 6
    axes.set_xticks(places, shown, rotation=90 if upright else 0, fontsize=size, parse_math=False)
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    if len(names) > WRITTEN:
        axes.figure.colorbar(image, ax=axes, shrink=0.6, label="share of the row")
        return
    for row, column in np.argwhere(counts > 0).tolist():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8, color=colour)


def _list(axes: Axes, counts: Counts, names: list[str]) -> None:
    """Writes the most frequent confusions."""
    axes.set_axis_off()
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    lines = []
    for row, column in zip(*np.unravel_index(order, counts.shape), strict=True):
        if wrong[row, column]:
            pair = f"{shorten(names[row], 18)} → {shorten(names[column], 18)}"
            lines.append(f"{wrong[row, column]:,} × {pair}")
    text = "most frequent confusions\n(truth → predicted)\n\n" + ("\n".join(lines) or "none")
    axes.text(0, 1, text, va="top", fontsize=8, linespacing=1.5, transform=axes.transAxes, parse_math=False)
