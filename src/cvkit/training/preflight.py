"""One batch through model, loss and metrics before the first epoch: mistakes come back as a diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cvkit import calls
from cvkit.errors import CvkitError, PreflightError
from cvkit.module_state import train_mode, unchanged
from cvkit.training import engine
from cvkit.training.batch_checks import check_batch, check_outputs, expects, in_order, mend, shape
from cvkit.training.state import Step, TrainState

__all__ = ["inspect", "warn_of"]


def inspect(state: TrainState, step: Step, *, own_step: bool) -> list[str]:
    """Traces one training batch, and the forward of one validation batch, and leaves no trace of it.

    Weights, buffers, gradients, modes and random numbers are as before when it returns.

    Args:
        state: A complete state; its model is on the device.
        step: What computes the loss.
        own_step: Whether ``step`` is the user's own, so that a batch may be anything.

    Returns:
        Notes on what is suspicious but works.

    Raises:
        PreflightError: What cannot work, with the layer's name and the fix.
        DataError: A loader that fails to give its first batch.
    """
    notes: list[str] = []
    _check_labels(state)
    if state.engine.loss_spec.classification and not own_step:
        notes += in_order(state.train)
    sources = [("train", state.engine.train), *([("val", state.engine.val)] if state.engine.val is not None else [])]
    with _untouched(state):
        for name, source in sources:
            batch = source.finish(source.first_batch(name), state.runtime)
            if not own_step:
                check_batch(name, source.loader, batch)
            state.training = name == "train"
            state.engine.meters = state.engine.train_meters if state.training else state.engine.val_meters
            state.batch = batch
            train_mode(state.model) if state.training else state.model.eval()
            _trace(name, state, step, batch, own_step=own_step)
            notes += _none_counts(name, state)
            if state.training:
                notes += _gradients(state)
                # a custom step makes targets of its own
                notes += _softmaxed(state) + ([] if own_step else _surplus(state))
    return notes


@contextmanager
def _untouched(state: TrainState) -> Iterator[None]:
    model = state.model
    compiled, state.runtime.module = state.runtime.module, model
    modules = [one for one in (model, state.loss_fn) if isinstance(one, nn.Module)]
    try:
        with unchanged(*modules):
            yield
    finally:
        state.runtime.module = compiled
        state.training, state.engine.meters = True, state.engine.train_meters
        state.batch = state.loss = state.outputs = state.targets = None
        state.engine.train_meters.reset()
        state.engine.val_meters.reset()


def _check_labels(state: TrainState) -> None:
    train, val = (one.said("classes") if one is not None else None for one in (state.engine.train, state.engine.val))
    if train is not None and val is not None and list(train) != list(val):
        raise PreflightError(
            "train and val number their classes differently",
            got=f"train: {_some([str(one) for one in train])}; val: {_some([str(one) for one in val])}",
            expected="the same classes in the same order",
            fix="build the validation set with classes=train.classes",
        )


def _trace(name: str, state: TrainState, step: Step, batch: Any, *, own_step: bool) -> None:
    """Runs forward, loss and metrics on one batch; says which layer refused what."""
    entered: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args, path=path: entered.append((path, module, args)))
        for path, module in state.model.named_modules()
        if not any(True for _ in module.children())
    ]
    stage = "forward"
    context = torch.enable_grad() if state.training else torch.no_grad()
    try:
        with context:
            if own_step:
                loss = engine.forward(step, batch, state)
            else:
                with state.runtime.autocast():
                    outputs = state.model(batch[0])
                stage = "loss"
                check_outputs(name, state, outputs, batch[1])
                loss = engine.forward(step, batch, state)
            stage = "backward"
            _check_loss(name, state, loss, own_step=own_step)
            if state.training:
                loss.backward()  # type: ignore[no-untyped-call]
    except CvkitError:
        raise
    except Exception as error:
        raise _diagnosis(name, stage, error, entered, batch, state.model) from error
    finally:
        for handle in handles:
            handle.remove()


def _diagnosis(
    name: str,
    stage: str,
    error: Exception,
    entered: list[tuple[str, nn.Module, tuple[Any, ...]]],
    batch: Any,
    model: nn.Module,
) -> PreflightError:
    said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if stage != "forward" or not entered:
        return PreflightError(
            f"the {stage} fails on the first batch of {name}",
            got=f"{said}; the batch is {shape(batch)}",
            expected="a batch that goes through model, loss and metrics",
            fix="see the traceback above for the line",
        )
    path, module, args = entered[-1]
    given = shape(args[0]) if args else "nothing"
    return PreflightError(
        f"the forward fails in layer {path or type(module).__name__!r} ({type(module).__name__}) on the first batch of {name}",
        got=f"{said}; the layer was given {given}",
        expected=expects(module, args),
        fix=mend(path, module, args, model, batch),
    )


def _check_loss(name: str, state: TrainState, loss: Any, *, own_step: bool) -> None:
    where = "your step" if own_step else f"the loss {state.engine.loss_spec.name}"
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.ndim != 0:
        raise PreflightError(
            f"{where} does not give one number",
            got=shape(loss),
            expected="a scalar tensor",
            fix="average it: loss.mean()",
        )
    if state.training and not loss.requires_grad:
        raise PreflightError(
            f"{where} gives a number that no parameter has a part in",
            got="a loss without a graph",
            expected="a loss computed from the model's outputs",
            fix="leave out .detach(), .item() and torch.no_grad() on the way from the outputs to the loss",
        )
    if state.metrics and state.outputs is None:
        raise PreflightError(
            f"the metrics {', '.join(state.metrics)} have nothing to look at",
            got="a step that returns only the loss",
            expected="(loss, outputs, targets)",
            fix="return loss, outputs, targets from the step, or leave metrics out",
        )
    if not bool(torch.isfinite(loss)) and state.engine.weight != 0:
        raise PreflightError(
            f"the loss of the first batch of {name} is {float(loss.detach())}",
            got=f"a batch {shape(state.batch)}",
            expected="a finite number",
            fix="look for NaN in the data, for a log of zero in the loss, or take precision='fp32'",
        )


def _none_counts(name: str, state: TrainState) -> list[str]:
    """Returns a note where no target of a batch counts: its loss is 0 / 0, and the mean leaves it out."""
    if state.engine.weight != 0:
        return []
    return [
        f"no target of the first batch of {name} counts: all are ignore_index={state.engine.loss_spec.ignore_index}, or of "
        "classes of weight 0; its loss is NaN, and such a batch counts nothing in the mean and trains nothing"
    ]


def _gradients(state: TrainState) -> list[str]:
    named = [(name, p) for name, p in state.model.named_parameters() if p.requires_grad]
    unused = [name for name, p in named if p.grad is None]
    notes = []
    if unused:
        notes.append(f"{_some(unused)} took no part in the loss and will not be trained")
    loose = {id(p) for p in state.engine.loose}
    forgotten = [name for name, p in named if id(p) in loose]
    if forgotten:
        notes.append(f"no optimizer holds {_some(forgotten)}: freeze them, or add them to an optimizer")
    module = state.loss_fn
    if isinstance(module, nn.Module) and any(p.requires_grad for p in module.parameters()):
        inside = {id(p) for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in inside for p in module.parameters()):
            notes.append("the loss has trainable parameters that no optimizer holds")
    return notes


def _softmaxed(state: TrainState) -> list[str]:
    outputs = state.outputs
    if state.engine.loss_spec.name not in ("cross_entropy", "CrossEntropyLoss") or not isinstance(outputs, Tensor):
        return []
    probabilities = bool((outputs >= 0).all()) and torch.allclose(
        outputs.sum(1), torch.ones((), dtype=outputs.dtype, device=outputs.device), atol=1e-3
    )
    if not probabilities or outputs.shape[1] < 2:
        return []
    return ["the model ends in a softmax and cross entropy takes logits: remove the softmax, it trains badly twice"]


def _surplus(state: TrainState) -> list[str]:
    outputs, known = state.outputs, len(state.engine.train.said("classes") or ())
    if state.engine.loss_spec.name not in ("cross_entropy", "CrossEntropyLoss") or not isinstance(outputs, Tensor):
        return []
    if not known or outputs.ndim < 2 or outputs.shape[1] <= known:
        return []
    return [
        f"the model has {outputs.shape[1]} outputs and the data {known} classes: build the model with num_classes={known}"
    ]


def warn_of(notes: list[str]) -> None:
    """Warns of each note."""
    for note in notes:
        calls.warn(note)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
