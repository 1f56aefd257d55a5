"""Batches on their way to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

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
