"""Batches on their way to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

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
    """Yields batches on a device; those for a CUDA device are copied one ahead, from pinned memory, beside its work.

    Args:
        batches: On the host, or on the device already.
        device: Where they are wanted; ``None`` and a CPU leave them where they are.
    """
    if device is None or device.type == "cpu":
        yield from batches
    elif device.type != "cuda":
        for raw in batches:
            yield raw._replace(images=raw.images.to(device), targets=raw.targets.to(device))
    else:
        yield from _on_a_stream(batches, device)


def _on_a_stream(batches: Iterator[RawBatch], device: torch.device) -> Iterator[RawBatch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    coming: tuple[RawBatch, torch.cuda.Event] | None = None
    for raw in batches:
        with torch.cuda.stream(stream):
            sent = raw._replace(images=_sent(raw.images, device), targets=_sent(raw.targets, device))
            done = stream.record_event()
        if coming is not None:
            yield _arrived(*coming, device)
        coming = (sent, done)
    if coming is not None:
        yield _arrived(*coming, device)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if tensor.device.type == "cuda" else tensor.pin_memory().to(device, non_blocking=True)


def _arrived(raw: RawBatch, done: torch.cuda.Event, device: torch.device) -> RawBatch:
    """Makes the device's work wait for the copy, without making the host wait, and keeps the memory until it is used."""
    current = torch.cuda.current_stream(device)
    current.wait_event(done)
    for tensor in (raw.images, raw.targets):
        tensor.record_stream(current)
    return raw
