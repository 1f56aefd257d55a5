"""Decoded samples kept in memory, where the per-image stage gives the same each time."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from cvkit import streams
from cvkit.data.fetch import Fetched
from cvkit.errors import DataError
from cvkit.machine import processes_here

__all__ = ["AUTO_SHARE", "MOST_SHARE", "Cache", "free_memory", "too_large"]

AUTO_SHARE = 0.25
"""The largest share of the free memory that ``cache="auto"`` takes."""

MOST_SHARE = 0.8
"""The largest share of the free memory that a cache takes that was asked for."""


_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Returns the bytes of memory that are free or can be freed, or ``None`` where the system does not say.

    Processes of one run on this machine get equal parts of it.
    In a container it is what its own limit leaves, where that is less than what the machine has.
    """
    known = [size for size in (_of_machine(), _of_container(_CGROUP)) if size is not None]
    return min(known) // processes_here() if known else None


def _of_machine() -> int | None:
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


def _of_container(cgroup: Path) -> int | None:
    """Returns what a version 2 control group has left: its limit less what cannot be dropped, as file pages can."""
    try:
        limit = (cgroup / "memory.max").read_text("ascii").strip()
        used = dict(line.split() for line in (cgroup / "memory.stat").read_text("ascii").splitlines())
        return max(int(limit) - int(used["anon"]) - int(used["shmem"]), 0) if limit != "max" else None
    except (OSError, ValueError, KeyError):
        return None


class Cache:
    """One tensor with every sample after its per-image stage, filled as they come by.

    It is not pickled with its content: a copy begins empty.

    Args:
        count: Number of samples in the dataset.
        limit: The largest number of bytes it may take; ``None`` for any.
        asked: Whether it was asked for, so that samples which it cannot keep are an error.

    Attributes:
        device: Where the samples are.
    """

    def __init__(self, count: int, limit: int | None, *, asked: bool = False) -> None:
        self.count = count
        self.limit = limit
        self.asked = asked
        self.device = torch.device("cpu")
        self._filled: Tensor | None = None  # a bit a sample, once there is any
        self._skipped: Tensor | None = None
        self._images: Tensor | None = None
        self._targets: Tensor | None = None
        self._refused = False

    @classmethod
    def of(cls, images: Tensor, targets: Tensor) -> Cache:
        """Returns a cache that holds all samples already."""
        cache = cls(len(images), None)
        cache._images, cache._targets = images, targets
        cache._filled = torch.ones(len(images), dtype=torch.bool)
        return cache

    def __getstate__(self) -> dict[str, object]:
        empty = Cache(self.count, self.limit, asked=self.asked)
        return dict(empty.__dict__)

    @property
    def bytes(self) -> int:
        """What it takes, in bytes."""
        return sum(part.nbytes for part in (self._images, self._targets) if part is not None)

    @property
    def filled(self) -> Tensor:
        """Whether a sample is there, or known to be left out: bool ``(count,)``."""
        if self._filled is None:
            self._filled = torch.zeros(self.count, dtype=torch.bool)
        return self._filled

    @property
    def empty(self) -> bool:
        """Whether nothing is there that an epoch could use."""
        return self._filled is None or self._refused

    @property
    def complete(self) -> bool:
        """Whether every sample is there, or known to be left out."""
        return not self.empty and bool(self.filled.all())

    def move(self, device: torch.device) -> None:
        """Moves the samples to a device; what was on the host is let go."""
        if self._images is not None and self._targets is not None:
            self._images, self._targets = self._images.to(device), self._targets.to(device)
            self.device = device

    def holds(self, indices: Tensor) -> bool:
        """Whether every one of these samples is there, or known to be left out."""
        return not self.empty and bool(self.filled[indices].all())

    def get(self, indices: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns images and targets of samples that :meth:`holds` vouches for, or ``None`` if all are left out."""
        if self._skipped is not None:
            indices = indices[~self._skipped[indices]]
        if self._images is None or self._targets is None or len(indices) == 0:
            return None
        if self.device.type != "cpu":
            indices = streams.of(self.device).send(indices)
        return self._images.index_select(0, indices), self._targets.index_select(0, indices)

    def put(self, fetched: Fetched) -> None:
        """Keeps the samples of a batch, unless all of them together would not fit.

        Raises:
            DataError: The cache was asked for, and the samples are too large, or not all of one size and type.
        """
        if self._refused:
            return
        if fetched.skipped:
            skipped = torch.tensor(list(fetched.skipped))
            self._skipped = torch.zeros(self.count, dtype=torch.bool) if self._skipped is None else self._skipped
            self._skipped[skipped] = self.filled[skipped] = True
        if not fetched.indices:
            return
        if self._images is None or self._targets is None:
            one = fetched.images[0].nbytes + fetched.targets[0].nbytes
            if self.limit is not None and one * self.count > self.limit:
                if self.asked:
                    raise too_large(one * self.count, self.limit)
                self._refuse()
                return
            self._images = _room_for(self.count, fetched.images)
            self._targets = _room_for(self.count, fetched.targets)
        if not (_alike(fetched.images, self._images) and _alike(fetched.targets, self._targets)):
            self._answer_unlike(fetched, self._images, self._targets)
            return
        indices = torch.tensor(fetched.indices)
        self._images[indices] = fetched.images
        self._targets[indices] = fetched.targets
        self.filled[indices] = True

    def _refuse(self) -> None:
        """Keeps nothing from here on; what is there stays readable for an epoch that runs and has counted on it."""
        self._refused, self._filled = True, None

    def _answer_unlike(self, fetched: Fetched, images: Tensor, targets: Tensor) -> None:
        if not self.asked:  # "auto": these samples are just not for keeping
            self._refuse()
            return
        raise DataError(
            'cache="ram" keeps samples of one size and type only',
            got=f"images {_kind(fetched.images)} with targets {_kind(fetched.targets)}, near sample {fetched.indices[0]}",
            expected=f"images {_kind(images)} with targets {_kind(targets)}, as in the first batch",
            fix='give the loader a transform with a size, or pass cache="auto" or None',
        )


def too_large(size: int, limit: int) -> DataError:
    """Returns the error of a cache that was asked for and would not fit."""
    return DataError(
        "the cache would not fit into memory",
        got=f"about {size / 2**20:,.0f} MiB of samples",
        expected=f"at most {limit / 2**20:,.0f} MiB, which is {MOST_SHARE:.0%} of what is free",
        fix='pass cache="auto" or None, or smaller images',
    )


def _room_for(count: int, batch: Tensor) -> Tensor:
    return torch.empty(count, *batch.shape[1:], dtype=batch.dtype)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape[1:] == other.shape[1:] and one.dtype == other.dtype


def _kind(batch: Tensor) -> str:
    return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape[1:])}"
