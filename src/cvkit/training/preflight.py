"""The probe of a run: what the diagnosis may look at, and how it runs a step; and what ``fit`` makes of the findings."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from cvkit import calls
from cvkit.arguments import check_choice
from cvkit.diagnosis import Monitored, Probe, Report, Settings, Side, check_codes
from cvkit.diagnosis.examine import Examination
from cvkit.diagnosis.progress import judge
from cvkit.diagnosis.table import NEEDS, Need
from cvkit.errors import CvkitError, PreflightError
from cvkit.module_state import unchanged
from cvkit.training import engine, memory, schedule_free
from cvkit.training.callback import ask
from cvkit.training.distributed import is_first
from cvkit.training.monitor import Monitor
from cvkit.training.state import Step, TrainState

__all__ = [
    "PROGRESS",
    "TRACED",
    "Preflight",
    "check_preflight",
    "explain_failure",
    "inspect",
    "look",
    "say",
    "say_nothing_left",
    "say_of_progress",
]

Preflight: TypeAlias = Literal[True, False, "strict", "deep"]
"""What ``fit`` takes: whether to look, whether warnings are errors, whether to look deeper."""

TRACED: tuple[Need, ...] = ("batch", "outputs", "loss", "gradients")
"""What is looked at where only one batch is to be traced."""

PROGRESS = frozenset({"CV901", "CV902", "CV903"})
"""What is said while it trains."""


def check_preflight(preflight: object, ignore: object) -> frozenset[str]:
    """Returns the codes to be left out.

    Raises:
        ArgumentError: Values that cannot be used.
    """
    check_choice("preflight", preflight, (True, False, "strict", "deep"), fix='preflight="strict"')
    return check_codes(ignore)


def inspect(
    state: TrainState,
    step: Step,
    *,
    own_step: bool,
    deep: bool = False,
    ignore: Collection[str] = (),
    only: Collection[Need] = NEEDS,
    name: str = "train",
) -> Report:
    """Looks at one training and one validation batch and at all that was said of the run, and leaves no trace of it.

    Weights, buffers, gradients, modes, optimizers and random numbers are as before when it returns.

    Args:
        state: A complete state; its model is on the device.
        step: What computes the loss.
        own_step: Whether ``step`` is the user's own, so that a batch may be anything.
        deep: Whether checks that take seconds run as well.
        ignore: Codes that are left out.
        only: What is looked at, by the names of needs.
        name: What the batches are called; any other name than ``"train"`` is looked at in evaluation mode.

    Raises:
        DataError: A loader that fails to give its first batch.
    """
    probe = Probe(
        model=state.model,
        loss=state.engine.loss_spec,
        own_step=own_step,
        train=Side(name, state.train),
        val=Side("val", state.val) if state.val is not None and name == "train" else None,
        settings=_settings(state),
        runner=_Runner(state, step),
    )
    with _untouched(state):
        return Examination(probe, deep=deep, ignore=ignore, only=only).run()


def say(report: Report, preflight: Preflight) -> None:
    """Raises for errors, all at once, and warns once for each warning.

    Raises:
        PreflightError: There are errors, or, with ``"strict"``, warnings.
    """
    report.raise_errors(strict=preflight == "strict")
    for finding in report.warnings if is_first() else ():
        calls.warn(str(finding))


def say_nothing_left(state: TrainState) -> None:
    """Warns where a continued run has more epochs behind it than it is to have in all."""
    if state.epochs_done > state.epochs:
        calls.warn(
            f"CV514: nothing is trained: the run that is continued has {state.epochs_done} epochs behind it\n"
            f"  got: epochs={state.epochs}\n  expected: the total number of epochs, those before the resume included\n"
            f"  fix: epochs={state.epochs_done + state.epochs} for {state.epochs} more"
        )


def look(state: TrainState, step: Step, preflight: Preflight, ignore: Collection[str], *, own_step: bool) -> None:
    """Looks before the first epoch, as ``fit`` was asked to, and says what it found.

    Raises:
        PreflightError: There are errors, or, with ``"strict"``, warnings.
        DeviceError: The device is too small for one batch.
    """
    state.engine.unsaid = set(PROGRESS) - set(ignore)
    with memory.explained(state):
        report = inspect(state, step, own_step=own_step, deep=preflight == "deep", ignore=ignore)
    say(report, preflight)


def say_of_progress(state: TrainState) -> None:
    """Warns, once a run each, of what the epochs' numbers show."""
    if not (state.engine.unsaid and is_first()):
        return
    outputs = state.outputs
    known = (
        state.engine.loss_spec.name in ("cross_entropy", "CrossEntropyLoss")
        and isinstance(outputs, Tensor)
        and outputs.ndim > 1
    )
    for finding in judge(state.history.rows, outputs.shape[1] if known else None):
        if finding.code in state.engine.unsaid:
            state.engine.unsaid.remove(finding.code)
            calls.warn(str(finding))


