"""Learning-rate schedules: a table of pure functions by name, and a schedule put to where a run stands."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from cvkit.errors import ArgumentError, unknown_name
from cvkit.registry import Registry
from cvkit.training.optimizers import group_options
from cvkit.training.state import TrainState

__all__ = [
    "NamedSchedule",
    "factor",
    "load_schedule",
    "planned",
    "replayed",
    "resolve_schedules",
    "schedule_state",
    "schedules",
    "set_options",
    "shapes",
    "warmup_steps",
]

ScheduleFactory: TypeAlias = Callable[[Optimizer, int], LRScheduler]
Shape: TypeAlias = Callable[[int, int], float]

shapes: Registry[Shape] = Registry("schedule")
"""The table: what the learning rate is multiplied by, ``(step, total) -> factor``, for ``step`` from 0 to below ``total``."""

schedules: Registry[ScheduleFactory] = Registry("schedule")
"""Schedule builders by name: ``(optimizer, total_steps) -> LRScheduler``, stepped at each update. A name that is only in
:data:`shapes` is a :class:`NamedSchedule`."""

LOWEST = 0.01
"""Where the exponential schedule ends."""

CYCLES = 3
"""Cycles of ``"cosine_restarts"``, each twice as long as the one before."""

# --- the table


@shapes.register("constant")
def _constant(step: int, total: int) -> float:
    return 1.0


@shapes.register("cosine")
def _cosine(step: int, total: int) -> float:
    """Half a cosine, to 0. Source: Loshchilov and Hutter, SGDR, 2017 (arXiv:1608.03983), equation 5, one cycle."""
    return 0.5 * (1 + math.cos(math.pi * step / total))


@shapes.register("cosine_restarts")
def _cosine_restarts(step: int, total: int) -> float:
    """Three half cosines, each twice as long as the one before. Source: SGDR, as above, with ``T_mult=2``."""
    place, length = float(step), total / (2**CYCLES - 1)
    while place >= length and length * 2 < total:
        place, length = place - length, length * 2
    return 0.5 * (1 + math.cos(math.pi * min(place / length, 1.0)))


@shapes.register("exponential")
def _exponential(step: int, total: int) -> float:
    """The same factor at each update, from 1 to 0.01 at the end."""
    return float(LOWEST ** (step / total))


@shapes.register("inverse_sqrt")
def _inverse_sqrt(step: int, total: int) -> float:
    """Falls as one over the root of the step. Source: Vaswani et al., Attention Is All You Need, 2017, section 5.3.

    It begins as after a warm-up of a twentieth of the run; with ``warmup`` it goes on from the warm-up's own length.
    """
    return _fallen(step, max(1, total // 20))


def _fallen(step: int, warm: int) -> float:
    return math.sqrt(warm / (warm + step))


@shapes.register("linear")
def _linear(step: int, total: int) -> float:
    return 1 - step / total


@shapes.register("poly")
def _poly(step: int, total: int) -> float:
    """Source: Chen et al., DeepLab, 2017 (arXiv:1606.00915), section 3.1, with the power 0.9."""
    return float((1 - step / total) ** 0.9)


@shapes.register("step")
def _thirds(step: int, total: int) -> float:
    """A tenth after each third of the run."""
    return float(0.1 ** (step // max(1, -(-total // 3))))


@shapes.register("onecycle")
def _onecycle(step: int, total: int) -> float:
    return _risen(step, total, 0.3)


def _risen(step: int, total: int, rise: float) -> float:
    """Up from 1/25 and down to 1/250000, by cosines. Source: Smith and Topin, Super-Convergence, 2018; numbers as torch's."""
    top, end = rise * total - 1, total - 1
    if step <= top:
        return _between(1 / 25, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, 1 / 25 / 1e4, (step - top) / (end - top))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


def factor(name: str, step: int, total: int, warmup: int = 0) -> float:
    """Returns what the learning rate is multiplied by at a step of a schedule given by name.

    The warm-up rises in equal parts: ``(step + 1) / (warmup + 1)``, so that no update is made with a rate of 0, and the
    schedule's own first rate, the full one, comes after it. Source: Goyal et al., Accurate, Large Minibatch SGD, 2017
    (arXiv:1706.02677), section 2.2. ``"onecycle"`` warms up by itself: there ``warmup`` is how long it rises.

    Args:
        name: A name in :data:`shapes`.
        step: The update's index, from 0.
        total: Updates of the whole run, the warm-up included.
        warmup: Updates of the warm-up.
    """
    if name == "onecycle":
        return _risen(step, total, warmup / total if warmup else 0.3)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if name == "inverse_sqrt" and warmup:
        return _fallen(step - warmup, warmup)
    return shapes.get(name)(step - warmup, max(total - warmup, 1))


class NamedSchedule(LRScheduler):
    """Multiplies each group's learning rate by :func:`factor`; where it stands is the number of updates, and nothing else.

    Args:
        optimizer: The optimizer.
        shape: A name in :data:`shapes`.
        total: Updates of the whole run.
        warmup: Updates of the warm-up.
    """

    def __init__(self, optimizer: Optimizer, shape: str, total: int, warmup: int = 0) -> None:
        self.shape, self.total, self.warmup = shape, total, warmup
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """Returns the rate of each group."""
        now = factor(self.shape, min(self.last_epoch, self.total), self.total, self.warmup)
        return [rate * now for rate in self.base_lrs]


