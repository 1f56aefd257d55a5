"""Batches on their way to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cvkit import streams
from cvkit.streams import Moment, Streams

__all__ = ["RawBatch", "prefetched"]


class RawBatch(NamedTuple):
    """A batch before the transform's batch stage.

    Attributes:
        images: ``(B, …)``, uint8 for images.
        targets: ``(B, …)``.
        epoch: The epoch that it belongs to.
        place: Its place in the epoch, from 0.
        finished: The batch after that stage, where it has been through it already.
    """

    images: Tensor
    targets: Tensor
    epoch: int
    place: int
    finished: tuple[Tensor, Tensor] | None = None


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