def explain_failure(state: TrainState, step: Step, error: Exception, *, own_step: bool) -> None:
    """Raises in place of an error of torch's or Python's what the first batch says of it, where that fails too.

    Raises:
        PreflightError: The diagnosis.
    """
    if isinstance(error, CvkitError):
        return
    report = inspect(state, step, own_step=own_step, only=("batch", "outputs", "loss"), name="data")
    try:
        report.raise_errors()
    except PreflightError as found:
        raise found from error


class _Runner:
    """Runs the step of a run for the diagnosis."""

    def __init__(self, state: TrainState, step: Step) -> None:
        self.state = state
        self.step = step
        self.batches: dict[str, Any] = {}

    def first_batch(self, name: str) -> Any:
        loader = self._enter(name)
        self.batches[name] = loader.finish(loader.first_batch(name), self.state.runtime)
        return self.batches[name]

    def last_batch(self, name: str) -> Any:
        """The first samples of the first batch, as many as the last batch holds: nothing is loaded for it."""
        loader = self.state.train if name == "train" else self.state.val
        size = getattr(loader, "batch_size", None)
        held: Any = (
            getattr(loader, "sampler", None) if isinstance(loader, DataLoader) else getattr(loader, "dataset", None)
        )
        if getattr(loader, "drop_last", False) or not isinstance(size, int) or not hasattr(held, "__len__"):
            return None
        left = len(held) % size
        return _cut(self.batches[name], size, left) if 0 < left < size <= len(held) else None

    def forward(self, name: str, batch: Any) -> Any:
        with self.state.runtime.autocast():
            return self.state.model(batch[0])

    def finish(self, name: str, batch: Any, outputs: Any) -> tuple[Any, Any, Any, Any]:
        state = self.state
        self._enter(name)
        state.batch = batch
        seen: list[Any] = []

        def step(model: nn.Module, batch: Any, state: TrainState) -> Any:
            if outputs is None:
                result = self.step(model, batch, state)
            else:
                result = state.loss_fn(outputs, batch[1]), outputs, batch[1]
            seen.append(result)
            return result

        engine.forward(step, batch, state)
        result = seen[0]
        parts = result if isinstance(result, tuple) else (result, None, None)
        return (*parts, state.engine.weight)

    def update(self) -> None:
        state = self.state
        held = [p for one in state.optimizers for group in one.param_groups for p in group["params"]]
        if state.clip_norm is not None:
            nn.utils.clip_grad_norm_(held, state.clip_norm)
        schedule_free.start(state.optimizers)
        for optimizer in state.optimizers:
            optimizer.step()
        for parameter in state.model.parameters():
            parameter.grad = None

    def rates(self, which: int, steps: int) -> list[float]:
        schedule, _ = _schedules(self.state)[which]
        optimizer = schedule.optimizer
        kept, groups = dict(vars(schedule)), [dict(group) for group in optimizer.param_groups]
        called = getattr(optimizer, "_opt_called", None)
        rates = [float(optimizer.param_groups[0]["lr"])]
        try:
            optimizer._opt_called = True
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(steps - 1):
                    schedule.step()
                    rates.append(max(float(group["lr"]) for group in optimizer.param_groups))
        except ValueError:  # OneCycleLR beyond its end
            return rates
        finally:
            vars(schedule).update(kept)
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(before)
            if called is None:
                del optimizer._opt_called
        return rates

    def _enter(self, name: str) -> Any:
        state = self.state
        state.training = name == "train"
        state.engine.meters = state.engine.train_meters if state.training else state.engine.val_meters
        return state.engine.train if state.training or state.engine.val is None else state.engine.val


