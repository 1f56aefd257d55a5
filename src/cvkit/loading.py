"""What a loader offers beyond being iterable: the protocols that training asks for and that loaders implement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["PlacedBatch", "ResumableLoader", "StatefulLoader", "samples_in"]


class PlacedBatch(Protocol):
    """A batch that knows where it stands in its epoch."""

    @property
    def place(self) -> int:
        """Its place in the epoch, from 0."""


@runtime_checkable
class ResumableLoader(Protocol):
    """A loader that can be entered at any batch of any epoch at no cost, as :class:`cvkit.data.Loader` can.

    What it gives is a pure function of the epoch and the place, so a checkpoint holds nothing but these two. It draws
    from no global random generator. ``batches`` gives raw batches, and ``finish`` makes each what the model gets.

    Attributes:
        epoch: The epoch that it stands at, from 0.
    """

    epoch: int

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""

    def batches(self, start: int = 0, device: torch.device | None = None) -> Iterator[Any]:
        """Yields the current epoch's :class:`PlacedBatch` objects from ``start`` on, ahead of time on ``device``."""

    def peek(self) -> Any | None:
        """Returns the first batch of the current epoch without starting a process or moving on."""

    def finish(self, raw: Any, /) -> Any:
        """Makes a batch of ``batches`` or ``peek`` what the model gets, on the device where it is."""


@runtime_checkable
class StatefulLoader(Protocol):
    """A loader that can say where it stands and go there, as torchdata's ``StatefulDataLoader`` can.

    The state is that after the last batch that was *taken* from the iterator, whatever has been prefetched, and holds
    tensors and plain types only. The first iteration after ``load_state_dict`` begins with the batch after that one; after
    the state at the end of an epoch it may end at once, or be that of the next epoch.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Returns where the iteration under way stands."""

    def load_state_dict(self, state: Any, /) -> None:
        """Goes to where a saved iteration stood."""


def samples_in(batch: Any) -> int:
    """Returns the number of samples in a batch: the first size of the first tensor found in it, else 1."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        if isinstance(part, Tensor | dict | list | tuple):
            return samples_in(part)
    return 1
