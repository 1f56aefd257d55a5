"""What is counted over a whole validation: which class was taken for which, and precision and recall by threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cvkit.callbacks.tensorboard.answers import Answers
from cvkit.callbacks.tensorboard.image_grid import Pixels, font, shortened

__all__ = ["MOST_CURVES", "THRESHOLDS", "Curve", "Scores", "draw_confusion"]

THRESHOLDS = 127
"""Thresholds of a curve; more, and TensorBoard's own format of it breaks."""

MOST_CURVES = 30
"""Classes that get a curve of their own."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at each of :data:`THRESHOLDS` thresholds from 0 to 1.

    Attributes:
        rows: ``(6, THRESHOLDS)``: true positives, false positives, true negatives, false negatives, precision, recall.
    """

    rows: npt.NDArray[np.float64]


class Scores:
    """Counts on the device, batch by batch, and is read once."""

    def __init__(self) -> None:
        self._confusion: Tensor | None = None
        self._buckets: Tensor | None = None
        self.task = ""

    def update(self, answers: Answers) -> None:
        """Takes in one batch; waits for nothing.

        Targets that are no class, such as the 255 of a mask's border, do not count.
        """
        self.task = answers.task
        count = answers.classes
        if answers.task in ("classification", "binary", "segmentation"):
            self._count_classes(answers, count)
        if answers.scores is not None:
            self._count_scores(answers, answers.scores, count)

    def _count_classes(self, answers: Answers, count: int) -> None:
        truth, predicted = answers.truth.reshape(-1), answers.predicted.reshape(-1)
        counted = (truth >= 0) & (truth < count)
        place = truth.clamp(0, count - 1) * count + predicted
        if self._confusion is None:
            self._confusion = torch.zeros(count * count, dtype=torch.int64, device=place.device)
        self._confusion.scatter_add_(0, place, counted.long())

    def _count_scores(self, answers: Answers, scores: Tensor, count: int) -> None:
        """Counts the scores of the right and of the wrong classes into buckets: ``(2, C, THRESHOLDS)``, flat."""
        if answers.task == "multilabel":
            right, counted = answers.truth.bool(), torch.ones_like(answers.truth, dtype=torch.bool)
        else:
            classes = torch.arange(count, device=scores.device)
            right = answers.truth[:, None] == classes
            counted = ((answers.truth >= 0) & (answers.truth < count))[:, None].expand_as(right)
        bucket = (scores.nan_to_num(0.0).clamp(0, 1) * (THRESHOLDS - 1)).floor().long()
        row = (~right).long() * count + torch.arange(count, device=scores.device)
        if self._buckets is None:
            self._buckets = torch.zeros(2 * count * THRESHOLDS, dtype=torch.int64, device=scores.device)
        self._buckets.scatter_add_(0, (row * THRESHOLDS + bucket).reshape(-1), counted.long().reshape(-1))

    def confusion(self) -> Counts | None:
        """Returns ``(C, C)`` counts, a row for each true class; waits for the device."""
        if self._confusion is None:
            return None
        flat: Counts = self._confusion.cpu().numpy()
        side = round(len(flat) ** 0.5)
        return flat.reshape(side, side)

    def curves(self, names: Sequence[str]) -> dict[str, Curve]:
        """Returns a curve over all classes, and one of each for up to :data:`MOST_CURVES`; waits for the device.

        For a binary task that of the second class alone.
        """
        if self._buckets is None:
            return {}
        right, wrong = self._buckets.cpu().numpy().reshape(2, -1, THRESHOLDS)
        if self.task == "binary":
            return {names[1]: _curve(right[1], wrong[1])}
        found = {"all classes": _curve(right.sum(0), wrong.sum(0))}
        if len(right) <= MOST_CURVES:
            found |= {name: _curve(*pair) for name, pair in zip(names, zip(right, wrong, strict=True), strict=True)}
        return found


def _curve(right: Counts, wrong: Counts) -> Curve:
    """Turns counts by bucket into a curve; source: ``tensorboard/plugins/pr_curve/summary.py``."""
    tp = right[::-1].cumsum()[::-1].astype(np.float64)
    fp = wrong[::-1].cumsum()[::-1].astype(np.float64)
    tn, fn = fp[0] - fp, tp[0] - tp
    least = 1e-7
    return Curve(np.stack([tp, fp, tn, fn, tp / np.maximum(least, tp + fp), tp / np.maximum(least, tp + fn)]))


def draw_confusion(counts: Counts, names: Sequence[str]) -> Pixels:
    """Draws a confusion matrix: a row for each true class, a column for each predicted one, the darker the more of a row.

    Args:
        counts: ``(C, C)``.
        names: The name of each class.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    side = len(counts)
    cell = max(1, min(72, 900 // side))
    named, numbered = cell >= 12, cell >= 30
    letters = font(18 if cell >= 56 else 13 if cell >= 18 else 10)
    room = round(max(letters.getlength(shortened(name, letters, 150)) for name in names)) + 12 if named else 8
    top, left = room + 26, room + 28
    canvas = Image.new("RGB", (left + cell * side + 12, top + cell * side + 12), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((left, 4), "predicted", fill=(90, 90, 90), font=font(16))
    _sideways(canvas, "true", (2, top + 2), font(16), fill=(90, 90, 90))
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    for row in range(side):
        for column in range(side):
            corner = (left + column * cell, top + row * cell)
            share = float(shares[row, column])
            draw.rectangle((*corner, corner[0] + cell - 1, corner[1] + cell - 1), fill=_shade(share))
            if numbered and counts[row, column]:
                middle = (corner[0] + cell / 2, corner[1] + cell / 2)
                text = _short_number(int(counts[row, column]))
                draw.text(middle, text, fill="white" if share > 0.5 else "black", font=letters, anchor="mm")
        if named:
            name = shortened(names[row], letters, 150)
            draw.text((left - 6, top + row * cell + cell / 2), name, fill="black", font=letters, anchor="rm")
            middle = left + row * cell + (cell - round(letters.size) - 4) // 2
            _sideways(canvas, name, (middle, top - 6), letters, upwards=True)
    return np.asarray(canvas)


def _shade(share: float) -> tuple[int, int, int]:
    """From nearly white to dark blue."""
    light, dark = (243, 246, 250), (8, 48, 107)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(light, dark, strict=True))
    return red, green, blue


def _short_number(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"


def _sideways(
    canvas: Image.Image,
    text: str,
    place: tuple[int, int],
    letters: Any,
    *,
    upwards: bool = False,
    fill: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Writes from bottom to top; ``place`` is the upper left corner, or the lower left one if ``upwards``."""
    strip = Image.new("RGB", (round(letters.getlength(text)) + 2, round(letters.size) + 6), "white")
    ImageDraw.Draw(strip).text((1, 1), text, fill=fill, font=letters)
    strip = strip.rotate(90, expand=True)
    canvas.paste(strip, (place[0], place[1] - strip.height if upwards else place[1]))
