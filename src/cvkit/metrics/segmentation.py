"""Metrics of segmentation: how far predicted and true regions overlap."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from cvkit.errors import ArgumentError
from cvkit.losses import IGNORED
from cvkit.metrics.async_scalars import merged_counts
from cvkit.metrics.core import metrics

__all__ = ["Dice", "IoU"]


class _Overlap(ABC):
    """Counts pixels by class, as integers on the device.

    Args:
        classes: The classes that count in the mean; all of them by default.
        ignore_index: A target value that does not count; -100 by default, as in torch's losses.
        threshold: The decision threshold for a single output: 0 for logits, 0.5 for probabilities.
    """

    name: ClassVar[str]
    higher_is_better = True

    def __init__(
        self, *, classes: Sequence[int] | None = None, ignore_index: int | None = None, threshold: float = 0.0
    ) -> None:
        if classes is not None and (not list(classes) or any(one < 0 for one in classes)):
            raise ArgumentError(
                f"{type(self).__name__}: classes cannot be used",
                got=repr(classes),
                expected="indices of classes, 0 or more, at least one",
                fix="leave it out to count all classes",
            )
        self.classes = None if classes is None else [int(one) for one in classes]
        self.ignore_index = IGNORED if ignore_index is None else ignore_index
        self.threshold = threshold
        self.counts: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch.

        Args:
            outputs: ``(N, C, …)``, compared by the largest class; or ``(N, 1, …)`` or ``(N, …)``, compared with ``threshold``.
            targets: Classes ``(N, …)``, or one channel for each class ``(N, C, …)``.

        Raises:
            ArgumentError: A class in ``classes`` that the outputs do not have.
        """
        if outputs.ndim > 1 and outputs.shape[1] > 1 and outputs.shape != targets.shape:
            predicted, indices = outputs.argmax(1), range(outputs.shape[1])
        elif outputs.ndim > 1 and outputs.shape[1] > 1:
            predicted, targets, indices = outputs.argmax(1), targets.argmax(1), range(outputs.shape[1])
        else:
            predicted, indices = (outputs > self.threshold).long().reshape(targets.shape), range(1, 2)
        if self.classes is not None and max(self.classes) >= indices.stop:
            raise ArgumentError(
                f"{type(self).__name__} was asked for a class that is not there",
                got=f"classes={self.classes}, outputs of {indices.stop} classes",
                expected=f"classes from 0 to {indices.stop - 1}",
                fix="leave the others out",
            )
        known = targets != self.ignore_index
        rows = []
        for index in indices if self.classes is None else self.classes:
            said, true = (predicted == index) & known, (targets == index) & known
            rows.append(torch.stack([(said & true).sum(), said.sum(), true.sum()]))
        seen = torch.stack(rows)  # comparisons, and no bincount: that would wait for the device
        self.counts = seen if self.counts is None else self.counts.to(seen.device) + seen

    def compute(self) -> float:
        """Returns the mean over the classes that occur, in the predictions or the truth; waits for the device."""
        counts = [] if self.counts is None else self.counts.tolist()
        values = [self._of(both, said, true) for both, said, true in counts if said + true]
        return sum(values) / len(values) if values else math.nan

    @staticmethod
    @abstractmethod
    def _of(both: int, said: int, true: int) -> float:
        """Returns the score of one class from its pixels: in both, in the predictions, in the truth."""

    def reset(self) -> None:
        """Forgets everything."""
        self.counts = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the running counts."""
        return {} if self.counts is None else {"counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved counts."""
        self.counts = state.get("counts")

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Becomes what has counted everything that the metrics of these states have."""
        self.counts = merged_counts(states, "counts")


@metrics.register("dice")
class Dice(_Overlap):
    """The Dice coefficient ``2 |P and T| / (|P| + |T|)`` of each class over all pixels of the data, then the mean over classes.

    For a single output it is that of the foreground. Classes that occur in neither predictions nor truth do not count.
    Source: Dice, Measures of the Amount of Ecologic Association Between Species, 1945.
    """

    name = "dice"

    @staticmethod
    def _of(both: int, said: int, true: int) -> float:
        return 2 * both / (said + true)


@metrics.register("iou")
class IoU(_Overlap):
    """Intersection over union ``|P and T| / |P or T|`` of each class over all pixels of the data, then the mean over classes.

    For a single output it is that of the foreground. Classes that occur in neither predictions nor truth do not count.
    Source: Jaccard, The Distribution of the Flora in the Alpine Zone, 1912.
    """

    name = "iou"

    @staticmethod
    def _of(both: int, said: int, true: int) -> float:
        return both / (said + true - both)
