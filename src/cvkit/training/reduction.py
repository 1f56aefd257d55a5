"""What the ranks of a run add up: the loss of a batch, its gradients, and what its metrics have counted."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.training.distributed import World, current
from cvkit.training.sync_batch_norm import batch_norms

__all__ = [
    "announce",
    "backward",
    "check_mergeable",
    "merged",
    "merged_messages",
    "of_all",
    "reduce_gradients",
    "same_start",
    "share_epoch",
]

BUCKET = 25 * 2**20
"""Bytes of gradients that go on their way together; torch's own DistributedDataParallel takes as many."""


def of_all(state: Any, loss: Tensor, weight: Tensor | float, world: World) -> Tensor:
    """Replaces the loss of this rank's part of a batch, in the state, by that of the whole batch.

    Args:
        state: The run; its ``loss`` and ``samples`` are those of all ranks afterwards.
        loss: The loss of this rank's samples, detached.
        weight: What it counts for.
        world: The ranks.

    Returns:
        What the whole batch counts for, a scalar on the device.
    """
    summed = state.engine.loss_spec.reduction == "sum"
    head = torch.zeros(4, dtype=torch.float64, device=loss.device)
    if world.rows:
        one = loss.double() * (1 if summed else weight)
        head[0] = torch.where(torch.as_tensor(weight, device=loss.device) == 0, 0, one)
        head[1], head[2] = weight, state.samples
    if loss.device.type == "cpu":
        head[3] = world.asked is not None
        world.sum_(head).wait()
        world.flagged = bool(head[3])
        state.samples = int(head[2])
    else:
        world.flagged = world.flag_arrived()
        world.sum_(head).wait()
        state.samples = world.total or state.samples * world.size
    state.loss = (head[0] if summed else head[0] / head[1]).to(loss.dtype)
    return head[1]


def backward(loss: Tensor, weight: Tensor | float, state: Any, world: World) -> None:
    """Adds the gradients of this rank's samples to those of the group, weighed by what they count for.

    Where a sample of another rank stands in, its gradients are dropped: they are computed because others wait for this rank in
    the backward pass of a batch norm.
    """
    if state.engine.loss_spec.reduction == "mean":
        if not world.nominal:
            world.nominal = max(float(max(world.gather(float(state.samples)))), 1.0)
        state.engine.group_size = world.nominal * state.accumulate
        state.engine.group_weight = state.engine.group_weight + state.engine.weight
        if isinstance(weight, Tensor):  # a count over a number would be of torch's default type
            weight = weight.to(loss.dtype)
        loss = loss * (weight / state.engine.group_size)
    if state.runtime.scaler is not None:
        loss = state.runtime.scaler.scale(loss)
    if world.rows:
        loss.backward()  # type: ignore[no-untyped-call]
        return
    parameters = [one for one in state.model.parameters() if one.requires_grad]
    kept = [one.grad for one in parameters]
    for one in parameters:
        one.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    for one, gradient in zip(parameters, kept, strict=True):
        one.grad = gradient


def reduce_gradients(parameters: Sequence[Tensor], world: World) -> None:
    """Adds up the gradients of all ranks; each then has the same bits.

    A parameter that had no gradient on any rank has none afterwards, so that an optimizer leaves it out as in one process.
    """
    flying = []
    for bucket in _buckets([one for one in parameters if one.requires_grad]):
        parts = [one.grad if one.grad is not None else torch.zeros_like(one) for one in bucket]
        used = torch.tensor([one.grad is not None for one in bucket], dtype=parts[0].dtype)
        flat = torch.cat([*(part.reshape(-1) for part in parts), used.to(parts[0].device)])
        flying.append((bucket, parts, flat, world.sum_(flat)))
    for bucket, parts, flat, work in flying:
        work.wait()
        sums = torch.split(flat[: -len(bucket)], [part.numel() for part in parts])
        torch._foreach_copy_(parts, [one.view(part.shape) for one, part in zip(sums, parts, strict=True)])
        for place, (one, part) in enumerate(zip(bucket, parts, strict=True)):
            if one.grad is None and bool(flat[place - len(bucket)] > 0):  # asked only where this rank has none
                one.grad = part


