"""Watching one logged value: which way is better, and whether it has improved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from cvkit.errors import ArgumentError, unknown_name
from cvkit.training.state import TrainState

__all__ = ["Monitor"]


class Monitor:
    """The best value of a logged name so far.

    Args:
        name: The logged name.
        mode: ``"min"`` or ``"max"``; ``None`` asks the metric.
        min_delta: By how much a value must be better to count.

    Attributes:
        best: The best value so far; infinitely bad before there is one.
    """

    def __init__(self, name: str, mode: Literal["min", "max"] | None = None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ArgumentError(
                "mode cannot be used", got=repr(mode), expected='"min", "max" or None', fix="leave it out"
            )
        self.name = name
        self.mode = self._given = mode
        self.min_delta = min_delta
        self.best = math.inf

    def must_match(self) -> dict[str, str]:
        """Returns what a continued run must share, or its best value is of something else; a mode where one was given."""
        return {"monitor": self.name} | ({"mode": self._given} if self._given is not None else {})

    def check(self, state: TrainState) -> None:
        """Makes sure, before training, that the value will be logged and which way is better.

        Raises:
            UnknownNameError: It will never be logged.
            ArgumentError: The metric does not say which way is better.
        """
        if self.name not in state.log_names:
            missing_val = self.name.startswith("val_") and state.val is None
            if missing_val:
                raise ArgumentError(
                    f"monitor={self.name!r} will never be logged",
                    got="fit without val",
                    expected=f"one of: {', '.join(state.log_names)}",
                    fix=f"pass val to fit, or monitor={self.name.replace('val_', 'train_', 1)!r}, or monitor=None",
                )
            error = unknown_name("logged value for monitor", self.name, state.log_names)
            error.add_note('Your own callback that logs it says so by an attribute: logs = ("name",).')
            raise error
        if self.mode is None:
            self.mode = self._ask(state)
        if state.step == 0 or not math.isfinite(self.best):  # a callback that is used again begins anew
            self.best = math.inf if self.mode == "min" else -math.inf

    def _ask(self, state: TrainState) -> Literal["min", "max"]:
        kind = self.name.removeprefix("train_").removeprefix("val_")
        higher = (
            False if kind == "loss" else getattr(state.engine.train_meters.metrics.get(kind), "higher_is_better", None)
        )
        if higher is None:
            raise ArgumentError(
                f"which way {self.name} is better is not known",
                got="mode=None, and the metric has no higher_is_better",
                expected='mode="min" or mode="max"',
                fix=f'pass monitor={self.name!r}, mode="max"',
            )
        return "max" if higher else "min"

    def improved(self, logs: Mapping[str, float]) -> bool:
        """Takes in an epoch's row; returns whether its value is the best so far. A value that is not finite never is.

        Raises:
            ArgumentError: The value is not there: the callback that logs it comes later, or has not done so.
        """
        if self.name not in logs:
            raise ArgumentError(
                f"monitor={self.name!r} is not in the epoch's row",
                got=", ".join(logs),
                expected="a value that is logged before it is looked at",
                fix="list the callback that logs it before this one, and have it log in every epoch",
            )
        value = logs[self.name]
        better = value < self.best - self.min_delta if self.mode == "min" else value > self.best + self.min_delta
        if math.isfinite(value) and better:
            self.best = value
            return True
        return False
