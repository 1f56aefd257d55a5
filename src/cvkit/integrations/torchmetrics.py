"""``"auroc"`` and ``"average_precision"`` by name, computed by torchmetrics, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from cvkit.errors import MissingDependencyError
from cvkit.outputs import OutputSpec, probabilities_of
from cvkit.registry import metric_libraries

__all__ = ["RankingMetric"]


class RankingMetric:
    """A score of how outputs rank the samples: it needs all of them, so it keeps probabilities and targets of the epoch.

    They go into a checkpoint, so a run is continued exactly; the score is that of all samples at once, without thresholds.

    Args:
        name: ``"auroc"`` or ``"average_precision"``.
        spec: What the outputs are; logits of classes by default.

    Raises:
        MissingDependencyError: torchmetrics is not installed.
    """

    higher_is_better = True

    def __init__(self, name: Literal["auroc", "average_precision"], spec: OutputSpec | None = None) -> None:
        self.name = name
        self.spec = spec if spec is not None and spec.task is not None else OutputSpec("classification", "softmax")
        self.chances: list[Tensor] = []
        self.targets: list[Tensor] = []
        _library(name)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch of outputs ``(N, C)``, ``(N, 1)`` or ``(N,)`` and their targets."""
        several = outputs.ndim > 1 and outputs.shape[1] > 1 and outputs.shape == targets.shape
        labels = several and self.spec.task in ("binary", "multilabel")
        spec = OutputSpec("multilabel", self.spec.activation) if labels else self.spec
        self.chances.append(probabilities_of(outputs.detach().float(), spec))
        self.targets.append(targets.long() if labels else targets.argmax(1) if several else targets.long().flatten())

    def compute(self) -> float:
        """Returns the score, the mean over classes or labels; waits for the device."""
        functions = _library(self.name)
        chances, targets = torch.cat(self.chances), torch.cat(self.targets)
        count = chances.shape[1]
        if targets.ndim > 1:
            return float(getattr(functions, f"multilabel_{self.name}")(chances, targets, num_labels=count))
        if count == 2:
            return float(getattr(functions, f"binary_{self.name}")(chances[:, 1], targets))
        return float(getattr(functions, f"multiclass_{self.name}")(chances, targets, num_classes=count))

    def reset(self) -> None:
        """Forgets everything."""
        self.chances, self.targets = [], []

    def state_dict(self) -> dict[str, Any]:
        """Returns what was taken in."""
        return {"chances": list(self.chances), "targets": list(self.targets)} if self.chances else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what was saved."""
        self.chances, self.targets = list(state.get("chances", [])), list(state.get("targets", []))


def _library(name: str) -> Any:
    try:
        from torchmetrics.functional import classification
    except ImportError as error:
        raise MissingDependencyError(
            f"the metric {name!r} needs torchmetrics",
            got=str(error),
            expected="the package torchmetrics",
            fix="pip install 'cvkit[metrics]'",
        ) from error
    return classification


@metric_libraries.register("auroc")
def _auroc(spec: OutputSpec) -> RankingMetric:
    return RankingMetric("auroc", spec)


@metric_libraries.register("average_precision")
def _average_precision(spec: OutputSpec) -> RankingMetric:
    return RankingMetric("average_precision", spec)
