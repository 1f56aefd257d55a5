"""One step, executed: feed, forward, backward, update. What runs where is the runtime's; what is known, the state's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from cvkit.errors import DataError
from cvkit.loading import samples_in
from cvkit.training import reduction
from cvkit.training.distributed import World
from cvkit.training.loaders import Adapter
from cvkit.training.optimizers import current_lrs
from cvkit.training.signals import SIGNALLED
from cvkit.training.state import Step, TrainState
from cvkit.training.torch_workers import lost

__all__ = ["feed", "finish_gradients", "forward", "forward_backward", "settle", "until_lost", "update"]


def feed(source: Adapter, state: TrainState) -> Iterator[Any]:
    """Yields the batches of the epoch under way, on the device, from the state's position on, and clocks the wait."""
    runtime = state.runtime
    start = state.batch_index if state.training else 0
    if state.training and start == 0:
        state.engine.epoch_rng = source.epoch_random()
    random = state.engine.epoch_rng if state.training else None
    # a validation has the run's own epochs, so that its numbers compare with those of another run
    epoch = state.epoch + (state.engine.first_epoch if state.training else 0)
    batches = source.open(epoch, start, random, runtime.device)
    ready = source.on_place(runtime.device)  # asked once: a device's type takes time to tell
    placed = state.training and source.places  # a loader may have left out a batch none of whose samples could be read
    if state.engine.world is not None:
        batches = shared(source, batches, state)
    clock = time.perf_counter
    began = clock()
    for batch in until_lost(batches, state):
        if not ready:
            if placed:
                state.batch_index = batch.place
            batch = source.finish(batch, runtime)
        state.data_seconds += clock() - began
        yield batch
        began = clock()


def shared(source: Adapter, batches: Iterator[Any], state: TrainState) -> Iterator[Any]:
    """Yields this rank's parts of batches, and says of each how large it is.

    Raises:
        DataError: The loader ends before its length, at which the other ranks would wait for this one.
    """
    world, count = cast(World, state.engine.world), state.batch_index if state.training else 0
    if state.training:
        world.random = torch.get_rng_state()
    try:
        for batch in batches:
            world.rows, world.total, batch = source.part(batch, world)
            count += 1
            yield batch
        if not source.places and count < len(source):
            raise DataError(
                f"{source.name} ended early on rank {world.rank}",
                got=f"{count} batches",
                expected=f"{len(source)}, as its length says: the other ranks wait for the rest",
                fix="give every rank the same number of batches",
            )
    finally:
        if state.training and world.random is not None:
            torch.set_rng_state(world.random)
            world.random = None


def settle(state: TrainState) -> None:
    """Stops the run on every rank, where one of them has asked for it."""
    if state.engine.world is not None and state.engine.world.flagged:
        state.settle_stop()


def until_lost(batches: Iterator[Any], state: TrainState) -> Iterator[Any]:
    """Yields batches; where a signal stops the run and a worker is gone with it, there are no more, and that is no error.

    Workers that fit did not start itself may end by a signal to the process group. The batch is not needed: the run is saved
    where it stands, unless that is within a group of ``accumulate`` batches.
    """
    try:
        yield from batches
    except (RuntimeError, DataError) as error:
        if not lost(error) or state.stop_reason not in SIGNALLED or state.engine.group_open:
            raise


