"""``StopOnNaN``: ends a run whose loss is no longer a number, and says where that came from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.calls import warn
from cvkit.metrics.async_scalars import AsyncScalars
from cvkit.module_state import unchanged
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["StopOnNaN"]

REASON = "nan"


class StopOnNaN(Callback):
    """Ends the run when a training loss is NaN or infinite; ``stop_reason`` is ``"nan"``.

    A warning says in which epoch, batch and step that was, and where it came from: the batch is run once more, and the samples
    that hold a NaN are named, or the weights, or the first layer whose output is not finite, or the one in whose backward pass
    the gradients cease to be.

    On a CPU each loss is looked at before its update, which is then left out: the weights stay as they were. On a GPU losses
    are read when they arrive, some steps later, and nobody waits for them; by then the weights may be spoilt. What no device
    changes: ``Checkpoint`` writes no weights that are not finite, and nothing at all from then on, so that ``last.pt`` is of
    before. Continue from it with ``StopOnNaN(wait=True)`` to come to the same place and be told what it was.

    With ``precision="fp16"`` gradients that are not finite are the loss scaler's business, and not looked at.

    Args:
        gradients: Whether to look at the gradients before each update, too: a loss may be finite and its gradient not, which
            otherwise shows in the next loss. It costs one pass over them.
        wait: Whether to wait, before each update, for what is looked at, also on a GPU. It is slow, and exact.
        diagnose: Whether to run the batch once more to see where it came from.
    """

    def __init__(self, *, gradients: bool = False, wait: bool = False, diagnose: bool = True) -> None:
        self.gradients = gradients
        self.wait = wait
        self.diagnose = diagnose
        self._arriving = AsyncScalars()
        self._nonfinite_at_start: set[str] = set()

    def on_fit_start(self, state: TrainState) -> None:
        """Begins anew."""
        self._arriving = AsyncScalars()
        self._nonfinite_at_start = set(_nonfinite_weights(state.model))  # a mask of -inf, as of attention

    def on_gradients_ready(self, state: TrainState) -> None:
        """Looks at the batch before its update, where that is possible without waiting, or waiting is asked for."""
        self._send("loss", _counting(state), state)
        if self.gradients and state.runtime.scaler is None:
            found = [p.grad for p in _trained(state) if p.grad is not None]
            self._send("gradient", torch.nn.utils.get_total_norm(found), state)
        self._look(state, wait=self.wait)
        if state.stop_reason == REASON:
            for parameter in _trained(state):
                parameter.grad = None  # an optimizer passes over a parameter that has none

    def on_batch_end(self, state: TrainState) -> None:
        """Looks at a batch that makes no update of its own, and at what has arrived."""
        if state.engine.group_open:
            self._send("loss", _counting(state), state)
        self._look(state, wait=self.wait)

    def on_epoch_end(self, state: TrainState) -> None:
        """Looks at what is still on its way."""
        self._look(state, wait=True)

    def on_fit_end(self, state: TrainState) -> None:
        """Lets go of the run."""
        self._arriving = AsyncScalars()

    def may_save(self, state: TrainState) -> bool:
        """Looks at all losses and weights; ``False`` once one is not finite, so that no file holds such weights."""
        if state.stop_reason != REASON:
            self._look(state, wait=True)
            if state.stop_reason != REASON and not set(_nonfinite_weights(state.model)) <= self._nonfinite_at_start:
                self._stop("weights", math.nan, (state.epoch, state.batch_index, state.step), state)
        return state.stop_reason != REASON

    def _send(self, what: str, value: Tensor | None, state: TrainState) -> None:
        if value is not None and state.stop_reason != REASON:
            # step + 1: the update that this batch belongs to is the next one
            self._arriving.put((what, (state.epoch, state.batch_index, state.step + 1)), value.detach())

    def _look(self, state: TrainState, *, wait: bool) -> None:
        for (what, where), value in self._arriving.all() if wait else self._arriving.arrived():
            if not math.isfinite(value) and state.stop_reason != REASON:
                self._stop(what, value, where, state)

    def _stop(self, what: str, value: float, where: tuple[int, int, int], state: TrainState) -> None:
        """Ends the run, and says what is known."""
        epoch, batch, step = where
        state.stop_reason = REASON  # whatever was asked for before: what is spoilt must not be saved
        state.engine.reported = True  # the loop need not say it again
        at = f"epoch {epoch + 1}, batch {batch} (step {step})"
        said = {
            "loss": f"the training loss is {value} in {at}",
            "gradient": f"the loss is finite, and the norm of its gradient is {value}, in {at}",
            "weights": f"the weights are no longer finite after {at}",
        }[what]
        here = what != "weights" and (epoch, batch) == (state.epoch, state.batch_index)
        lines = [f"{said}: the run ends here, and checkpoints stay as they are"]
        if self.diagnose:
            lines += [f"  {line}" for line in _diagnosis(state, here=here)]
        lines.append("  fix: a lower lr, clip_norm=1.0, precision='fp32', or see what is named above")
        warn("\n".join(lines))


def _counting(state: TrainState) -> Tensor | None:
    """Returns the batch's loss, and zero for one of which no target counts: that NaN spoils nothing."""
    if state.loss is None or not isinstance(state.engine.weight, Tensor):
        return state.loss
    return state.loss.where(state.engine.weight != 0, 0)


def _trained(state: TrainState) -> Iterator[Tensor]:
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            yield from group["params"]


