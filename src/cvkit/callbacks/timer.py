"""``Timer``: ends a run when its time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from cvkit.errors import ArgumentError
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["Timer"]


class Timer(Callback):
    """Ends the run after a given time; ``stop_reason`` is ``"time_limit"``.

    The run ends at the next update, in the middle of an epoch where that is so; ``Checkpoint`` saves it there, and a resume
    continues right there. Leave time for that, and for a validation that is under way: it is not broken off.

    No time is written to the history, which is the same however fast the machine is.

    Args:
        hours: The time a run may take, together with ``minutes`` and ``seconds``.
        minutes: See ``hours``.
        seconds: See ``hours``.
        total: Whether the time before a resume counts, so that the limit is one on the run as a whole. ``False`` gives each
            process all of it, as where a cluster grants hours by the job.
        whole_epochs: Whether only whole epochs are trained: the run ends after an epoch when another, as long as the longest
            so far, would not fit.

    Attributes:
        limit: Seconds that the run may take.

    Raises:
        ArgumentError: No time, a negative one, or one that is no number.
    """

    def __init__(
        self,
        *,
        hours: float = 0.0,
        minutes: float = 0.0,
        seconds: float = 0.0,
        total: bool = True,
        whole_epochs: bool = False,
    ) -> None:
        parts = {"hours": hours, "minutes": minutes, "seconds": seconds}
        for name, value in parts.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise ArgumentError(
                    f"{name} cannot be used", got=repr(value), expected="a number of at least 0", fix="Timer(hours=1.5)"
                )
        self.limit = 3600.0 * hours + 60.0 * minutes + seconds
        if self.limit == 0:
            raise ArgumentError(
                "Timer has no time", expected="hours, minutes or seconds above 0", fix="Timer(hours=1.5)"
            )
        self.total = total
        self.whole_epochs = whole_epochs
        self._before = 0.0
        self._restored = False
        self._began: float | None = None
        self._epoch_began = self._longest = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds that count so far."""
        return self._before + (time.monotonic() - self._began if self._began is not None else 0.0)

    @property
    def remaining(self) -> float:
        """Seconds that are left, at least 0."""
        return max(self.limit - self.elapsed, 0.0)

    def on_fit_start(self, state: TrainState) -> None:
        """Starts the clock; a resumed run whose time is up ends at once."""
        if state.step == 0 or not self.total or not self._restored:  # a callback that is used again begins anew
            self._before = 0.0
        self._restored = False
        self._began, self._longest = time.monotonic(), 0.0
        if self.elapsed >= self.limit:
            state.request_stop("time_limit")

    def on_epoch_start(self, state: TrainState) -> None:
        """Remembers when the epoch began."""
        self._epoch_began = self.elapsed

    def on_batch_end(self, state: TrainState) -> None:
        """Ends the run when its time is up."""
        if not self.whole_epochs and self.elapsed >= self.limit:
            state.request_stop("time_limit")

    def on_epoch_end(self, state: TrainState) -> None:
        """Ends the run when its time is up, or when no other whole epoch fits."""
        now = self.elapsed
        self._longest = max(self._longest, now - self._epoch_began)
        if now + (self._longest if self.whole_epochs else 0.0) >= self.limit and state.epochs_done < state.epochs:
            state.request_stop("time_limit")

    def on_fit_end(self, state: TrainState) -> None:
        """Stops the clock."""
        self._before, self._began = self.elapsed, None

    def state_dict(self) -> dict[str, Any]:
        """Returns the seconds that count so far."""
        return {"elapsed": self.elapsed} if self.total and self.elapsed > 0 else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        self._before, self._restored = float(state.get("elapsed", 0.0)), True
