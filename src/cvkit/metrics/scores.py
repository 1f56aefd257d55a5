"""Precision, recall, F1 and the accuracy of each class, from integer counts; for classes, labels and pixels alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cvkit.metrics.core import metrics
from cvkit.metrics.segmentation import _Overlap

__all__ = ["F1", "ClassAccuracy", "Precision", "Recall"]


class _Score(_Overlap):
    """Counts by class, then the mean over the classes that occur in predictions or truth (macro).

    For a single output it is that of the positive class.

    Args:
        classes: The classes that count in the mean; all of them by default.
        ignore_index: A target value that does not count; -100 by default, as in torch's losses.
        threshold: The decision threshold for a single output or a label: 0 for logits, 0.5 for probabilities.
        multilabel: Whether targets ``(N, C)`` say for each label whether it is there, and are no shares of classes.
    """

    def __init__(
        self,
        *,
        classes: Sequence[int] | None = None,
        ignore_index: int | None = None,
        threshold: float = 0.0,
        multilabel: bool = False,
    ) -> None:
        super().__init__(classes=classes, ignore_index=ignore_index, threshold=threshold)
        self.multilabel = multilabel

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch of outputs ``(N, C, …)`` or ``(N,)`` and targets, as :class:`~cvkit.metrics.Dice` does.

        With ``multilabel`` targets are of the outputs' shape, 0 or 1.
        """
        if not (self.multilabel and outputs.ndim > 1 and outputs.shape == targets.shape and outputs.shape[1] > 1):
            super().update(outputs, targets)
            return
        known = targets != self.ignore_index
        said, true = (outputs > self.threshold) & known, (targets > 0.5) & known
        over = tuple(one for one in range(outputs.ndim) if one != 1)
        seen = torch.stack([(said & true).sum(over), said.sum(over), true.sum(over)], 1)
        seen = seen if self.classes is None else seen[self.classes]
        self.counts = seen if self.counts is None else self.counts.to(seen.device) + seen


@metrics.register("precision")
class Precision(_Score):
    """The share of right ones among those that were predicted to be of a class, then the mean over classes."""

    name = "precision"

    @staticmethod
    def _of(both: int, said: int, true: int) -> float:
        return both / said if said else 0.0


@metrics.register("recall")
class Recall(_Score):
    """The share of those of a class that were predicted to be of it, then the mean over classes (balanced accuracy)."""

    name = "recall"

    @staticmethod
    def _of(both: int, said: int, true: int) -> float:
        return both / true if true else 0.0


@metrics.register("f1")
class F1(_Score):
    """The harmonic mean of precision and recall of each class, then the mean over classes.

    Source: van Rijsbergen, Information Retrieval, 1979.
    """

    name = "f1"

    @staticmethod
    def _of(both: int, said: int, true: int) -> float:
        return 2 * both / (said + true)


@metrics.register("class_accuracy")
class ClassAccuracy(_Score):
    """The share of right predictions among the samples of each class; logged as ``class_accuracy_0`` and so on."""

    name = "class_accuracy"

    def compute(self) -> dict[str, float]:  # type: ignore[override]  # a value for each class
        """Returns the share by class, NaN for a class that does not occur; waits for the device."""
        counts = [] if self.counts is None else self.counts.tolist()
        numbers = range(len(counts)) if self.classes is None else self.classes
        return {str(n): self._of(*one) if one[2] else math.nan for n, one in zip(numbers, counts, strict=True)}

    @staticmethod
    def _of(both: int, said: int, true: int) -> float:
        return both / true