def _nonfinite_weights(model: nn.Module) -> list[str]:
    """Returns the names of the weights and buffers that are not finite; waits for the device."""
    held = ((name, value) for name, value in model.state_dict().items() if isinstance(value, Tensor))
    floats = {name: value for name, value in held if value.is_floating_point() and value.numel()}
    if not floats:
        return []
    first = next(iter(floats.values())).device
    found = torch.stack([torch.isfinite(value).all().to(first) for value in floats.values()])
    return [name for name, fine in zip(floats, found.tolist(), strict=True) if not fine]


def _diagnosis(state: TrainState, *, here: bool) -> list[str]:
    """Says what a batch that is still at hand shows when it is run again; leaves no trace of it.

    Args:
        state: The run; its batch is the one in question if ``here``.
        here: Whether it is.
    """
    buffers = {name for name, _ in state.model.named_buffers()}
    nonfinite = [name for name in _nonfinite_weights(state.model) if name not in buffers]
    if nonfinite:
        return [
            f"the weights had been spoilt by an update before: {_some(nonfinite)}",
            "StopOnNaN(gradients=True, wait=True) stops before that update and names its layer; "
            "continue from the last checkpoint with it",
        ]
    if not here:
        return ["its batch is gone by now; continue from the last checkpoint with StopOnNaN(gradients=True, wait=True)"]
    inputs = _bad_inputs(state.batch)
    if inputs:
        return inputs
    if state.engine.compute is None:
        return []
    try:
        with unchanged(state.model):
            return _rerun(state)
    except Exception as error:  # the run is to end as it was found, whatever a step of the user's does the second time
        return [f"the batch could not be run once more to see where it came from: {type(error).__name__}: {error}"]


def _bad_inputs(batch: Any, where: str = "the batch") -> list[str]:
    """Names the samples of a batch that hold a value that is not finite."""
    if isinstance(batch, Tensor):
        if not (batch.is_floating_point() or batch.is_complex()) or bool(torch.isfinite(batch).all()):
            return []
        rows = (~torch.isfinite(batch)).reshape(batch.shape[0] if batch.ndim else 1, -1).any(1).nonzero().flatten()
        places = [str(place) for place in rows.tolist()]
        hold = "hold" if where.startswith("the ") and where.endswith("s") else "holds"
        whole = batch.shape[0] if batch.ndim else 1
        return [
            f"{where} {hold} values that are not finite, in {len(places)} of {whole} samples: {_some(places)} (from 0)"
        ]
    named: Any = ()
    if isinstance(batch, dict):
        named = ((f"{where}[{key!r}]", value) for key, value in batch.items())
    elif isinstance(batch, list | tuple):
        parts = ("the inputs", "the targets") if len(batch) == 2 and where == "the batch" else None
        named = ((parts[i] if parts else f"{where}[{i}]", value) for i, value in enumerate(batch))
    return [line for name, value in named for line in _bad_inputs(value, name)]


def _rerun(state: TrainState) -> list[str]:
    """Runs the batch again with an eye on every layer."""
    if state.engine.compute is None:
        return []
    first: list[str] = []
    passed: list[str] = []

    def look(path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs, inputs = list(_floats(output)), list(_floats(args))
        if not first and not _finite(outputs) and _finite(inputs):
            largest = max((float(one.detach().abs().max()) for one in inputs if one.numel()), default=0.0)
            first.append(
                f"the first layer whose output is not finite is {path or type(module).__name__!r} ({module}), "
                f"given values up to {largest:.3g}"
            )
        for one in outputs:
            if one.requires_grad:
                one.register_hook(lambda gradient, path=path: passed.append(path))  # type: ignore[no-untyped-call]

    leaves = [(path, module) for path, module in state.model.named_modules() if not any(module.children())]
    handles = [
        module.register_forward_hook(lambda module, args, output, path=path: look(path, module, args, output))
        for path, module in leaves
    ]
    try:
        with state.runtime.autocast(), torch.enable_grad():
            result = state.engine.compute(state.model, state.batch, state)
        loss, outputs = (result[0], result[1]) if isinstance(result, tuple) else (result, None)
        if not _finite([loss]):
            return first or [_blame_loss(loss, outputs)]
        return _backward(loss, passed)
    finally:
        for handle in handles:
            handle.remove()


def _blame_loss(loss: Tensor, outputs: Any) -> str:
    found = list(_floats(outputs))
    if not found or not _finite(found):
        return "no layer gives a value that is not finite: it comes from what lies between the layers, or from the loss"
    low, high = float(found[0].detach().min()), float(found[0].detach().max())
    return (
        f"the model's outputs are finite, from {low:.3g} to {high:.3g}, and the loss of them is {float(loss.detach())}: "
        "it is the loss, a log or a root of zero or a division by it, or the targets"
    )


def _backward(loss: Tensor, passed: list[str]) -> list[str]:
    """Runs backward in anomaly mode, which names the function whose gradient is not finite."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anomaly mode says that it is slow
            with torch.autograd.detect_anomaly(check_nan=True):
                loss.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        where = f"in or just before the layer {passed[-1]!r}" if passed else "between the last layer and the loss"
        return [f"the loss is finite; going back from it, the gradients cease to be {where}: {said}"]
    return ["run once more, the batch gave a finite loss and finite gradients: it depends on random numbers (dropout)"]


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _floats(one)


def _finite(values: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(one.detach()).all()) for one in values)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
