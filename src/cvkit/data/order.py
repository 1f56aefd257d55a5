"""Which sample is at which place of which epoch: a pure function."""

from __future__ import annotations

import torch
from torch import Tensor

from cvkit.seeding import derive

__all__ = ["batches_of", "epoch_order", "share_of"]


def epoch_order(count: int, seed: int, epoch: int, *, shuffle: bool, weights: Tensor | None = None) -> Tensor:
    """Returns the samples of one epoch in their order.

    Args:
        count: Number of samples in the dataset.
        seed: The loader's seed.
        epoch: The epoch, from 0.
        shuffle: Whether the order is random.
        weights: Relative frequency of each sample, ``(count,)``; samples are then drawn with replacement.

    Returns:
        int64 ``(count,)``; without weights a permutation of ``0 … count - 1``.
    """
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    if weights is not None:
        return torch.multinomial(weights, count, replacement=True, generator=generator)
    return torch.randperm(count, generator=generator) if shuffle else torch.arange(count)


def batches_of(order: Tensor, size: int, *, drop_last: bool) -> list[Tensor]:
    """Cuts an epoch's order into batches.

    Args:
        order: int64 ``(count,)``.
        size: Samples to a batch.
        drop_last: Whether a smaller last batch is left out.

    Returns:
        int64 ``(size,)`` each, but the last, which may be smaller.
    """
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return parts[:-1] if drop_last and len(parts[-1]) < size else parts


def share_of(batch: Tensor, rank: int, ranks: int) -> Tensor:
    """Returns the part of a global batch that one of several processes takes.

    The parts of all ranks, one after the other, are the batch; their sizes differ by one at most, so that a batch with
    fewer samples than there are ranks leaves some of them without.

    Args:
        batch: int64 ``(B,)``.
        rank: Which process, from 0.
        ranks: How many there are.

    Returns:
        int64, ``B // ranks`` or one more.
    """
    return batch[rank * len(batch) // ranks : (rank + 1) * len(batch) // ranks]
