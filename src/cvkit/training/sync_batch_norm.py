"""Batch norm over the samples of all ranks: takes the CPU, and ranks without a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvkit.training.distributed import World

__all__ = ["batch_norms", "synchronised"]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Returns the batch norm layers whose statistics are made common; none where ``model.sync_batch_norm`` is ``False``."""
    if getattr(model, "sync_batch_norm", True) is False:
        return []
    return [one for one in model.modules() if isinstance(one, _BatchNorm) and type(one).forward is _BatchNorm.forward]


@contextmanager
def synchronised(model: nn.Module, world: World | None) -> Iterator[None]:
    """Has every batch norm layer of a model normalise by the statistics of the global batch while inside.

    The modules stay what they are: their class, their names and their state are those of one process.
    """
    layers = batch_norms(model) if world is not None else []
    try:
        for layer in layers:
            layer.forward = _forward_of(layer, world)  # type: ignore[method-assign, assignment]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _forward_of(layer: Any, world: Any) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        by_batch = layer.training or layer.running_mean is None
        if not (world.stepping and by_batch):
            return _BatchNorm.forward(layer, inputs)
        layer._check_input_dim(inputs)
        weight, bias = layer.weight, layer.bias
        made, mean, variance, count = _Normalise.apply(inputs, weight, bias, layer.eps, world)
        if layer.training and layer.track_running_stats and layer.running_mean is not None:
            _track(layer, mean, variance, count)
        return made  # type: ignore[no-any-return]

    return forward


@torch.no_grad()
def _track(layer: Any, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Moves the running statistics as ``F.batch_norm`` does: the variance there is the unbiased one."""
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum if layer.momentum is not None else 1.0 / float(layer.num_batches_tracked)
    unbiased = variance * (count / (count - 1).clamp(min=1))
    layer.running_mean.mul_(1 - momentum).add_(mean.to(layer.running_mean.dtype), alpha=momentum)
    layer.running_var.mul_(1 - momentum).add_(unbiased.to(layer.running_var.dtype), alpha=momentum)


class _Normalise(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` with mean and variance over all ranks.

    The ranks' counts, means and sums of squared deviations are gathered and put together in their order, in float64 (Chan et
    al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), so that nothing cancels.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Any, bias: Any, eps: float, world: World) -> Any:
        values = inputs.float() if inputs.dtype in (torch.float16, torch.bfloat16) else inputs
        dims = [0, *range(2, inputs.ndim)]
        count = inputs.numel() // inputs.shape[1] if world.rows else 0
        mean, variance, total = _statistics(values, dims, count, world)
        inverse = (variance + eps).rsqrt().to(values.dtype)
        shape = (1, -1, *[1] * (inputs.ndim - 2))
        normal = (values - mean.to(values.dtype).view(shape)) * inverse.view(shape)
        ctx.save_for_backward(normal, weight, inverse, total)
        ctx.dims, ctx.shape, ctx.world, ctx.count, ctx.dtype = dims, shape, world, count, inputs.dtype
        made = normal
        if weight is not None:
            made = normal * weight.view(shape) + bias.view(shape)
        ctx.mark_non_differentiable(mean, variance, total)
        return made.to(inputs.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        normal, weight, inverse, total = ctx.saved_tensors
        gradient = gradient.to(normal.dtype)
        of_bias, of_weight = gradient.sum(ctx.dims), (gradient * normal).sum(ctx.dims)
        sums = torch.stack([of_bias, of_weight]).double()
        if not ctx.count:
            sums.zero_()
        ctx.world.sum_(sums).wait()
        means = (sums / total).to(normal.dtype)
        scale = inverse if weight is None else inverse * weight
        centred = gradient - means[0].view(ctx.shape) - normal * means[1].view(ctx.shape)
        of_inputs = (centred * scale.view(ctx.shape)).to(ctx.dtype)
        return of_inputs, of_weight if weight is not None else None, of_bias if weight is not None else None, None, None


def _statistics(values: Tensor, dims: list[int], count: int, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean and biased variance ``(C,)`` over all ranks in float64, and the number of values a channel."""
    channels = values.shape[1]
    own = torch.zeros(2 * channels + 1, dtype=torch.float64, device=values.device)
    if count:
        variance, mean = torch.var_mean(values, dims, correction=0)
        own[0], own[1 : channels + 1], own[channels + 1 :] = count, mean, variance * count
    every = world.gathered(own)
    counts, means, squares = every[:, :1], every[:, 1 : channels + 1], every[:, channels + 1 :]
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (squares.sum(0) + (counts * (means - mean) ** 2).sum(0)) / total
    return mean, variance, total