def _buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Puts parameters of one type together, the last ones first: their gradients are ready first."""
    found: list[list[Tensor]] = []
    size, seen = 0, set()
    for one in reversed(parameters):
        if id(one) in seen:
            continue
        seen.add(id(one))
        bytes_ = one.numel() * one.element_size()
        if not found or found[-1][0].dtype is not one.dtype or found[-1][0].device != one.device or size > BUCKET:
            found.append([])
            size = 0
        found[-1].append(one)
        size += bytes_
    return found


def same_start(model: nn.Module, loss: Any, world: World | None) -> None:
    """Gives every rank the weights and buffers of rank 0.

    Raises:
        ArgumentError: The ranks have built different models.
    """
    if world is None:
        return
    modules = [one for one in (model, loss) if isinstance(one, nn.Module)]
    named = [(name, one) for module in modules for name, one in (*module.named_parameters(), *module.named_buffers())]
    shapes = world.gather([f"{name} {tuple(one.shape)} {one.dtype}" for name, one in named])
    for rank, other in enumerate(shapes):
        if other != shapes[0]:
            odd = next((pair for pair in zip(shapes[0], other, strict=False) if pair[0] != pair[1]), None)
            raise ArgumentError(
                "the ranks have built different models",
                got=f"rank 0: {odd[0] if odd else f'{len(shapes[0])} tensors'}; "
                f"rank {rank}: {odd[1] if odd else f'{len(other)} tensors'}",
                expected="the same model on every rank",
                fix="let nothing in the model depend on the rank",
            )
    with torch.no_grad():
        world.spread([one for _, one in named])


def share_epoch(state: Any) -> None:
    """Gives every rank what rank 0 has logged, and its buffers, as a layer may keep some that no rank has in common."""
    world = state.engine.world
    if world is None:
        return
    state.logs = world.from_first(lambda: state.logs)
    with torch.no_grad():
        world.spread(list(state.model.buffers()))


def announce(state: Any, progress: bool) -> None:
    """Says once, on rank 0, how the batches are shared, and that batch norm is synchronised."""
    world = state.engine.world
    if world is None or not (world.first and progress):
        return
    size = state.engine.train.said("batch_size")
    share = (
        f"batches of {size} are shared, {-(-size // world.size)} samples a rank" if isinstance(size, int) else "sharded"
    )
    count = len(batch_norms(state.model))
    norms = f"; {count} batch norm layers take the statistics of all ranks" if count else ""
    print(f"{world.size} ranks: {share}{norms}", file=sys.stderr, flush=True)


# --- metrics


def check_mergeable(metrics: Mapping[str, Any], world: World | None) -> None:
    """Refuses metrics that cannot be put together from several ranks.

    Raises:
        ArgumentError: Named.
    """
    for name, metric in metrics.items() if world is not None else ():
        for part in _torchmetrics(metric):
            part.sync_on_compute = False  # it would wait for the other ranks wherever somebody looks
        if not _torchmetrics(metric) and not (hasattr(metric, "merge") and hasattr(metric, "state_dict")):
            raise ArgumentError(
                f"the metric {name!r} cannot be put together from several processes",
                got=f"{type(metric).__name__} without merge() and state_dict()",
                expected="state_dict(), and merge(states), which takes those of all ranks in their order",
                fix="give it both, or take one of cvkit's or of torchmetrics",
            )


def merged(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns metrics that have seen what those of all ranks have; with one process the same ones."""
    world = current()
    if world is None:
        return metrics
    found = {}
    for name, metric in metrics.items():
        one = copy.deepcopy(metric)
        if parts := _torchmetrics(one):
            for part in parts:
                part.sync(dist_sync_fn=_gather_any, distributed_available=lambda: True)
                part._is_synced = False  # a compute() would otherwise go back to this rank's own
        else:
            one.merge(world.gather(metric.state_dict()))
        found[name] = one
    return found


def merged_messages(parts: Sequence[Mapping[int, str]]) -> tuple[dict[int, str], ...]:
    """Returns messages by sample of all ranks, the same on each."""
    world = current()
    every = [parts] if world is None else world.gather([dict(part) for part in parts])
    return tuple({key: one for ranks in column for key, one in ranks.items()} for column in zip(*every, strict=True))


def _gather_any(value: Tensor, group: Any = None) -> list[Tensor]:
    """Returns a tensor of every rank, whatever its shape there."""
    world = current()
    return [value] if world is None else [one.to(value.device) for one in world.gather(value.cpu())]


def _torchmetrics(metric: Any) -> list[Any]:
    """Returns the torchmetrics objects in a metric: itself, or those of a collection."""
    if hasattr(metric, "keys") and hasattr(metric, "values") and isinstance(metric, nn.ModuleDict):
        list(metric.values())  # which gives each its own sums
    modules = metric.modules() if isinstance(metric, nn.Module) else ()
    return [one for one in modules if hasattr(one, "_reductions") and hasattr(one, "sync")]
