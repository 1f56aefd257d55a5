"""``LRSchedule``: steps a learning-rate scheduler that the user has built."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cvkit.errors import ArgumentError, CheckpointError
from cvkit.training.callback import Callback
from cvkit.training.monitor import Monitor
from cvkit.training.run_identity import of_scheduler
from cvkit.training.schedules import load_schedule, replayed, schedule_state
from cvkit.training.state import TrainState

__all__ = ["LRSchedule"]


class LRSchedule(Callback):
    """Steps a ready-made scheduler, as often as said here.

    Args:
        scheduler: The scheduler, built over an optimizer that is given to ``fit`` as well.
        every: ``"step"`` (each optimizer update) or ``"epoch"``.
        monitor: The logged name that a ``ReduceLROnPlateau`` watches.

    Raises:
        ArgumentError: No scheduler, another ``every``, a plateau scheduler without ``monitor`` or a monitor without one, or,
            when the run starts, a scheduler of another optimizer.
        CheckpointError: The run that is continued had another scheduler in its place
            (``fit(override=("schedule",))`` allows it: this one is then put to where the run stands).
    """

    override: ClassVar[str] = "schedule"

    scheduler: LRScheduler
    monitor: Monitor | None

    def __init__(
        self, scheduler: LRScheduler, *, every: Literal["step", "epoch"] = "step", monitor: str | None = None
    ) -> None:
        if not isinstance(scheduler, LRScheduler):
            raise ArgumentError(
                "LRSchedule cannot use this scheduler",
                got=repr(scheduler),
                expected="a torch.optim.lr_scheduler.LRScheduler",
                fix='for a schedule by name pass fit(schedule="cosine")',
            )
        if every not in ("step", "epoch"):
            raise ArgumentError(
                "every cannot be used", got=repr(every), expected='"step" or "epoch"', fix='every="epoch"'
            )
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        if plateau != (monitor is not None) or (plateau and every != "epoch"):
            raise ArgumentError(
                f"{type(scheduler).__name__} with every={every!r} and monitor={monitor!r} does not go together",
                expected='every="epoch" and a monitor for ReduceLROnPlateau, no monitor for any other',
                fix='LRSchedule(scheduler, every="epoch", monitor="val_loss")' if plateau else "leave monitor out",
            )
        self.scheduler = scheduler
        self.every = every
        self.monitor = (
            Monitor(monitor, scheduler.mode) if isinstance(scheduler, ReduceLROnPlateau) and monitor else None
        )
        self._stepped = 0
        self._which: int | None = None
        self._restored = False
        self._anew = False

    def on_fit_start(self, state: TrainState) -> None:
        """Checks that the scheduler belongs to this run."""
        if self.monitor is not None:
            self.monitor.check(state)
        if all(self.scheduler.optimizer is not optimizer for optimizer in state.optimizers):
            raise ArgumentError(
                "the scheduler of LRSchedule belongs to another optimizer",
                got=f"{type(self.scheduler).__name__} over an optimizer that fit was not given",
                expected="the same optimizer object in both",
                fix="build optimizer, then scheduler over it, and pass optimizer=optimizer to fit",
            )
        self._stepped = state.step
        saved = self._which if self._restored else None
        self._anew = self._anew or (state.step > 0 and not self._restored)
        self._restored = False
        self._which = next(n for n, one in enumerate(state.optimizers) if one is self.scheduler.optimizer)
        if saved not in (None, self._which):
            raise _another(f"over optimizer {saved}", f"over optimizer {self._which} (from 0)")
        if self._anew:
            self._go_to(state)

    def _go_to(self, state: TrainState) -> None:
        """Puts a scheduler that the run did not have before to where the run stands; one of plateaus begins there."""
        self._anew = False
        steps = state.step if self.every == "step" else state.epochs_done
        if steps == 0 or isinstance(self.scheduler, ReduceLROnPlateau) or self._which is None:
            return
        if getattr(self.scheduler, "last_epoch", 0) > 0:
            raise ArgumentError(
                "the scheduler of LRSchedule has been stepped before",
                got=f"{type(self.scheduler).__name__} after {self.scheduler.last_epoch} steps",
                expected="a fresh one: an override puts it to where the run stands",
                fix="build the optimizer and the scheduler anew before calling fit",
            )
        replayed(self.scheduler, state.engine.options[self._which], steps)

    def on_batch_end(self, state: TrainState) -> None:
        """Steps after an update."""
        if self.every == "step" and state.step > self._stepped:
            self._stepped = state.step
            self.scheduler.step()

    def on_epoch_end(self, state: TrainState) -> None:
        """Steps after an epoch, and after an update past its last batch, where a loader has given fewer than it said."""
        self.on_batch_end(state)
        if self.monitor is not None:
            self.scheduler.step(state.logs[self.monitor.name])  # type: ignore[arg-type]  # ReduceLROnPlateau takes a value
        elif self.every == "epoch":
            self.scheduler.step()

    def elsewhere(self, directory: Path) -> LRSchedule:
        """Returns a copy over the same scheduler, whose optimizer the run has."""
        return copy.copy(self)

    def state_dict(self) -> dict[str, Any]:
        """Returns the scheduler's state, and which scheduler it is."""
        kind = type(self.scheduler).__name__
        return {"scheduler": schedule_state(self.scheduler), "kind": kind, "optimizer": self._which}

    def must_match(self) -> dict[str, Any]:
        """Returns what the scheduler does and how often; how far it is does not belong here."""
        watched = self.monitor.name if self.monitor is not None else "none"
        own = {"scheduler": type(self.scheduler).__name__, "every": self.every, "monitor": watched}
        return own | of_scheduler(self.scheduler)

    def load_changed(self, state: Mapping[str, Any], changed: Collection[str]) -> None:
        """Takes back what still holds: of ``ReduceLROnPlateau`` what it has counted, of others the optimizer it is over."""
        own = set(self.must_match())
        if not (set(changed) & own or set(changed) & {"lr", "momentum", "betas"}):
            self.load_state_dict(state)
            return
        self._which, self._restored = state.get("optimizer"), True
        if isinstance(self.scheduler, ReduceLROnPlateau) and "scheduler" not in changed:
            load_schedule(self.scheduler, {key: one for key, one in state["scheduler"].items() if key not in changed})
        self._anew = True

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back.

        Raises:
            CheckpointError: It is that of another scheduler.
        """
        kind = type(self.scheduler).__name__
        if state.get("kind", kind) != kind:
            raise _another(str(state["kind"]), kind)
        self._which, self._restored = state.get("optimizer"), True
        load_schedule(self.scheduler, state["scheduler"])


def _another(then: str, now: str) -> CheckpointError:
    return CheckpointError(
        "the run that is continued had another scheduler in this LRSchedule",
        got=f"{then} then, {now} now",
        expected="the same scheduler over the same optimizer; several are told apart by their order in callbacks",
        fix="give the callbacks in the order that they had, or start a new run in another directory",
    )
