"""Queues of work on a device, and moments in them: the one file that knows CUDA's streams and events.

The host queues work and goes on; a GPU does it later, in the order of its queue. Who copies beside that work, or reads what
comes back from it, asks here: :func:`of` gives what fits the device, and everybody else writes one code path for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["KINDS", "CudaMoment", "CudaStreams", "Moment", "Streams", "of"]


class Moment:
    """A place in a queue: what was queued before it, and what comes after. Here the work is done when a call returns."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def passed(self) -> bool:
        """Whether everything before it is done; never waits."""
        return True

    def wait(self) -> None:
        """Makes the host wait until everything before it is done."""

    def seconds_until(self, later: Any) -> float:
        """Returns the time from this moment to a later one of the same device; both must have passed."""
        return float(later._at - self._at)


class Streams:
    """The queues of a device whose work is done when a call returns, or that has only one (CPU, MPS): nothing to order.

    Args:
        device: The device.

    Attributes:
        parallel: Whether copies may run beside other work.
    """

    parallel = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def second(self) -> Any:
        """Returns another queue, which runs beside the one in use."""
        return None

    def within(self, queue: Any) -> AbstractContextManager[Any]:
        """Returns a context inside of which work goes into a queue of :meth:`second`."""
        return nullcontext()

    def moment(self, *, timing: bool = False) -> Moment:
        """Marks the end of the queue in use as it is now.

        Args:
            timing: Whether :meth:`Moment.seconds_until` will be asked.
        """
        return Moment()

    def follow(self, moment: Any) -> None:
        """Lets what is queued from here on begin after a moment of another queue; the host does not wait."""

    def keep(self, tensor: Tensor) -> None:
        """Keeps the memory of a tensor that another queue has made from being used again before the queue in use is done."""

    def send(self, tensor: Tensor) -> Tensor:
        """Returns a tensor on the device; a copy from the host does not make the host wait, where the device has that."""
        return tensor.to(self.device)

    def buffer(self, like: Tensor) -> Tensor:
        """Returns an empty tensor on the host, of the layout of another, that :meth:`fetch` fills without waiting."""
        return torch.empty_like(like, device="cpu")

    def fetch(self, tensor: Tensor, buffer: Tensor) -> Tensor:
        """Queues a copy from the device into a buffer, which holds it when a :meth:`moment` marked afterwards has passed."""
        return buffer.copy_(tensor)


class CudaMoment(Moment):
    """A CUDA event.

    Args:
        stream: The stream at whose end it stands.
        timing: Whether it takes the time.
    """

    def __init__(self, stream: Any, *, timing: bool) -> None:
        self.event: Any = torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]
        self.event.record(stream)

    def passed(self) -> bool:
        """Whether everything before it is done."""
        return bool(self.event.query())

    def wait(self) -> None:
        """Makes the host wait for it."""
        self.event.synchronize()

    def seconds_until(self, later: Any) -> float:
        """Returns the time between two events, as the device took it."""
        return float(self.event.elapsed_time(later.event)) / 1000


class CudaStreams(Streams):
    """CUDA's streams: always the current stream of this device, whichever device is the current one of the process."""

    parallel = True

    def second(self) -> Any:
        """Returns a new stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def within(self, queue: Any) -> AbstractContextManager[Any]:
        """Returns ``torch.cuda.stream``'s context."""
        context: AbstractContextManager[Any] = torch.cuda.stream(queue)
        return context

    def moment(self, *, timing: bool = False) -> CudaMoment:
        """Records an event."""
        return CudaMoment(torch.cuda.current_stream(self.device), timing=timing)

    def follow(self, moment: CudaMoment) -> None:
        """Lets the current stream wait for an event."""
        torch.cuda.current_stream(self.device).wait_event(moment.event)

    def keep(self, tensor: Tensor) -> None:
        """Tells torch's allocator that the current stream uses a tensor."""
        tensor.record_stream(torch.cuda.current_stream(self.device))

    def send(self, tensor: Tensor) -> Tensor:
        """Copies from pinned memory, which torch frees once the copy is done."""
        return tensor if tensor.device.type == "cuda" else tensor.pin_memory().to(self.device, non_blocking=True)

    def buffer(self, like: Tensor) -> Tensor:
        """Returns pinned memory."""
        return torch.empty_like(like, device="cpu", pin_memory=True)

    def fetch(self, tensor: Tensor, buffer: Tensor) -> Tensor:
        """Queues the copy."""
        return buffer.copy_(tensor, non_blocking=True)


KINDS: dict[str, Callable[[torch.device], Streams]] = {"cuda": CudaStreams}
"""What :func:`of` returns, by the type of a device; :class:`Streams` for all that are not named."""


def of(device: torch.device) -> Streams:
    """Returns the queues of a device."""
    return KINDS.get(device.type, Streams)(device)
