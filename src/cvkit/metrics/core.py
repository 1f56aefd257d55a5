"""What a metric is, the registry of metrics by name, and the mean of a value.

A metric is any object with ``update(outputs, targets)``, ``compute()`` and ``reset()`` (torchmetrics objects fit as they
are).
On several processes it needs ``state_dict()`` and ``merge(states)`` as well: :class:`Mean` shows both. What it computes is
logged under its ``name`` (or its class's, in snake case), once for training and once for validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from cvkit.metrics.async_scalars import WeightedSum, merged_sums
from cvkit.registry import Registry

__all__ = ["Mean", "Metric", "metric_name", "metrics", "register"]


@runtime_checkable
class Metric(Protocol):
    """What ``fit`` asks of a metric."""

    def update(self, outputs: Tensor, targets: Tensor) -> Any:
        """Takes in one batch: ``outputs`` detached, both on the device."""

    def compute(self) -> Any:
        """Returns the value over everything since ``reset``: a number, a scalar tensor, or a dict of these."""

    def reset(self) -> Any:
        """Forgets everything."""


metrics: Registry[Any] = Registry("metric")
"""Metric classes by name."""

T = TypeVar("T")


def register(name: str) -> Callable[[T], T]:
    """Returns a decorator that files a metric class under a name, for ``fit(metrics="name")``; it is built without arguments.

    Args:
        name: The name.

    Raises:
        ArgumentError: The name is taken by something else.
    """
    file: Callable[[T], T] = metrics.register(name)
    return file


@metrics.register("mean")
class Mean:
    """The mean of a value computed from each batch, weighted by samples.

    Args:
        function: ``(outputs, targets) -> scalar`` mean over the batch. By default the outputs' own mean.
        name: The name it is logged under.
        higher_is_better: Which direction is an improvement, for callbacks that monitor it.
    """

    def __init__(
        self,
        function: Any = None,
        *,
        name: str = "mean",
        higher_is_better: bool | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.higher_is_better = higher_is_better
        self.running_sum = WeightedSum()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch ``(N, …)``."""
        value = outputs.float().mean() if self.function is None else self.function(outputs, targets)
        self.running_sum.add(value.detach(), outputs.shape[0], outputs.shape[0])

    def compute(self) -> float:
        """Returns the mean over all samples; waits for the device."""
        self.running_sum.wait_for_all()
        return self.running_sum.mean

    def reset(self) -> None:
        """Forgets everything."""
        self.running_sum.reset()

    def state_dict(self) -> dict[str, Any]:
        """Returns the running sums."""
        return self.running_sum.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved sums."""
        self.running_sum.load_state_dict(state)

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Becomes what has seen everything that the metrics of these states have, in their order."""
        self.load_state_dict(merged_sums(states))


def metric_name(metric: object) -> str:
    """Returns the name that a metric is logged under: its own ``name``, or its class's in snake case."""
    name = getattr(metric, "name", None)
    if isinstance(name, str):
        return name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
