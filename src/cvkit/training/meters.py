"""Loss and metrics of a phase: from what ``fit`` was given to the numbers of a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cvkit.errors import ArgumentError, unknown_name
from cvkit.losses import IGNORED, Loss
from cvkit.metrics.async_scalars import WeightedSum
from cvkit.metrics.classification import TopK
from cvkit.metrics.core import Metric, metric_name, metrics
from cvkit.registry import metric_libraries
from cvkit.training.reduction import merged

__all__ = ["Meters", "resolve_metrics"]


Metrics: TypeAlias = "str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None"


def resolve_metrics(given: Metrics, loss: Loss, *, own_step: bool) -> dict[str, Metric]:
    """Turns what ``fit`` got as ``metrics`` into metrics by name.

    ``None`` means accuracy for a classification loss, and nothing when the user's own step decides what is computed.

    Raises:
        UnknownNameError: A name that is not known.
        ArgumentError: An object that is no metric, or two metrics of one name.
    """
    if given is None:
        return {"accuracy": _of_loss("accuracy", loss)} if loss.classification and not own_step else {}
    if isinstance(given, Mapping):
        named: list[tuple[str, str | Metric]] = list(given.items())
    else:
        several = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
        named = [(one if isinstance(one, str) else metric_name(one), one) for one in several]
    found: dict[str, Metric] = {}
    for name, one in named:
        if isinstance(one, str):
            one = _of_loss(one, loss)
        if isinstance(one, type) or not isinstance(one, Metric):
            raise ArgumentError(
                f"the metric {name!r} cannot be used",
                got=f"the class {one.__name__}" if isinstance(one, type) else repr(one),
                expected="a name, or an object with update(outputs, targets), compute() and reset()",
                fix=f"pass {one.__name__}(), an instance" if isinstance(one, type) else "give it these three methods",
            )
        if name in found or name == "loss":
            raise ArgumentError(
                f"two metrics are called {name!r}",
                expected="one metric a name; 'loss' is logged already",
                fix='name them: metrics={"one": …, "other": …}',
            )
        found[name] = one
    return found


def _of_loss(name: str, loss: Loss) -> Metric:
    """Builds a metric that judges as a loss does: by its threshold, and without what it leaves out.

    Raises:
        UnknownNameError: A name that is not known.
        MissingDependencyError: The metric is of a library that is not installed.
    """
    ignored = None if loss.ignore_index == IGNORED else loss.ignore_index
    made: Metric
    if name in metric_libraries:
        made = metric_libraries.get(name)(loss.spec)
    elif (top := re.fullmatch(r"top([1-9]\d*)", name)) is not None:
        made = TopK(int(top[1]), ignore_index=ignored)
    elif name not in metrics:
        raise unknown_name("metric", name, {*metrics.names(), *metric_libraries.names()})
    elif name in _JUDGES:
        made = metrics.get(name)(threshold=loss.spec.threshold, ignore_index=ignored)
    elif name in _SCORES:
        several = loss.spec.task in ("binary", "multilabel")
        made = metrics.get(name)(threshold=loss.spec.threshold, ignore_index=ignored, multilabel=several)
    elif name == "ece":
        made = metrics.get(name)(spec=loss.spec if loss.spec.task is not None else None)
    else:
        made = metrics.get(name)()
    return made


_JUDGES = ("accuracy", "dice", "iou")
_SCORES = ("precision", "recall", "f1", "class_accuracy")


class Meters:
    """The loss and the metrics of one phase, training or validation.

    Args:
        metrics: Metrics by name.
    """

    __slots__ = ("losses", "metrics")

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.losses = WeightedSum()
        self.metrics = dict(metrics)

    def reset(self) -> None:
        """Forgets everything."""
        self.losses.reset()
        for metric in self.metrics.values():
            metric.reset()

    def values(self) -> dict[str, float]:
        """Returns the mean loss and every metric as plain numbers; waits for the device."""
        self.losses.wait_for_all()
        return {"loss": self.losses.mean, **_computed(merged(self.metrics))}


def _computed(found: Mapping[str, Metric]) -> dict[str, float]:
    """Computes metrics into plain numbers; a metric that computes a dict gives one entry for each of its keys."""
    values: dict[str, float] = {}
    for name, metric in found.items():
        value = metric.compute()
        if isinstance(value, Mapping):
            values.update({f"{name}_{key}": float(one) for key, one in value.items()})
        else:
            values[name] = float(value)
    return values
