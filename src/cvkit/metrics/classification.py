"""Metrics of classification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError
from cvkit.losses import IGNORED
from cvkit.metrics.async_scalars import WeightedSum, merged_counts, merged_sums
from cvkit.metrics.core import metrics

__all__ = ["Accuracy", "TopK"]


@metrics.register("accuracy")
class Accuracy:
    """The share of right predictions, as integers until the last division.

    Outputs ``(N, C, …)`` are compared by their largest class with targets ``(N, …)``, or with soft targets
    ``(N, C, …)`` by theirs. Outputs ``(N,)`` or ``(N, 1)`` are one logit a sample, compared with ``threshold``.

    Args:
        threshold: The decision threshold for a single output: 0 for logits, 0.5 for probabilities.
        ignore_index: A target value that does not count. Of targets of more than one dimension, as masks, -100 does not count
            unless another is given, as in torch's losses.
    """

    name = "accuracy"
    higher_is_better = True

    def __init__(self, *, threshold: float = 0.0, ignore_index: int | None = None) -> None:
        self.threshold = threshold
        self.ignore_index = ignore_index
        self.running_sum = WeightedSum()
        self.counted = WeightedSum()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch of ``N`` samples."""
        if outputs.ndim > 1 and outputs.shape[1] > 1:
            predicted = outputs.argmax(1)
            if targets.ndim == outputs.ndim:
                targets = targets.argmax(1)
        else:
            predicted = (outputs > self.threshold).reshape(targets.shape)
        right = predicted == targets
        ignored = self.ignore_index
        if ignored is None and targets.ndim > 1 and not targets.is_floating_point():
            ignored = IGNORED
        if ignored is None:
            self.running_sum.add(right.sum(), 1, targets.numel())
        else:
            counted = targets != ignored
            self.counted.add(counted.sum(), 1, 0)
            self.running_sum.add((right & counted).sum(), 1, 0)

    def compute(self) -> float:
        """Returns the share of right predictions; waits for the device."""
        self.running_sum.wait_for_all()
        self.counted.wait_for_all()
        count = self.running_sum.weight + self.counted.total
        return self.running_sum.total / count if count else math.nan

    def reset(self) -> None:
        """Forgets everything."""
        self.running_sum.reset()
        self.counted.reset()

    def state_dict(self) -> dict[str, Any]:
        """Returns the running counts."""
        return {"right": self.running_sum.state_dict(), "counted": self.counted.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved counts."""
        self.running_sum.load_state_dict(state["right"])
        self.counted.load_state_dict(state["counted"])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Becomes what has counted everything that the metrics of these states have."""
        self.load_state_dict({name: merged_sums([state[name] for state in states]) for name in ("right", "counted")})


class TopK:
    """The share of samples whose class is among the ``k`` likeliest.

    Args:
        k: How many count; by name ``"top5"``, ``"top3"`` and so on.
        ignore_index: A target value that does not count; -100 by default, as in torch's losses.
    """

    higher_is_better = True

    def __init__(self, k: int = 5, *, ignore_index: int | None = None) -> None:
        check_integer("k", k, fix="pass e.g. k=5")
        self.k = k
        self.name = f"top{k}"
        self.ignore_index = IGNORED if ignore_index is None else ignore_index
        self.counts: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch of outputs ``(N, C, …)`` and classes ``(N, …)``, or shares of classes ``(N, C, …)``.

        Raises:
            ArgumentError: Fewer classes than ``k``.
        """
        if outputs.ndim < 2 or outputs.shape[1] < self.k:
            raise ArgumentError(
                f"the metric {self.name!r} cannot be computed",
                got=f"outputs {tuple(outputs.shape)}",
                expected=f"outputs (N, C, …) of at least {self.k} classes",
                fix="take a smaller number, e.g. TopK(2)",
            )
        truth = targets.argmax(1) if targets.ndim == outputs.ndim else targets
        known = truth != self.ignore_index
        right = (outputs.topk(self.k, 1).indices == truth.unsqueeze(1)).any(1) & known
        seen = torch.stack([right.sum(), known.sum()])
        self.counts = seen if self.counts is None else self.counts.to(seen.device) + seen

    def compute(self) -> float:
        """Returns the share; waits for the device."""
        right, known = (0, 0) if self.counts is None else self.counts.tolist()
        return right / known if known else math.nan

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


metrics.register("top5")(TopK)
