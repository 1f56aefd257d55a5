"""``fit`` and ``evaluate``: the loop, on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvkit.calls import warn
from cvkit.diagnosis import Report
from cvkit.losses import LossFunction
from cvkit.metrics.core import Metric
from cvkit.module_state import evaluation_mode, train_mode, with_weights
from cvkit.training import distributed, engine, run_changes, schedule_free, setup
from cvkit.training.callback import Hooks
from cvkit.training.dry_run import rehearse
from cvkit.training.loader_checks import check_loader, used_up
from cvkit.training.loaders import Adapter
from cvkit.training.optimizers import DEFAULT_LR
from cvkit.training.peer_arguments import answered_calls
from cvkit.training.preflight import Preflight, check_preflight, explain_failure, inspect, say, say_nothing_left
from cvkit.training.reduction import announce, share_epoch
from cvkit.training.resume import find_checkpoints, identify, locked_directories, restore_rng, restore_run
from cvkit.training.runtime import Precision, Runtime, deterministic_kernels
from cvkit.training.signals import SIGNALLED, graceful
from cvkit.training.state import FitResult, Step, TrainState
from cvkit.training.sync_batch_norm import synchronised
from cvkit.training.torch_workers import explain_worker_errors

__all__ = ["evaluate", "fit", "preflight"]


@answered_calls
@distributed.joined
def fit(
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    epochs: int,
    max_steps: int | None = None,
    loss: str | nn.Module | LossFunction = "cross_entropy",
    optimizer: str | Optimizer | Sequence[Optimizer] | Callable[[list[nn.Parameter]], Any] = "adamw",
    lr: float = DEFAULT_LR,
    schedule: str | Callable[[Optimizer, int], LRScheduler] | None = None,
    warmup: float = 0,
    metrics: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None = None,
    callbacks: Sequence[Any] = (),
    step: Step | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    accumulate: int = 1,
    clip_norm: float | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    resume: bool | str | Path = False,
    progress: bool = True,
    preflight: Preflight = True,
    override: Sequence[str] = (),
    steps_per_epoch: int | None = None,
    dry_run: bool = False,
    ignore: Sequence[str] = (),
) -> FitResult:
    """Trains a model.

    In this shape, everything else staying out of its way::

        for epoch in remaining_epochs:
            for batch in train:
                loss = forward and backward
                if at an update: optimizer step
            if val: evaluate
            log a row

    Args:
        model: Any module; it is moved to the device and trained in place.
        train: Training batches: a ``cvkit.data.Loader``, a torch ``DataLoader``, or any sized iterable of batches. A batch
            is ``(inputs, targets)``, or anything that your own ``step`` understands. A loader that an earlier ``fit`` has
            used goes on with the epochs that it has not served yet, so no call repeats the order and the augmentation of
            another; ``train.set_epoch(0)`` repeats them.
        val: Validation batches of the same kind, or ``None``.
        epochs: The total number of epochs, those before a resume included.
        max_steps: The total number of optimizer updates, where that is reached before the epochs are: the run ends there with
            the reason ``"max_steps"``, in the middle of an epoch without its validation, and schedules end with it. A larger
            number continues it.
        loss: ``"cross_entropy"``, ``"bce"`` (on logits), ``"mse"``, ``"l1"``, ``"smooth_l1"``, ``"nll"``, ``"hinge"``,
            ``"dice"``, ``"label_smoothing"`` (0.1), ``"focal"``, ``"binary_focal"``, ``"asymmetric"``, a module or any
            callable ``(outputs, targets) -> scalar``.
        optimizer: ``"sgd"``, ``"momentum"``, ``"nesterov"``, ``"adam"``, ``"adamw"``, ``"adagrad"``, ``"rmsprop"``,
            ``"muon"`` (with AdamW for what has not two dimensions), ``"timm:NAME"`` or ``"pytorch_optimizer:NAME"`` where that
            is installed, an optimizer, a sequence of them, or a factory ``params -> Optimizer``. By name it is fused where the
            device has it.
        lr: Learning rate, for an optimizer given by name.
        schedule: ``"constant"``, ``"cosine"``, ``"cosine_restarts"``, ``"exponential"``, ``"inverse_sqrt"``, ``"linear"``,
            ``"onecycle"``, ``"poly"``, ``"step"``, or a factory ``(optimizer, total_steps) -> LRScheduler``; stepped at each
            update.
        warmup: For a schedule by name: the share of the run (0.05), or the number of updates (an integer), in which the rate
            rises to its full value first.
        metrics: Names (``"accuracy"``, ``"top5"``, ``"precision"``, ``"recall"``, ``"f1"``, ``"class_accuracy"``, ``"dice"``,
            ``"iou"``, ``"ece"``; ``"auroc"``, ``"average_precision"`` through torchmetrics) or objects with
            ``update(outputs, targets)``, ``compute()`` and
            ``reset()``. ``None`` means accuracy for a classification loss.
        callbacks: Objects with ``on_…`` hooks; see :class:`cvkit.Callback`.
        step: ``step(model, batch, state) -> loss`` or ``(loss, outputs, targets)`` in place of the usual
            ``loss(model(inputs), targets)``.
        device: ``"auto"`` or a device.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"`` (bf16 on GPUs that have it).
        compile: Whether to run the model through ``torch.compile``.
        accumulate: Batches to one update; gives the same update as one batch as large as all of them.
        clip_norm: Bound on the 2-norm of all gradients, applied once per update.
        seed: Seeds every global generator. ``None`` leaves them as they are, so a script's own ``torch.manual_seed``
            decides.
        deterministic: Asks torch for deterministic kernels.
        resume: ``True`` continues from the ``Checkpoint`` callback's directory if it holds a run, a path from that file.
        progress: Whether to show progress.
        preflight: Whether to look for mistakes first: errors are raised, all at once, and each warning is given once.
            ``"strict"`` makes warnings errors, ``"deep"`` adds checks that take seconds.
        override: Names of what may differ from the run that is continued, e.g. ``("lr",)``: there the values of this call
            count. An optimizer's options by their own names; else ``"accumulate"``, ``"callbacks"``, ``"clip_norm"``,
            ``"data"``, ``"loss"``, ``"metrics"``, ``"model"``, ``"optimizer"``, ``"precision"``, ``"schedule"``, ``"step"``,
            ``"transform"``, ``"val"``. What does not differ is continued exactly; so the same call may be repeated.
        steps_per_epoch: How many batches are an epoch, for training batches without a length. Each epoch takes the next ones,
            and where the iterable ends it is begun anew, so no batch is left out.
        dry_run: Tries everything out instead: two batches of ``train`` and ``val``, every callback, one save and one load, in a
            temporary directory. Model, optimizer, loaders, callbacks and random numbers are afterwards as before.
        ignore: Codes of findings that are left out, e.g. ``("CV204",)``.

    Returns:
        History, model, and how the run ended.

    Raises:
        ArgumentError: An argument that cannot work, before anything is touched.
        PreflightError: The run cannot work; each mistake is named with its code and its fix.
        CheckpointError: The directory holds another run, or a checkpoint cannot be read or written, or the run that is
            continued differs in something that ``override`` does not name.
        DeviceError: A device or precision that is not there.
    """
    if dry_run:
        return rehearse(fit, locals())
    setup.check_arguments(epochs, accumulate, clip_norm, {"train": train, "val": val}, steps_per_epoch, max_steps)
    ignored = check_preflight(preflight, ignore)
    callbacks = setup.with_progress(callbacks, progress)
    find_checkpoints(callbacks, resume)  # whether there is anything to be said against it, before anything is touched
    runtime = Runtime(device, precision, compile=compile)
    with deterministic_kernels(deterministic):
        start = setup.start_seed(seed)
        own = step is not None
        state = setup.state(
            model, train, val, runtime, loss=loss, metrics=metrics, own_step=own, steps_per_epoch=steps_per_epoch
        )
        state.epochs, state.seed, state.accumulate, state.clip_norm = epochs, start, accumulate, clip_norm
        state.max_steps = max_steps
        hooks = state.engine.hooks = Hooks(callbacks)
        setup.add_optimizers(state, optimizer, lr)
        setup.add_schedules(state, schedule, warmup)
        compute = state.engine.compute = step or setup.usual_step(state)
        identify(state, resume, override, schedule, step)
        if preflight:
            say(inspect(state, compute, own_step=own, deep=preflight == "deep", ignore=ignored), preflight)
        state.engine.resumed = resume is not False
        with locked_directories(callbacks):
            restore_run(state, find_checkpoints(callbacks, resume), seed)
            if preflight and "CV514" not in ignored:
                say_nothing_left(state)
            announce(state, progress)
            try:
                with _running(state, hooks):
                    _train(state, hooks, compute)
            finally:  # whoever trains with this loader next gets epochs that it has not served
                state.engine.train.close()
                state.engine.train.move_to_epoch(state.engine.first_epoch + state.epochs_begun)
    schedule_free.leave(state.optimizers)
    state.model.eval()
    return setup.result(state)


@contextmanager
def _running(state: TrainState, hooks: Hooks) -> Iterator[None]:
    """What holds while a run trains: signals ask for a stop, batch norm is that of all ranks, callbacks run."""
    with (
        explain_worker_errors(),
        graceful(state),
        run_changes.remembered(state),
        synchronised(state.model, state.engine.world),
        hooks.running(state),
    ):
        yield


def _train(state: TrainState, hooks: Hooks, step: Step) -> None:
    """The loop."""
    losses = state.engine.train_meters.losses
    state.model.zero_grad()
    schedule_free.start(state.optimizers)
    restore_rng(state)
    state.settle_stop()
    for _ in state.remaining_epochs():
        train_mode(state.model)
        state.begin_epoch()
        hooks.epoch_start(state)
        if state.batch_index > 0:  # only ever after a resume
            restore_rng(state)
        for batch in engine.feed(state.engine.train, state):
            state.batch, state.engine.used_lrs = batch, None
            hooks.batch_start(state)
            engine.forward_backward(step, batch, state)
            if state.at_update():
                engine.finish_gradients(state)
                hooks.gradients_ready(state)
                engine.update(state)
            hooks.batch_end(state)
            if losses.first_nonfinite is not None:
                _report_nonfinite(state)
            engine.settle(state)
            if state.stop_reason is not None and not state.engine.group_open:
                break
        if state.stop_reason in SIGNALLED or (state.stop_reason and state.batch_index < state.batches_per_epoch):
            return  # in the middle of an epoch: a checkpoint saved now continues right here
        _close_epoch(state, hooks)
        if not _log_epoch(state, hooks, step):
            return
        hooks.epoch_end(state)
        state.settle_stop()


def _close_epoch(state: TrainState, hooks: Hooks) -> None:
    """Deals with a loader that gave fewer batches than its length says: the last group is still updated."""
    if state.batch_index == 0:
        raise used_up(state.engine.train, state.epoch)
    if state.engine.group_open:
        engine.finish_gradients(state)
        hooks.gradients_ready(state)
        engine.update(state)
    said = state.batches_per_epoch
    if state.batch_index != said:
        warn(
            f"train says that it has {said} batches and gave {state.batch_index} in epoch {state.epoch + 1}: "
            "schedules and the time left are computed from its length"
        )


def _log_epoch(state: TrainState, hooks: Hooks, step: Step) -> bool:
    """Validates and logs the epoch's row.

    Returns:
        Whether the epoch is complete; a signal during validation leaves it open, to be validated after a resume.
    """
    row = {f"train_{name}": value for name, value in state.engine.train_meters.values().items()}
    if not state.finite:
        _report_nonfinite(state)
    if (val := state.engine.val) is not None:
        before = val.random_state()
        values = _validate(val, state, hooks, step)
        if values is None:
            val.restore_random(before)
            return False
        row |= {f"val_{name}": value for name, value in values.items()}
    state.logs = {"epoch": state.epoch + 1, "step": state.step, **row, "lr": state.lr, **state.logs}
    state.epochs_done = state.epoch + 1
    if state.val is not None:
        hooks.validation_end(state)
    share_epoch(state)
    state.history.rows.append(state.logs)
    return True


def _validate(val: Adapter, state: TrainState, hooks: Hooks, step: Step) -> dict[str, float] | None:
    """Runs the validation batches; returns loss and metrics, or ``None`` when a signal came in between."""
    state.training, state.engine.meters = False, state.engine.val_meters
    stands = val.epoch
    state.engine.meters.reset()
    state.model.eval()
    try:
        with (
            torch.no_grad(),
            schedule_free.usable_weights(state.optimizers),
            with_weights(state.model, state.engine.averaged),
        ):
            for batch in engine.feed(val, state):
                state.batch = batch
                engine.forward(step, batch, state)
                hooks.validation_batch_end(state)
                engine.settle(state)
                if state.stop_reason in SIGNALLED:
                    return None
        if state.stop_reason in SIGNALLED:  # and the batches ended with a worker that the signal ended too
            return None
        return state.engine.meters.values()
    finally:
        val.move_to_epoch(stands)  # as after a run that was finished before it was resumed
        state.training, state.engine.meters = True, state.engine.train_meters


def _report_nonfinite(state: TrainState) -> None:
    """Warns, once a run, of the first loss that is not finite."""
    first = state.engine.train_meters.losses.first_nonfinite
    if first is None or state.engine.reported:
        return
    state.engine.reported = True
    if not distributed.is_first():  # all ranks know it; one says it
        return
    step = state.epoch * state.steps_per_epoch + first // state.accumulate + 1
    warn(
        f"the training loss is not finite in epoch {state.epoch + 1}, batch {first + 1} (step {step}). This is said once a "
        "run; an epoch with such a loss is not saved as best. The callback StopOnNaN() ends the run there and says where it "
        "comes from; try a lower lr, clip_norm=1.0 or precision='fp32', and look for NaN in the data"
    )


@answered_calls
@distributed.joined
def evaluate(
    model: nn.Module,
    data: Any,
    *,
    loss: str | nn.Module | LossFunction = "cross_entropy",
    metrics: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None = None,
    step: Step | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> dict[str, float]:
    """Computes loss and metrics of a model over data, in evaluation mode, as means over all of the data.

    The same numbers as ``fit`` logs for ``val``. The model's mode is as before afterwards.

    Args:
        model: Any module; it is moved to the device.
        data: A loader or any sized iterable of batches.
        loss: As in :func:`fit`.
        metrics: As in :func:`fit`.
        step: As in :func:`fit`.
        device: As in :func:`fit`.
        precision: As in :func:`fit`.

    Returns:
        ``{"loss": …, "accuracy": …}``.

    Raises:
        ArgumentError: An argument that cannot work.
        PreflightError: The data do not go through model, loss and metrics; it is said why.
        DeviceError: A device or precision that is not there.
    """
    check_loader("data", data)
    state = setup.state(
        model, data, data, Runtime(device, precision), loss=loss, metrics=metrics, own_step=step is not None
    )
    batches = state.engine.train
    state.epoch = state.engine.first_epoch
    compute = step or setup.usual_step(state)
    try:
        with evaluation_mode(state.model), batches.kept(), synchronised(state.model, state.engine.world):
            values = _validate(batches, state, Hooks(()), compute)
    except Exception as error:
        explain_failure(state, compute, error, own_step=step is not None)
        raise
    return values or {}


@answered_calls
def preflight(
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    loss: str | nn.Module | LossFunction = "cross_entropy",
    optimizer: str | Optimizer | Sequence[Optimizer] | Callable[[list[nn.Parameter]], Any] = "adamw",
    lr: float = DEFAULT_LR,
    schedule: str | Callable[[Optimizer, int], LRScheduler] | None = None,
    metrics: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None = None,
    step: Step | None = None,
    epochs: int = 1,
    accumulate: int = 1,
    clip_norm: float | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    deep: bool = False,
    ignore: Sequence[str] = (),
) -> Report:
    """Looks for mistakes as ``fit`` does before its first epoch, and trains nothing.

    Args:
        model: Any module; it is moved to the device, and otherwise as before afterwards.
        train: Training batches, as in :func:`fit`.
        val: Validation batches, as in :func:`fit`.
        loss: As in :func:`fit`.
        optimizer: As in :func:`fit`.
        lr: As in :func:`fit`.
        schedule: As in :func:`fit`.
        metrics: As in :func:`fit`.
        step: As in :func:`fit`.
        epochs: As in :func:`fit`; schedules are as long as that.
        accumulate: As in :func:`fit`.
        clip_norm: As in :func:`fit`.
        device: As in :func:`fit`.
        precision: As in :func:`fit`.
        deep: Whether checks that take seconds run as well.
        ignore: Codes of findings that are left out, e.g. ``("CV204",)``.

    Returns:
        What was found, errors first; empty when all is well. It prints as text, and a notebook shows it as a table.

    Raises:
        ArgumentError: An argument that cannot work.
        DataError: A loader fails to give its first batch.
    """
    setup.check_arguments(epochs, accumulate, clip_norm, {"train": train, "val": val})
    ignored, own = check_preflight(True, ignore), step is not None
    state = setup.state(model, train, val, Runtime(device, precision), loss=loss, metrics=metrics, own_step=own)
    state.epochs, state.accumulate, state.clip_norm = epochs, accumulate, clip_norm
    if any(parameter.requires_grad for parameter in state.model.parameters()) or optimizer != "adamw":
        setup.add_optimizers(state, optimizer, lr)
        setup.add_schedules(state, schedule)
    return inspect(state, step or setup.usual_step(state), own_step=own, deep=deep, ignore=ignored)
