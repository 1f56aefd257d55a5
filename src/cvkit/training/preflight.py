"""The probe of a run: what the diagnosis may look at, and how it runs a step; and what ``fit`` makes of the findings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from torch import nn

from cvkit import calls
from cvkit.arguments import check_choice
from cvkit.diagnosis import Probe, Report, Settings, Side, check_codes
from cvkit.diagnosis.examine import Examination
from cvkit.diagnosis.table import NEEDS, Need
from cvkit.module_state import unchanged
from cvkit.training import engine, loaders
from cvkit.training.state import Step, TrainState

__all__ = ["TRACED", "Preflight", "check_preflight", "inspect", "say"]

Preflight: TypeAlias = Literal[True, False, "strict", "deep"]
"""What ``fit`` takes: whether to look, whether warnings are errors, whether to look deeper."""

TRACED: tuple[Need, ...] = ("batch", "outputs", "loss", "gradients")
"""What is looked at where only one batch is to be traced."""


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

    Raises:
        DataError: A loader that fails to give its first batch.
    """
    probe = Probe(
        model=state.model,
        loss=state.engine.loss_spec,
        own_step=own_step,
        train=Side("train", state.train),
        val=Side("val", state.val) if state.val is not None else None,
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
    for finding in report.warnings:
        calls.warn(str(finding))


class _Runner:
    """Runs the step of a run for the diagnosis."""

    def __init__(self, state: TrainState, step: Step) -> None:
        self.state = state
        self.step = step

    def first_batch(self, name: str) -> Any:
        loader = self._enter(name)
        return loaders.finished(loader, loaders.first_batch(name, loader), self.state.runtime)

    def last_batch(self, name: str) -> Any:
        return None

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
        engine.update(self.state)

    def rates(self, which: int, steps: int) -> list[float]:
        return []

    def _enter(self, name: str) -> Any:
        state = self.state
        state.training = name == "train"
        state.engine.meters = state.engine.train_meters if state.training else state.engine.val_meters
        return state.train if state.training else state.val


def _settings(state: TrainState) -> Settings:
    """Returns what ``fit`` was given besides model and data."""
    return Settings(
        epochs=state.epochs if state.optimizers else 0,
        batches=len(state.train),
        total_steps=state.total_steps,
        accumulate=state.accumulate,
        clip_norm=state.clip_norm,
        optimizers=state.optimizers,
        metrics=list(state.metrics),
    )


@contextmanager
def _untouched(state: TrainState) -> Iterator[None]:
    model = state.model
    compiled, state.runtime.module = state.runtime.module, model
    modules = [one for one in (model, state.loss_fn) if isinstance(one, nn.Module)]
    step = state.step
    scheduled: Sequence[tuple[Any, dict[str, Any]]] = [(one, dict(vars(one))) for one in state.schedules]
    try:
        with unchanged(*modules, optimizers=state.optimizers):
            yield
    finally:
        for schedule, attributes in scheduled:
            vars(schedule).clear()
            vars(schedule).update(attributes)
        state.runtime.module, state.step = compiled, step
        state.training, state.engine.meters = True, state.engine.train_meters
        state.batch = state.loss = state.outputs = state.targets = state.engine.used_lrs = None
        state.engine.group_open = False
        state.engine.train_meters.reset()
        state.engine.val_meters.reset()
