"""Batches on their way to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cvkit import streams
from cvkit.streams import Moment, Streams

__all__ = ["Part", "RawBatch", "prefetched"]


class Part(NamedTuple):
    """Which rows of a global batch a process has.

    Attributes:
        first: The first of them.
        rows: How many; with 0 the batch holds one sample of another process, which stands in.
        total: How many the global batch has.
        lead: Whether the row before the first one, or the last of all, comes ahead of them, to be mixed with the first.
        unsure: Whether ``first`` and ``total`` are still to be counted, because samples may have been left out anywhere.
    """

    first: int
    rows: int
    total: int
    lead: bool = False
    unsure: bool = False

    def places(self) -> Tensor:
        """Returns the rows of the global batch that are here, the one ahead included."""
        if not self.rows:
            return torch.zeros(1, dtype=torch.int64)
        begin = self.first - 1 if self.lead else self.first
        return torch.arange(begin, self.first + self.rows) % self.total


class RawBatch(NamedTuple):
    """A batch before the transform's batch stage.

    Attributes:
        images: ``(B, …)``, uint8 for images.
        targets: ``(B, …)``.
        epoch: The epoch that it belongs to.
        place: Its place in the epoch, from 0.
        finished: The batch after that stage, where it has been through it already.
        part: Which rows of a global batch these are, where several processes share it.
    """

    images: Tensor
    targets: Tensor
    epoch: int
    place: int
    finished: tuple[Tensor, Tensor] | None = None
    part: Part | None = None


def prefetched(batches: Iterator[RawBatch], device: torch.device | None) -> Iterator[RawBatch]:
    """Yields batches on a device; those for a GPU are copied one ahead, from pinned memory, beside its work.

    Args:
        batches: On the host, or on the device already.
        device: Where they are wanted; ``None`` and a CPU leave them where they are.
    """
    if device is None or device.type == "cpu":
        yield from batches
        return
    queues = streams.of(device)
    ahead = _one_ahead if queues.parallel else _one_by_one
    yield from ahead(batches, queues)


def _one_by_one(batches: Iterator[RawBatch], queues: Streams) -> Iterator[RawBatch]:
    for raw in batches:
        yield _sent(raw, queues)


def _one_ahead(batches: Iterator[RawBatch], queues: Streams) -> Iterator[RawBatch]:
    side = queues.second()
    coming: tuple[RawBatch, Moment] | None = None
    for raw in batches:
        with queues.within(side):
            sent = _sent(raw, queues)
            done = queues.moment()
        if coming is not None:
            yield _arrived(*coming, queues)
        coming = (sent, done)
    if coming is not None:
        yield _arrived(*coming, queues)


def _sent(raw: RawBatch, queues: Streams) -> RawBatch:
    return raw._replace(images=queues.send(raw.images), targets=queues.send(raw.targets))


def _arrived(raw: RawBatch, done: Moment, queues: Streams) -> RawBatch:
    """Makes the device's work wait for the copy, without making the host wait, and keeps the memory until it is used."""
    queues.follow(done)
    queues.keep(raw.images)
    queues.keep(raw.targets)
    return raw
