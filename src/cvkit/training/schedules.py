"""Learning-rate schedules: their state, and a schedule put to where a run stands."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvkit.training.optimizers import group_options
from cvkit.training.state import TrainState

__all__ = ["load_schedule", "planned", "replayed", "schedule_state", "set_options"]


def schedule_state(schedule: LRScheduler) -> dict[str, Any]:
    """Returns a schedule's state as plain types; what is a function is built again by the script that resumes."""
    return {key: _plain_counter(value) for key, value in schedule.state_dict().items() if not callable(value)}


def _plain_counter(value: Any) -> Any:
    return dict(value) if isinstance(value, collections.Counter) else value


def load_schedule(schedule: LRScheduler, saved: Mapping[str, Any]) -> None:
    """Takes back what :func:`schedule_state` returned; plain dicts become counters again where there was one."""
    counters = {key for key, value in vars(schedule).items() if isinstance(value, collections.Counter)}
    schedule.load_state_dict({k: collections.Counter(v) if k in counters else v for k, v in saved.items()})


def planned(state: TrainState, steps: int) -> list[list[dict[str, Any]]]:
    """Steps fresh schedules to where the run stands, and returns the optimizers' options there."""
    for optimizer, schedule in zip(state.optimizers, state.schedules, strict=True):
        _step(optimizer, schedule, min(steps, state.total_steps - 1))
    return [group_options(optimizer) for optimizer in state.optimizers]


def replayed(schedule: LRScheduler, options: Sequence[Mapping[str, Any]], steps: int) -> None:
    """Puts a fresh schedule, and its optimizer's options, to where they are after so many steps.

    Args:
        schedule: One that has not been stepped.
        options: The options of the optimizer's groups that it begins with.
        steps: How often it has been stepped by then.
    """
    optimizer: Optimizer = schedule.optimizer
    now = group_options(optimizer)
    set_options(optimizer, options)
    _step(optimizer, schedule, steps)
    there = group_options(optimizer)
    set_options(optimizer, now)
    set_options(optimizer, [_changed(after, before) for after, before in zip(there, options, strict=True)])


def _changed(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that a schedule has a say in: those that it has set, and the learning rate."""
    return {key: one for key, one in after.items() if key in ("lr", "initial_lr") or before.get(key) != one}


def set_options(optimizer: Optimizer, options: Sequence[Mapping[str, Any]]) -> None:
    """Sets options of an optimizer's parameter groups."""
    for group, values in zip(optimizer.param_groups, options, strict=True):
        group.update(values)


def _step(optimizer: Optimizer, schedule: LRScheduler, steps: int) -> None:
    optimizer._opt_called = True  # type: ignore[attr-defined]  # torch warns of schedule.step() before it
    for _ in range(steps):
        schedule.step()
