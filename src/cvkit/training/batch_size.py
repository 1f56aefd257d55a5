"""``find_batch_size``: how many samples fit on the device, from a few steps that leave no trace."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvkit import seeding
from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError, DeviceError
from cvkit.loading import samples_in
from cvkit.losses import LossFunction
from cvkit.module_state import train_mode, unchanged, unwrap
from cvkit.training import engine, setup
from cvkit.training.loader_checks import check_loader
from cvkit.training.loaders import adapt
from cvkit.training.optimizers import DEFAULT_LR, ready_optimizers
from cvkit.training.peer_arguments import answered_calls
from cvkit.training.runtime import Precision, Runtime
from cvkit.training.state import Step, TrainState

__all__ = ["find_batch_size"]


@answered_calls
def find_batch_size(
    model: nn.Module,
    train: Any,
    *,
    loss: str | nn.Module | LossFunction = "cross_entropy",
    optimizer: str | Optimizer | Sequence[Optimizer] | Callable[[list[nn.Parameter]], Any] = "adamw",
    step: Step | None = None,
    most: int = 4096,
    multiple: int = 8,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> int:
    """Finds the largest batch that a training step fits with into the device's memory.

    The rows of the loader's first batch are repeated to a batch of each size, and two whole steps are made with it: forward,
    backward, and an update, after which the optimizer's state is there as well. Sizes are doubled until one does not fit, and
    then bisected, down to ``multiple``.

    It leaves everything as it was: weights, buffers, gradients, modes, optimizer states and settings, the device of the
    model, random generators, and the loader's place. What torch has reserved meanwhile is given back to the device.

    On a CPU the system may end a process that takes too much instead of refusing: keep ``most`` small there.

    Args:
        model: Any module.
        train: A loader, as in ``fit``; only its first batch is looked at, and no worker starts.
        loss: As in ``fit``.
        optimizer: As in ``fit``.
        step: As in ``fit``.
        most: The largest size to try.
        multiple: The size found is a multiple of it.
        device: As in ``fit``.
        precision: As in ``fit``.

    Returns:
        The largest multiple of ``multiple``, up to ``most``, that fits. Leave some room: other batches may have other
        sizes, and validation needs memory of its own.

    Raises:
        ArgumentError: An argument that cannot work.
        DeviceError: Not even ``multiple`` samples fit.
    """
    check_integer("multiple", multiple, fix="multiple=8")
    check_integer("most", most, at_least=multiple, fix="most=4096")
    check_loader("train", train)
    batches = adapt(train)
    parts = [unwrap(one) if isinstance(one, nn.Module) else one for one in (model, loss)]
    modules = [one for one in parts if isinstance(one, nn.Module)]
    with (
        unchanged(*modules, optimizers=ready_optimizers(optimizer), generators=batches.generators()),
        batches.kept(),
    ):
        state = setup.state(
            model, train, None, Runtime(device, precision), loss=loss, metrics=(), own_step=step is not None
        )
        state.seed = seeding.peek()
        setup.add_optimizers(state, optimizer, DEFAULT_LR)
        batch = batches.first_batch()
        train_mode(state.model)
        found = _largest(lambda size: _fits(state, step or setup.usual_step(state), batch, size), multiple, most)
        _give_back(state)
    if found:
        return found
    raise DeviceError(
        f"not even {multiple} samples fit into the memory of {state.runtime.device}",
        got=f"a training step of {type(state.model).__name__} that ran out of memory",
        expected="room for one such batch",
        fix='try multiple=1, precision="bf16", cvkit.models.checkpoint_blocks(model), or smaller images',
    )


def _largest(fits: Callable[[int], bool], multiple: int, most: int) -> int:
    """Returns the largest multiple, up to ``most``, that fits; 0 for none. Doubles, then bisects."""
    low, high = 0, most // multiple + 1  # low fits, high does not or is not wanted; in multiples
    trial = 2 if multiple == 1 < most else 1  # of one sample a batch norm has no variance
    while trial < high:
        if not fits(trial * multiple):
            high = trial
            break
        low, trial = trial, 2 * trial
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * multiple) else (low, middle)
    return low * multiple


def _fits(state: TrainState, step: Step, batch: Any, size: int) -> bool:
    """Makes two steps with a batch of a size; whether memory was enough for it."""
    try:
        resized = _resized(batch, samples_in(batch), size)
        for _ in range(2):
            state.batch = state.engine.train.finish(resized, state.runtime)
            engine.forward_backward(step, state.batch, state)
            engine.finish_gradients(state)
            engine.update(state)
        if state.runtime.device.type == "cuda":
            torch.cuda.synchronize(state.runtime.device)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        gc.collect()
        return False
    finally:
        _give_back(state)
    return True


def _resized(batch: Any, count: int, size: int) -> Any:
    """Returns a batch of another size, of the rows of this one, over and over."""
    if isinstance(batch, Tensor):
        if batch.ndim == 0 or batch.shape[0] != count:
            return batch
        return batch.index_select(0, torch.arange(size, device=batch.device) % count)
    if isinstance(batch, dict):
        return {key: _resized(value, count, size) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_resized(value, count, size) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_resized(value, count, size) for value in batch)
    if batch is None or isinstance(batch, int | float | str):
        return batch
    raise ArgumentError(
        "find_batch_size cannot make batches of another size",
        got=f"a {type(batch).__name__} in a batch",
        expected="tensors, in tuples, lists and dicts",
        fix="give it a list with one such batch",
    )


def _give_back(state: TrainState) -> None:
    """Lets go of the batch and what came of it, and gives the memory back to the device."""
    state.batch = state.loss = state.outputs = state.targets = None
    state.engine.train_meters.reset()
    state.model.zero_grad()
    if state.runtime.device.type == "cuda":
        torch.cuda.empty_cache()


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch has a class for it on devices, and only words on a CPU."""
    said = str(error)
    words = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory", "CUDA out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(one in said for one in words)
