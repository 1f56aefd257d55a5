"""Which sample is at which place of which epoch: a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.data.permutation import Permutation
from cvkit.errors import unknown_name
from cvkit.seeding import derive

__all__ = [
    "BLOCK",
    "STORED",
    "Batches",
    "BlockOrder",
    "ComputedOrder",
    "Shuffle",
    "batches_of",
    "blocks_of",
    "check_order",
    "epoch_order",
    "order_kind",
    "share_of",
]

STORED = 2**24
"""Up to so many samples the order of an epoch is a tensor in memory (128 MiB); beyond it is computed as it is used."""

BLOCK = 1_024
"""Consecutive samples to a block, where a dataset has no blocks of its own."""

_CHUNK = 2**14
"""Places that are computed at a time while an epoch is iterated: a call for each batch would cost more than its numbers."""

Shuffle: TypeAlias = bool | Literal["computed", "blocks"]
Places: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class ComputedOrder:
    """The order of an epoch, of which only what is asked for is ever in memory.

    Args:
        count: Number of samples.
        function: From places, int64, to the samples there.
    """

    def __init__(self, count: int, function: Callable[[Places], Places]) -> None:
        self.count = count
        self._function = function

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: slice) -> Tensor:
        return torch.from_numpy(self._function(np.arange(*places.indices(self.count), dtype=np.int64)))


class BlockOrder:
    """Blocks in random order, and samples in random order within a window of some blocks.

    Args:
        ends: Where each block ends, int64 ``(blocks,)``: the numbers of samples summed up.
        window: How many blocks are mixed.
        seed: The loader's seed.
        epoch: The epoch, from 0.
    """

    def __init__(self, ends: Places, window: int, seed: int, epoch: int) -> None:
        self._key = seed, epoch
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        blocks = Permutation(len(ends), seed, "blocks", epoch)(np.arange(len(ends), dtype=np.int64))
        self._starts = starts[blocks]
        self._ends = np.cumsum((ends - starts)[blocks])  # of the blocks in their new order, laid one after another
        last = np.arange(window, len(ends) + window, window).clip(max=len(ends)) - 1
        self._windows = self._ends[last]
        # one permutation is made for a window however many batches ask for it
        self._within = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, window: int) -> tuple[int, Permutation]:
        start = int(self._windows[window - 1]) if window else 0
        seed, epoch = self._key
        return start, Permutation(int(self._windows[window]) - start, seed, "window", epoch, window)

    def __call__(self, places: Places) -> Places:
        """Returns the samples at some places, int64."""
        windows = np.searchsorted(self._windows, places, side="right")
        laid = np.empty_like(places)
        for window in np.unique(windows).tolist():
            chosen = windows == window
            start, within = self._within(window)
            laid[chosen] = start + within(places[chosen] - start)
        blocks = np.searchsorted(self._ends, laid, side="right")
        before = np.where(blocks > 0, self._ends[blocks - 1], 0)
        samples: Places = self._starts[blocks] + (laid - before)
        return samples


def check_order(shuffle: object, window: object) -> None:
    """Refuses a way to shuffle that is none, and a window without a block.

    Raises:
        ArgumentError: It is named.
    """
    if isinstance(shuffle, str) and shuffle not in ("computed", "blocks"):
        raise unknown_name("shuffle", shuffle, ["True", "False", "computed", "blocks"])
    check_integer("window", window, fix="window=16", expected="an integer of blocks, 1 or more")


def blocks_of(dataset: Any) -> Places:
    """Returns where each block of a dataset ends, int64: as its ``block_ends`` say, else blocks of :data:`BLOCK` samples."""
    ends = getattr(dataset, "block_ends", None)
    count = len(dataset)
    if ends is not None:
        return np.asarray(ends, dtype=np.int64)
    return np.arange(BLOCK, count + BLOCK, BLOCK, dtype=np.int64).clip(max=count)


def order_kind(shuffle: Shuffle, count: int) -> Shuffle:
    """Returns how an epoch of so many samples is shuffled: ``True`` by an order in memory, where that is small enough."""
    return "computed" if shuffle is True and count > STORED else shuffle


def epoch_order(
    count: int,
    seed: int,
    epoch: int,
    *,
    shuffle: Shuffle,
    weights: Tensor | None = None,
    blocks: Places | None = None,
    window: int = 16,
) -> Tensor | ComputedOrder:
    """Returns the samples of one epoch in their order.

    Args:
        count: Number of samples in the dataset.
        seed: The loader's seed.
        epoch: The epoch, from 0.
        shuffle: Whether the order is random; ``"computed"`` and, above :data:`STORED` samples, ``True`` give one that takes no
            memory; ``"blocks"`` one in which samples that lie together stay near one another.
        weights: Relative frequency of each sample, ``(count,)``; samples are then drawn with replacement.
        blocks: Where each block ends, for ``"blocks"``; by default there is one.
        window: How many blocks are mixed.

    Returns:
        int64 ``(count,)``, or what gives parts of such by slices; without weights a permutation of ``0 … count - 1``.
    """
    kind = order_kind(shuffle, count)
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    if weights is not None:
        return torch.multinomial(weights, count, replacement=True, generator=generator)
    if kind == "blocks":
        ends = blocks if blocks is not None else np.array([count], dtype=np.int64)
        return ComputedOrder(count, BlockOrder(ends, window, seed, epoch))
    if kind == "computed":
        return ComputedOrder(count, Permutation(count, seed, "computed order", epoch))
    if kind:
        return torch.randperm(count, generator=generator)
    return torch.arange(count) if count <= STORED else ComputedOrder(count, lambda places: places)


class Batches(Sequence[Tensor]):
    """An epoch's order cut into batches, each of them when it is asked for.

    Args:
        order: The order of ``count`` samples.
        size: Samples to a batch.
        places: Which batches.
    """

    def __init__(self, order: Tensor | ComputedOrder, size: int, places: range) -> None:
        self.order = order
        self.size = size
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Batches: ...
    def __getitem__(self, index: int | slice) -> Tensor | Batches:
        if isinstance(index, slice):
            return Batches(self.order, self.size, self.places[index])
        start = self.places[index] * self.size
        return self.order[start : start + self.size]

    def __iter__(self) -> Iterator[Tensor]:
        if not isinstance(self.order, ComputedOrder) or self.places.step != 1:
            yield from (self[place] for place in range(len(self)))
            return
        together = max(1, _CHUNK // self.size)
        for first in range(0, len(self), together):
            part = self[first : first + together].places
            yield from torch.split(self.order[part.start * self.size : part.stop * self.size], self.size)


def batches_of(order: Tensor | ComputedOrder, size: int, *, drop_last: bool) -> Batches:
    """Cuts an epoch's order into batches.

    Args:
        order: int64 ``(count,)``, or what :func:`epoch_order` gives in its place.
        size: Samples to a batch.
        drop_last: Whether a smaller last batch is left out.

    Returns:
        int64 ``(size,)`` each, but the last, which may be smaller.
    """
    count = len(order)
    return Batches(order, size, range(count // size if drop_last else -(-count // size)))


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
