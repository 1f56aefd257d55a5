"""``EarlyStopping``: ends a run that has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from cvkit.errors import ArgumentError
from cvkit.training.callback import Callback
from cvkit.training.monitor import Monitor
from cvkit.training.state import TrainState

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """Ends the run when a logged value has not improved for some epochs; ``stop_reason`` is ``"early_stopping"``.

    Args:
        monitor: The logged name to watch.
        patience: How many epochs without an improvement are borne; the one after ends the run.
        min_delta: By how much a value must be better to count as an improvement.
        mode: ``"min"`` or ``"max"``; by default as the metric says.

    Raises:
        ArgumentError: A negative number, or, when the run starts, a monitor that will never be logged.
    """

    monitor: Monitor

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        for name, value in (("patience", patience), ("min_delta", min_delta)):
            if not value >= 0:
                raise ArgumentError(
                    f"{name} cannot be used", got=value, expected="at least 0", fix=f"pass {name}=0 or more"
                )
        self.monitor = Monitor(monitor, mode, min_delta)
        self.patience = patience
        self.waited = 0
        self._restored = False

    def on_fit_start(self, state: TrainState) -> None:
        """Checks that what is watched will be logged; a resumed run that was over stays so."""
        if not self._restored:  # what it holds is of another run
            self.monitor.best, self.waited = math.inf, 0
        self._restored = False
        self.monitor.check(state)
        if state.step == 0:
            self.waited = 0
        if self.waited > self.patience:
            state.request_stop("early_stopping", every_rank=True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Counts the epochs without an improvement."""
        self.waited = 0 if self.monitor.improved(state.logs) else self.waited + 1
        if self.waited > self.patience:
            state.request_stop("early_stopping", every_rank=True)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and the epochs waited since."""
        best = self.monitor.best if math.isfinite(self.monitor.best) else None
        return {"best": best, "waited": self.waited}

    def must_match(self) -> dict[str, Any]:
        """Returns what is watched, and what is borne."""
        return {**self.monitor.must_match(), "min_delta": self.monitor.min_delta, "patience": self.patience}

    def load_changed(self, state: Mapping[str, Any], changed: Collection[str]) -> None:
        """Takes both back, unless they are of another logged value."""
        if not {"monitor", "mode"} & set(changed):
            self.load_state_dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes both back."""
        self.waited = state["waited"]
        self.monitor.best = math.inf if state["best"] is None else state["best"]
        self._restored = True