def forward(step: Step, batch: Any, state: TrainState) -> Tensor:
    """Runs a step on a batch and files what came of it into the state.

    Returns:
        The loss, with its graph.
    """
    runtime, world = state.runtime, state.engine.world
    if world is not None:
        world.stepping = True
    if runtime.precision == "fp32":
        result = step(runtime.module, batch, state)
    else:
        with runtime.autocast():
            result = step(runtime.module, batch, state)
    if isinstance(result, tuple):
        loss, outputs, state.targets = result
        state.outputs = outputs.detach() if isinstance(outputs, Tensor) else outputs
        state.samples = samples_in(outputs)
    else:
        loss, state.outputs, state.targets = result, None, None
        state.samples = samples_in(batch)
    state.loss = loss.detach()
    state.engine.weight = weight = state.engine.loss_spec.weigh(state.targets, state.samples, loss)
    if world is not None:
        world.stepping, world.weight = state.training, weight
        state.engine.weight = weight = reduction.of_all(state, state.loss, weight, world)
    meters = state.engine.meters
    if state.engine.loss_spec.reduction == "sum":
        meters.losses.add(state.loss, 1, state.samples)
    else:
        meters.losses.add_mean(state.loss, weight)
    if state.outputs is not None and (world is None or world.rows):
        for metric in meters.metrics.values():
            metric.update(state.outputs, state.targets)
    return loss


def forward_backward(step: Step, batch: Any, state: TrainState) -> None:
    """Runs a step on a batch and adds its gradients to those of the group it belongs to."""
    scaler, world = state.runtime.scaler, state.engine.world
    if world is not None:
        world.seed_step(state.seed, state.epoch, state.batch_index)
    loss = forward(step, batch, state)
    if world is not None:
        reduction.backward(loss, world.weight, state, world)
        world.stepping = False
        state.batch_index += 1
        return
    if state.accumulate > 1 and state.engine.loss_spec.reduction == "mean":
        loss = _weighted(loss, state)
    if scaler is not None:
        loss = scaler.scale(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    state.batch_index += 1


def _weighted(loss: Tensor, state: TrainState) -> Tensor:
    """Scales a batch's mean by its share of a full group, as if every batch were as large as the group's first."""
    weight: Any = state.engine.weight
    if isinstance(weight, Tensor):
        weight = weight.to(loss.dtype)
    if isinstance(state.engine.group_size, int) and state.engine.group_size == 0:
        state.engine.group_size = _not_zero(weight) * state.accumulate
    state.engine.group_weight = state.engine.group_weight + weight
    weighted: Tensor = loss * (weight / state.engine.group_size)
    return weighted


def finish_gradients(state: TrainState) -> None:
    """Makes the gradients of a group what those of one large batch would be, and takes the loss scale off."""
    scaler, world = state.runtime.scaler, state.engine.world
    if world is not None:
        reduction.reduce_gradients(_held(state), world)
    if scaler is not None:
        for optimizer in state.optimizers:
            scaler.unscale_(optimizer)
    if state.accumulate == 1 and world is None:
        return
    size, weight = state.engine.group_size, state.engine.group_weight
    state.engine.group_size = state.engine.group_weight = 0
    if isinstance(weight, Tensor) or size != weight:
        gradients = [p.grad for p in _held(state) if p.grad is not None]
        torch._foreach_mul_(gradients, size / _not_zero(weight))


def update(state: TrainState) -> None:
    """Clips, steps every optimizer and schedule, clears the gradients and counts the update."""
    scaler = state.runtime.scaler
    if state.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(_held(state), state.clip_norm)
    state.engine.used_lrs = current_lrs(state.optimizers)  # before a schedule changes them
    for optimizer in state.optimizers:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            optimizer._opt_called = True  # type: ignore[attr-defined]  # else schedules warn of a skipped step
        optimizer.zero_grad()
    for parameter in state.engine.loose:
        parameter.grad = None
    if scaler is not None:
        scaler.update()
    for schedule in state.schedules:
        schedule.step()
    state.engine.group_open = False
    state.step += 1
    if state.max_steps is not None:
        state.stop_at_most()


def _not_zero(weight: Any) -> Any:
    """Returns a weight that can be divided by: where it is 0 no target counts, and the gradients are zeros."""
    return weight.where(weight != 0, 1) if isinstance(weight, Tensor) else weight


def _held(state: TrainState) -> list[Tensor]:
    """Returns what the optimizers hold now; callbacks may have added to it."""
    return [p for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]]
