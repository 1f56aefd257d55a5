"""Decoded samples kept in memory, where the per-image stage gives the same each time."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from cvkit.data.fetch import Fetched

__all__ = ["AUTO_SHARE", "Cache", "free_memory"]

AUTO_SHARE = 0.25
"""The largest share of the free memory that ``cache="auto"`` takes."""


def free_memory() -> int | None:
    """Returns the bytes of memory that are free or can be freed, or ``None`` where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return _free_pages()
    return _free_pages()


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


class Cache:
    """One tensor with every sample after its per-image stage, filled as they come by.

    Args:
        count: Number of samples in the data set.
        limit: The largest number of bytes it may take; ``None`` for no bound.
    """

    def __init__(self, count: int, limit: int | None) -> None:
        self.count = count
        self.limit = limit
        self.filled = torch.zeros(count, dtype=torch.bool)
        self._images: Tensor | None = None
        self._targets: Tensor | None = None
        self._refused = False

    def holds(self, indices: Tensor) -> bool:
        """Whether every one of these samples is there."""
        return bool(self.filled[indices].all())

    def get(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images and targets of samples that are there."""
        if self._images is None or self._targets is None:
            raise IndexError("the cache is empty")
        return self._images.index_select(0, indices), self._targets.index_select(0, indices)

    def put(self, fetched: Fetched) -> None:
        """Keeps the samples of a batch, unless all of them together would not fit."""
        if self._refused or not fetched.indices:
            return
        if self._images is None or self._targets is None:
            one = fetched.images[0].nbytes + fetched.targets[0].nbytes
            if self.limit is not None and one * self.count > self.limit:
                self._refused = True
                return
            self._images = torch.empty(self.count, *fetched.images.shape[1:], dtype=fetched.images.dtype)
            self._targets = torch.empty(self.count, *fetched.targets.shape[1:], dtype=fetched.targets.dtype)
        if fetched.images.shape[1:] != self._images.shape[1:] or fetched.images.dtype != self._images.dtype:
            self._refused = True  # batches of different sizes: nothing that one tensor could hold
            self.filled.zero_()
            return
        indices = torch.tensor(fetched.indices)
        self._images[indices] = fetched.images
        self._targets[indices] = fetched.targets
        self.filled[indices] = True
