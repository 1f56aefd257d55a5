"""Device scalars on their way to the host: nobody waits for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cvkit import streams
from cvkit.streams import Moment

__all__ = ["AsyncScalars", "WeightedSum", "merged_counts", "merged_sums"]


class WeightedSum:
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
            self.send()

    def send(self) -> None:
        """Starts the way of what is pending to the host, and takes in what has arrived there; never waits."""
        if self._pending:
            columns = (
                [value for value, _, _ in self._pending],
                [w for _, _, w in self._pending if isinstance(w, Tensor)],
            )
            self._sent.append(([_Readback(torch.stack(column)) for column in columns if column], self._pending))
            self._pending = []
        self._collect(wait=False)

    def wait_for_all(self) -> None:
        """Takes in everything; waits for the device."""
        self.send()
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
        self.wait_for_all()
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


def merged_sums(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the state of one :class:`WeightedSum` that has summed what several have, in their order."""
    total, weight, count, first = 0.0, 0.0, 0, None
    for state in states:
        if first is None and state["first_nonfinite"] is not None:
            first = count + state["first_nonfinite"]
        total, weight, count = total + state["total"], weight + state["weight"], count + state["count"]
    return {"total": total, "weight": weight, "count": count, "first_nonfinite": first}


def merged_counts(states: Sequence[Mapping[str, Any]], key: str) -> Tensor | None:
    """Returns the sum of a tensor over the states that hold it; ``None`` where none does."""
    found = [state[key].cpu() for state in states if key in state]
    return torch.stack(found).sum(0) if found else None


class _Readback:
    """A tensor on its way to the host."""

    __slots__ = ("_host", "_moment")

    def __init__(self, block: Tensor) -> None:
        self._moment: Moment | None = None
        if block.device.type == "cpu":
            self._host = block
        else:
            queues = streams.of(block.device)
            self._host = queues.fetch(block, queues.buffer(block))
            self._moment = queues.moment()

    def arrived(self) -> bool:
        return self._moment is None or self._moment.passed()

    def values(self) -> list[float]:
        if self._moment is not None:
            self._moment.wait()
        values: list[float] = self._host.tolist()
        return values


class AsyncScalars:
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
