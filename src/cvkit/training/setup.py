"""From the arguments of ``fit`` to a complete state; what cannot work is refused here, before anything is touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from cvkit import main_guard, seeding
from cvkit.arguments import check_integer
from cvkit.calls import warn
from cvkit.errors import ArgumentError
from cvkit.losses import resolve_loss
from cvkit.registry import default_callbacks
from cvkit.training import distributed
from cvkit.training.callback import ask, check
from cvkit.training.internals import Internals
from cvkit.training.loader_checks import check_loader
from cvkit.training.loader_shares import shared
from cvkit.training.loaders import adapt
from cvkit.training.meters import Meters, resolve_metrics
from cvkit.training.optimizers import group_options, resolve_optimizers
from cvkit.training.reduction import check_mergeable, merged_messages, same_start
from cvkit.training.runtime import Runtime
from cvkit.training.schedules import resolve_schedules
from cvkit.training.state import FitResult, Step, TrainState

__all__ = [
    "add_optimizers",
    "add_schedules",
    "check_arguments",
    "check_loaders",
    "result",
    "start_seed",
    "state",
    "usual_step",
    "with_progress",
]


def check_arguments(
    epochs: object,
    accumulate: object,
    clip_norm: object,
    named: Mapping[str, Any],
    steps_per_epoch: int | None = None,
    max_steps: object = None,
) -> None:
    """Refuses numbers that cannot work, and loaders without batches.

    Raises:
        ArgumentError: Named by the argument.
    """
    for name, value in (("epochs", epochs), ("accumulate", accumulate)):
        check_integer(name, value, fix=f"pass e.g. {name}={10 if name == 'epochs' else 1}")
    if max_steps is not None:
        check_integer("max_steps", max_steps, fix="pass e.g. max_steps=1000, or leave it out")
    if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
        raise ArgumentError(
            "clip_norm cannot be used",
            got=repr(clip_norm),
            expected="a number above 0, or None",
            fix="pass e.g. clip_norm=1.0",
        )
    check_loaders(named, steps_per_epoch)


def check_loaders(named: Mapping[str, Any], steps_per_epoch: int | None = None) -> None:
    """Refuses loaders that cannot be iterated once an epoch; a missing ``val`` is none.

    Raises:
        ArgumentError: Named by the argument.
    """
    for name, loader in named.items():
        if name == "train" or loader is not None:
            check_loader(name, loader, steps_per_epoch if name == "train" else None)


def with_progress(callbacks: Sequence[Any], progress: bool) -> list[Any]:
    """Returns the callbacks, with a progress display unless there is one or none is wanted.

    Raises:
        ArgumentError: Not a sequence of callbacks.
    """
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ArgumentError(
            "callbacks cannot be used",
            got=type(callbacks).__name__,
            expected="a list of callbacks",
            fix="put it in a list: callbacks=[…]",
        )
    for callback in callbacks:
        check(callback)
    if not distributed.is_first():
        return [callback for callback in callbacks if not ask(callback, "first_rank_only")]
    shown = any(ask(callback, "shows_progress") for callback in callbacks)
    return [*callbacks, *([default_callbacks.get("progress")()] if progress and not shown else [])]


def start_seed(seed: int | None) -> int:
    """Seeds every global generator, or, without a seed, draws one and leaves them as they are; on all ranks that of rank 0."""
    if seed is None:
        return distributed.first_of_all(seeding.peek)
    seeding.seed_all(seed)
    return seed


def state(
    model: nn.Module,
    train: Any,
    val: Any,
    runtime: Runtime,
    *,
    loss: Any,
    metrics: Any,
    own_step: bool,
    steps_per_epoch: int | None = None,
) -> TrainState:
    """Returns a state without optimizers; the model is on the device.

    Raises:
        ArgumentError: A model that is no module, a loss or metric that cannot be used, or a script without a main guard
            in a process that imports it.
        ModelError: A model with lazy parameters.
    """
    main_guard.check("fit, evaluate, preflight or find_lr")
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            "model cannot be trained",
            got=f"the class {model.__name__}" if isinstance(model, type) else repr(model),
            expected="an nn.Module",
            fix=f"pass {model.__name__}(), an instance" if isinstance(model, type) else "pass the module itself",
        )
    spec = resolve_loss(loss)
    found = resolve_metrics(metrics, spec, own_step=own_step)
    if isinstance(spec.function, nn.Module):
        spec.function.to(runtime.device)
    for metric in found.values():
        if hasattr(metric, "to"):  # torchmetrics keeps its sums on a device
            metric.to(runtime.device)
    # two sets, so that a validation that is cut short leaves the training sums as they are
    meters, val_meters = Meters(found), Meters(copy.deepcopy(found))
    batches = adapt(train, steps_per_epoch)
    val_batches = batches if val is train else adapt(val, name="val") if val is not None else None
    world = distributed.current()
    batches = shared(batches, world, validates=val is train)
    val_batches = batches if val is train else shared(val_batches, world, validates=True) if val_batches else None
    check_mergeable(found, world)
    model = runtime.prepare(model)
    same_start(model, spec.function, world)
    return TrainState(
        model=model,
        train=train,
        val=val,
        runtime=runtime,
        engine=Internals(
            spec, meters, val_meters, meters, batches, val_batches, first_epoch=batches.epoch, world=world
        ),
    )


def add_optimizers(state: TrainState, optimizer: Any, lr: float) -> None:
    """Adds the optimizers, over parameters that are on the device by now."""
    state.optimizers = resolve_optimizers(optimizer, state.model, lr)
    state.engine.options = [group_options(one) for one in state.optimizers]
    held = {id(p) for one in state.optimizers for group in one.param_groups for p in group["params"]}
    state.engine.loose = [p for p in state.model.parameters() if p.requires_grad and id(p) not in held]


def add_schedules(state: TrainState, schedule: str | Callable[..., LRScheduler] | None, warmup: float = 0) -> None:
    """Adds the schedules, for the whole length of the run."""
    state.schedules = resolve_schedules(schedule, state.optimizers, state.total_steps, warmup)


def usual_step(state: TrainState) -> Step:
    """Returns the step of a batch ``(inputs, targets)``: ``loss(model(inputs), targets)``."""
    loss_fn = state.loss_fn

    def step(model: nn.Module, batch: Any, state: TrainState) -> tuple[Tensor, Any, Any]:
        inputs, targets = batch
        outputs = model(inputs)
        return loss_fn(outputs, targets), outputs, targets

    return step


def result(state: TrainState) -> FitResult:
    """Returns what ``fit`` returns."""
    paths: dict[str, Path | None] = {"best_checkpoint": None, "last_checkpoint": None}
    for callback in state.engine.hooks.callbacks if state.engine.hooks is not None else ():
        for name in paths:
            paths[name] = paths[name] or ask(callback, name)
    found = distributed.first_of_all(lambda: paths)
    parts = merged_messages(state.skipped)[: 1 if state.val is state.train else 2]
    skipped = [message for part in parts for message in part.values()]
    if skipped and distributed.is_first():
        warn(f"{len(skipped)} samples were left out because they cannot be read, e.g. {skipped[0].splitlines()[0]}")
    return FitResult(
        history=state.history,
        model=state.model,
        epochs=state.epochs_done,
        steps=state.step,
        stop_reason=state.stop_reason or "finished",
        skipped=len(skipped),
        **found,
    )