# --- torch's own, where there is one: the values of a run by name are what they always were


@schedules.register("cosine")
def _torch_cosine(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)


@schedules.register("onecycle")
def _torch_onecycle(optimizer: Optimizer, total: int) -> LRScheduler:
    return _one_cycle(optimizer, total, 0.3)


def _one_cycle(optimizer: Optimizer, total: int, rise: float) -> LRScheduler:
    knows = "momentum" in optimizer.defaults or "betas" in optimizer.defaults  # torch refuses to turn what is not there
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=total, cycle_momentum=knows, pct_start=rise)


@schedules.register("poly")
def _torch_poly(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.PolynomialLR(optimizer, total_iters=total, power=0.9)  # Chen et al., DeepLab, 2017


@schedules.register("step")
def _torch_step(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.StepLR(optimizer, step_size=max(1, -(-total // 3)), gamma=0.1)


@schedules.register("linear")
def _torch_linear(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=total)


def warmup_steps(warmup: float, total: int) -> int:
    """Returns the updates of a warm-up.

    Args:
        warmup: A share of the run (a float from 0 to below 1), or a number of updates (an integer).
        total: Updates of the whole run.

    Raises:
        ArgumentError: Neither, or a warm-up that the run does not outlast.
    """
    share = isinstance(warmup, float)
    known = isinstance(warmup, int | float) and not isinstance(warmup, bool)
    if not known or not 0 <= warmup < (1 if share else total):
        raise ArgumentError(
            "warmup cannot be used",
            got=f"{warmup!r}, in a run of {total} updates",
            expected="a share of the run from 0 to below 1, or an integer number of updates below that of the run",
            fix="pass e.g. warmup=0.05",
        )
    return max(1, round(warmup * total)) if share and warmup > 0 else int(warmup)


def _named(name: str, warmup: int) -> ScheduleFactory:
    """Returns the builder of a name in either table.

    Raises:
        UnknownNameError: A name that is in neither.
    """
    if name in schedules and not warmup:
        return schedules.get(name)
    if name == "onecycle":
        return lambda optimizer, total: _one_cycle(optimizer, total, warmup / total)
    if name in schedules and name not in shapes:
        raise _brings_its_own(f"schedule={name!r}, which is registered as a factory")
    if name not in shapes:
        raise unknown_name("schedule", name, {*shapes.names(), *schedules.names()})
    return lambda optimizer, total: NamedSchedule(optimizer, name, total, warmup)


def _brings_its_own(got: str) -> ArgumentError:
    return ArgumentError(
        "warmup has no effect beside a schedule that is a factory",
        got=got,
        expected=f"warmup with a schedule by name: {', '.join(shapes.names())}",
        fix="build the warm-up in the factory, e.g. by torch.optim.lr_scheduler.SequentialLR, and leave warmup out",
    )


def resolve_schedules(
    given: str | ScheduleFactory | LRScheduler | None, found: Sequence[Optimizer], total: int, warmup: float = 0
) -> list[LRScheduler]:
    """Turns what ``fit`` got as ``schedule`` into one scheduler an optimizer.

    Args:
        given: A name, a factory ``(optimizer, total_steps) -> LRScheduler``, or nothing.
        found: The optimizers.
        total: The number of updates of the whole run.
        warmup: A share of the run or a number of updates, for a schedule by name; alone, the rate is constant after it.

    Raises:
        UnknownNameError: A name that is not known.
        ArgumentError: A ready-made scheduler (it does not say how often it wants to be stepped), or no scheduler at all; a
            warm-up that cannot be.
    """
    warm = warmup_steps(warmup, total)
    if given is None and not warm:
        return []
    if isinstance(given, LRScheduler):
        raise ArgumentError(
            "schedule got a ready-made scheduler, which does not say how often it is to be stepped",
            got=type(given).__name__,
            expected="a name, or a factory (optimizer, total_steps) -> LRScheduler",
            fix='pass callbacks=[LRSchedule(scheduler, every="step")] (or every="epoch") and leave schedule out',
        )
    if warm and callable(given):
        raise _brings_its_own("a factory")
    build = _named(given or "constant", warm) if given is None or isinstance(given, str) else given
    if not callable(build):
        raise ArgumentError(
            "schedule cannot be used", got=repr(given), expected="a name or a factory", fix='try "cosine"'
        )
    built = [build(optimizer, total) for optimizer in found]
    for one in built:
        if not isinstance(one, LRScheduler):
            raise ArgumentError(
                "the schedule factory did not give a scheduler",
                got=repr(one),
                expected="a torch.optim.lr_scheduler.LRScheduler",
                fix="return the scheduler: schedule=lambda optimizer, total: CosineAnnealingLR(optimizer, total)",
            )
    return built


# --- a schedule's state, and a schedule put to where a run stands


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