def _cut(value: Any, size: int, left: int) -> Any:
    """Returns the first samples of a batch."""
    if isinstance(value, Tensor):
        return value[:left] if value.ndim and len(value) == size else value
    if isinstance(value, dict):
        return {key: _cut(one, size, left) for key, one in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_cut(one, size, left) for one in value)
    return value


def _schedules(state: TrainState) -> list[tuple[Any, Literal["step", "epoch"]]]:
    """Returns what steps the learning rate, and how often."""
    found: list[tuple[Any, Literal["step", "epoch"]]] = [(one, "step") for one in state.schedules]
    for callback in state.engine.hooks.callbacks if state.engine.hooks is not None else ():
        scheduler = ask(callback, "scheduler")
        if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
            continue
        if any(scheduler.optimizer is one for one in state.optimizers):
            every = vars(callback).get("every")  # of LRSchedule
            found.append((scheduler, "epoch" if every == "epoch" else "step"))
    return found


def _monitored(state: TrainState) -> Iterator[Monitored]:
    for callback in state.engine.hooks.callbacks if state.engine.hooks is not None else ():
        watched = ask(callback, "monitor")
        if not isinstance(watched, Monitor):
            continue
        kind = watched.name.removeprefix("train_").removeprefix("val_")
        metric = state.engine.train_meters.metrics.get(kind)
        higher = False if kind == "loss" else getattr(metric, "higher_is_better", None)
        better = None if higher is None else "max" if higher else "min"
        yield Monitored(type(callback).__name__, watched.name, watched.mode, better)


def _settings(state: TrainState) -> Settings:
    """Returns what ``fit`` was given besides model and data."""
    callbacks = state.engine.hooks.callbacks if state.engine.hooks is not None else ()
    return Settings(
        epochs=state.epochs if state.optimizers else 0,
        batches=len(state.engine.train),
        total_steps=state.total_steps,
        accumulate=state.accumulate,
        clip_norm=state.clip_norm,
        optimizers=state.optimizers,
        schedules=_schedules(state),
        monitored=list(_monitored(state)),
        metrics=list(state.metrics),
        changers=any(not type(one).__module__.startswith("cvkit.") for one in callbacks),
    )


@contextmanager
def _untouched(state: TrainState) -> Iterator[None]:
    model = state.model
    compiled, state.runtime.module = state.runtime.module, model
    world, state.engine.world = state.engine.world, None  # each rank for itself
    modules = [one for one in (model, state.loss_fn) if isinstance(one, nn.Module)]
    step = state.step
    scheduled: Sequence[tuple[Any, dict[str, Any]]] = [(one, dict(vars(one))) for one in state.schedules]
    try:
        with unchanged(*modules, optimizers=state.optimizers):
            try:
                yield
            finally:
                schedule_free.leave(state.optimizers)
    finally:
        for schedule, attributes in scheduled:
            vars(schedule).clear()
            vars(schedule).update(attributes)
        state.runtime.module, state.step, state.engine.world = compiled, step, world
        state.training, state.engine.meters = True, state.engine.train_meters
        state.batch = state.loss = state.outputs = state.targets = state.engine.used_lrs = None
        state.engine.group_open = False
        state.engine.train_meters.reset()
        state.engine.val_meters.reset()
