"""What the epochs' own numbers say while a run trains: a loss that stays at chance, explodes, or falls in training alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cvkit.diagnosis.finding import Finding
from cvkit.diagnosis.shapes import number
from cvkit.diagnosis.table import TABLE, announce

__all__ = ["judge"]

announce("CV805", "error", "Out of memory")  # whoever trains says it
announce("CV901", "warning", "The loss stays at chance")
announce("CV902", "warning", "The loss explodes")
announce("CV903", "warning", "The validation loss rises while the training loss falls")
announce("CV904", "warning", "A layer that no gradient reaches any more")  # the callback Watch says it

LEAST_STEPS = 300
"""So many updates are waited for before anything is said of a loss that does not fall."""

GAP = 6
"""In so many epochs in a row the gap must grow."""


def judge(rows: Sequence[Mapping[str, Any]], classes: int | None) -> Iterator[Finding]:
    """Yields what is to be said after an epoch.

    Args:
        rows: The rows of the history so far, the last one of the epoch that has just ended.
        classes: The number of classes of a cross entropy; ``None`` where the loss is another one.
    """
    train = [row["train_loss"] for row in rows if isinstance(row.get("train_loss"), float)]
    if len(train) != len(rows) or not all(map(math.isfinite, train)):
        return
    yield from _at_chance(rows, train, classes)
    yield from _exploded(train)
    yield from _gap(rows, train)


def _find(code: str, what: str, got: str, expected: str, fix: str) -> Finding:
    return Finding(code, TABLE[code].severity, what, got, expected, fix)


def _at_chance(rows: Sequence[Mapping[str, Any]], train: list[float], classes: int | None) -> Iterator[Finding]:
    if classes is None or classes < 2 or len(train) < 2 or rows[-1].get("step", 0) < LEAST_STEPS:
        return
    chance = math.log(classes)
    if all(abs(one - chance) < 0.01 * chance for one in train):
        yield _find(
            "CV901",
            f"after {len(train)} epochs the training loss is still what guessing gives",
            f"train_loss {train[0]:.4f} in the first epoch, {train[-1]:.4f} in the last; ln {classes} is {chance:.4f}",
            "a loss well below chance after the first epoch",
            "look at a few images with their labels (they may not belong together); try 10 times the lr, and cvkit.find_lr",
        )


def _exploded(train: list[float]) -> Iterator[Finding]:
    if len(train) > 1 and train[0] > 0 and train[-1] > 1000 * train[0] and train[-1] > 1000:
        yield _find(
            "CV902",
            "the training loss has exploded",
            f"train_loss {number(train[0])} in the first epoch, {number(train[-1])} in epoch {len(train)}",
            "a loss that falls",
            "a lower lr (cvkit.find_lr suggests one), clip_norm=1.0",
        )


def _gap(rows: Sequence[Mapping[str, Any]], train: list[float]) -> Iterator[Finding]:
    val = [row.get("val_loss") for row in rows]
    if len(rows) <= GAP or rows[-1].get("step", 0) < LEAST_STEPS or not all(isinstance(one, float) for one in val):
        return
    lately: list[float] = [one for one in val[-GAP - 1 :] if isinstance(one, float)]
    falls = all(later < earlier for earlier, later in zip(train[-GAP - 1 :], train[-GAP:], strict=False))
    rises = all(later > earlier for earlier, later in itertools.pairwise(lately))
    if falls and rises and 0 < 1.5 * lately[0] < lately[-1] and train[-1] < lately[0]:
        yield _find(
            "CV903",
            f"for {GAP} epochs the validation loss has risen while the training loss fell: it learns images by heart",
            f"val_loss {number(lately[0])} then and {number(lately[-1])} now; train_loss {number(train[-GAP - 1])} and "
            f"{number(train[-1])}",
            "both fall",
            'more augmentation, weight_decay, a smaller model; Checkpoint(monitor="val_loss") keeps the best',
        )
