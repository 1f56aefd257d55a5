"""Metrics: updated on the device, read rarely, summed exactly.

A metric is any object with ``update(outputs, targets)``, ``compute()`` and ``reset()`` (torchmetrics objects fit as they
are). What it computes is logged under its ``name`` (or its class's, in snake case), once for training and once for validation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from cvkit.errors import ArgumentError
from cvkit.registry import Registry
from cvkit.training.losses import IGNORED, Loss

__all__ = ["Accuracy", "Later", "Mean", "Meters", "Metric", "Tally", "metric_name", "metrics", "resolve_metrics"]


@runtime_checkable
class Metric(Protocol):
    """What ``fit`` asks of a metric."""

    def update(self, outputs: Tensor, targets: Tensor) -> Any:
        """Takes in one batch: ``outputs`` detached, both on the device."""

    def compute(self) -> Any:
        """Returns the value over everything since ``reset``: a number, a scalar tensor, or a dict of these."""

    def reset(self) -> Any:
        """Forgets everything."""


Metrics: TypeAlias = "str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None"

metrics: Registry[Any] = Registry("metric")
"""Metric classes by name."""


class Tally:
    """A sum of device scalars that nobody waits for.

    ``add`` only files the tensor away. Every 64 of them are stacked and sent to the host in one asynchronous copy, and
    added up there in order and in double precision: no step waits for the device, no precision is lost over a
    long epoch, and the result does not depend on when somebody looked.
    """

    BLOCK = 64

    __slots__ = ("_pending", "_sent", "count", "first_nonfinite", "total", "weight")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.total: float = 0
        self.weight: float = 0
        self.count = 0
        self.first_nonfinite: int | None = None
        self._pending: list[tuple[Tensor, float, Tensor | float]] = []
        self._sent: list[tuple[list[_Readback], list[tuple[Tensor, float, Tensor | float]]]] = []

    def add(self, value: Tensor, scale: float, weight: float) -> None:
        """Adds ``value * scale`` to the total and ``weight`` to the weight.

        Args:
            value: A detached scalar on any device.
            scale: What it is multiplied by, on the host.
            weight: What the mean is divided by, e.g. the number of samples.
        """
        self._file(value, scale, weight)

    def add_mean(self, value: Tensor, weight: Tensor | float) -> None:
        """Adds the mean of a batch, by what it counts for.

        Args:
            value: A detached scalar on any device.
            weight: What the batch counts for, on the host, or a scalar on the same device. Where it is 0, whatever the value
                is counts nothing: of a batch without a target that counts, the mean is a NaN that says nothing.
        """
        self._file(value, 1.0 if isinstance(weight, Tensor) else weight, weight)

    def _file(self, value: Tensor, scale: float, weight: Tensor | float) -> None:
        self._pending.append((value, scale, weight))
        if len(self._pending) >= self.BLOCK:
            self.ship()

    def ship(self) -> None:
        """Starts the way of what is pending to the host, and takes in what has arrived there; never waits."""
        if self._pending:
            columns = (
                [value for value, _, _ in self._pending],
                [w for _, _, w in self._pending if isinstance(w, Tensor)],
            )
            self._sent.append(([_Readback(torch.stack(column)) for column in columns if column], self._pending))
            self._pending = []
        self._collect(wait=False)

    def drain(self) -> None:
        """Takes in everything; waits for the device."""
        self.ship()
        self._collect(wait=True)

    def _collect(self, *, wait: bool) -> None:
        while self._sent and (wait or all(readback.arrived() for readback in self._sent[0][0])):
            (values, *others), entries = self._sent.pop(0)
            weights = iter(others[0].values() if others else ())
            for value, (_, scale, weight) in zip(values.values(), entries, strict=True):
                if isinstance(weight, Tensor):
                    scale = weight = next(weights)
                    if weight == 0:
                        value = 0.0
                self.total += value * scale
                self.weight += weight
                if self.first_nonfinite is None and not math.isfinite(value):
                    self.first_nonfinite = self.count
                self.count += 1

    @property
    def mean(self) -> float:
        """The mean of what has arrived on the host so far; NaN before anything has."""
        return self.total / self.weight if self.weight else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums, as plain numbers; waits for the device."""
        self.drain()
        return {
            "total": self.total,
            "weight": self.weight,
            "count": self.count,
            "first_nonfinite": self.first_nonfinite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the sums of :meth:`state_dict`."""
        self.reset()
        self.total, self.weight, self.count = state["total"], state["weight"], state["count"]
        self.first_nonfinite = state["first_nonfinite"]


class _Readback:
    """A tensor on its way to the host."""

    __slots__ = ("_event", "_host")

    def __init__(self, block: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if block.is_cuda:
            self._host = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
            self._host.copy_(block, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(block.device))
        else:
            self._host = block.cpu()

    def arrived(self) -> bool:
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def values(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._host.tolist()
        return values


class Later:
    """Device scalars to be read later, each with something to remember it by; never waits unless asked to."""

    def __init__(self) -> None:
        self._sent: list[tuple[Any, _Readback]] = []

    def put(self, key: Any, value: Tensor) -> None:
        """Sends a detached scalar on its way to the host."""
        self._sent.append((key, _Readback(value.reshape(1))))

    def arrived(self) -> list[tuple[Any, float]]:
        """Returns, in order, the keys and values that have arrived by now."""
        count = next((i for i, (_, readback) in enumerate(self._sent) if not readback.arrived()), len(self._sent))
        ready, self._sent = self._sent[:count], self._sent[count:]
        return [(key, readback.values()[0]) for key, readback in ready]

    def all(self) -> list[tuple[Any, float]]:
        """Returns all of them; waits for the device."""
        ready, self._sent = self._sent, []
        return [(key, readback.values()[0]) for key, readback in ready]


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
        self.tally = Tally()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch ``(N, …)``."""
        value = outputs.float().mean() if self.function is None else self.function(outputs, targets)
        self.tally.add(value.detach(), outputs.shape[0], outputs.shape[0])

    def compute(self) -> float:
        """Returns the mean over all samples; waits for the device."""
        self.tally.drain()
        return self.tally.mean

    def reset(self) -> None:
        """Forgets everything."""
        self.tally.reset()

    def state_dict(self) -> dict[str, Any]:
        """Returns the running sums."""
        return self.tally.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved sums."""
        self.tally.load_state_dict(state)


@metrics.register("accuracy")
class Accuracy:
    """The share of right predictions, as whole numbers until the last division.

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
        self.tally = Tally()
        self.counted = Tally()

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
            self.tally.add(right.sum(), 1, targets.numel())
        else:
            counted = targets != ignored
            self.counted.add(counted.sum(), 1, 0)
            self.tally.add((right & counted).sum(), 1, 0)

    def compute(self) -> float:
        """Returns the share of right predictions; waits for the device."""
        self.tally.drain()
        self.counted.drain()
        count = self.tally.weight + self.counted.total
        return self.tally.total / count if count else math.nan

    def reset(self) -> None:
        """Forgets everything."""
        self.tally.reset()
        self.counted.reset()

    def state_dict(self) -> dict[str, Any]:
        """Returns the running counts."""
        return {"right": self.tally.state_dict(), "counted": self.counted.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved counts."""
        self.tally.load_state_dict(state["right"])
        self.counted.load_state_dict(state["counted"])


def metric_name(metric: object) -> str:
    """Returns the name that a metric is logged under: its own ``name``, or its class's in snake case."""
    name = getattr(metric, "name", None)
    if isinstance(name, str):
        return name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()


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
    """Builds a metric that judges as a loss does: by its threshold, and without what it leaves out."""
    kind = metrics.get(name)
    if name not in _JUDGES:
        made: Metric = kind()
        return made
    judge: Metric = kind(
        threshold=loss.threshold, ignore_index=None if loss.ignore_index == IGNORED else loss.ignore_index
    )
    return judge


_JUDGES = ("accuracy", "dice", "iou")


class Meters:
    """The loss and the metrics of one phase, training or validation.

    Args:
        metrics: Metrics by name.
    """

    __slots__ = ("losses", "metrics")

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.losses = Tally()
        self.metrics = dict(metrics)

    def reset(self) -> None:
        """Forgets everything."""
        self.losses.reset()
        for metric in self.metrics.values():
            metric.reset()

    def values(self) -> dict[str, float]:
        """Returns the mean loss and every metric as plain numbers; waits for the device."""
        self.losses.drain()
        return {"loss": self.losses.mean, **_computed(self.metrics)}


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
