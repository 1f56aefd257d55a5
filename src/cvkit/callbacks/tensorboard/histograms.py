"""Histograms of many tensors at once: counted by torch where the tensors are, and read in two copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BINS", "Histogram", "histograms"]

BINS = 64
"""Bins of equal width; TensorBoard draws 30."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the finite values of one tensor are distributed.

    Attributes:
        low: The smallest value.
        high: The largest value.
        count: How many values.
        total: Their sum.
        squares: The sum of their squares.
        limits: The right end of each bin.
        counts: How many values lie in each bin.
    """

    low: float
    high: float
    count: int
    total: float
    squares: float
    limits: list[float]
    counts: list[float]


@torch.no_grad()
def histograms(tensors: Mapping[str, Tensor]) -> dict[str, Histogram]:
    """Counts the values of each tensor into :data:`BINS` bins of equal width from the smallest to the largest.

    Values that are not finite are left out; a tensor without finite values has no histogram. It waits for the device twice,
    however many tensors there are.

    Args:
        tensors: Tensors of floats by name, all on one device.

    Returns:
        A histogram for each tensor that has one.
    """
    flat = {name: _flat(tensor) for name, tensor in tensors.items() if tensor.numel()}
    if not flat:
        return {}
    stats = _stats(flat)
    for name, values in flat.items():
        if not all(torch.isfinite(torch.tensor(stats[name]))):
            flat[name] = values[torch.isfinite(values)]
    flat = {name: values for name, values in flat.items() if values.numel()}
    if not flat:
        return {}
    stats = _stats(flat) if any(len(flat[name]) != tensors[name].numel() for name in flat) else stats
    counted = []
    for name, values in flat.items():
        low, high = stats[name][:2]
        counted.append(torch.histc(values, BINS, low, high) if low < high else values.new_zeros(BINS))
    table = torch.stack(counted).cpu().tolist()
    return {
        name: _histogram(stats[name], len(values), counts)
        for (name, values), counts in zip(flat.items(), table, strict=True)
    }


def _flat(tensor: Tensor) -> Tensor:
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.detach().float().reshape(-1)


def _stats(flat: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Returns smallest, largest, sum and sum of squares of each; one copy to the host for all."""
    rows = [torch.stack([*values.aminmax(), values.sum(), values.dot(values)]) for values in flat.values()]
    return dict(zip(flat, torch.stack(rows).cpu().tolist(), strict=True))


def _histogram(stats: list[float], count: int, counts: list[float]) -> Histogram:
    low, high, total, squares = stats
    if low == high:  # torch counts a range of no width into one of width two
        return Histogram(low, high, count, total, squares, [low], [float(count)])
    width = (high - low) / BINS
    # a first, empty bin ends where the values begin: a bin is told by its right end alone
    limits = [low, *(low + width * (index + 1) for index in range(BINS - 1)), high]
    return Histogram(low, high, count, total, squares, limits, [0.0, *counts])
