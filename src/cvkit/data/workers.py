"""Who makes the batches: this process, or worker processes that outlive an epoch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from cvkit.data.fetch import Fetched, Fetcher
from cvkit.errors import CvkitError, DataError

__all__ = ["Token", "Workers", "choose_workers"]

Token = tuple[int, list[int]]
"""What a batch is made from: its epoch and the indices of its samples."""

_SMALL = 2_000
"""Below so many samples starting workers costs more than they save."""


class Workers:
    """Makes batches from tokens, in their order, the same ones with any number of processes.

    The processes start with the first batch and stay for later epochs. They serve one iteration, the one begun last; an
    older one that still runs makes its remaining batches in this process.

    Args:
        fetcher: What makes a batch.
        count: Number of processes; 0 for none but this one.
    """

    def __init__(self, fetcher: Fetcher, count: int) -> None:
        self.fetcher = fetcher
        self.count = count
        self._tokens: list[Token] = []
        self._processes: DataLoader[Fetched | CvkitError] | None = None
        self._turn = 0

    def load(self, tokens: list[Token]) -> Iterator[Fetched]:
        """Returns the batches of these tokens; the workers begin at once.

        Raises:
            CvkitError: By the iterator, for a sample that fails or a worker that dies.
        """
        if self.count == 0 or not tokens:
            return (self.fetcher(*token) for token in tokens)
        self._turn += 1
        self._tokens[:] = tokens
        if self._processes is None:
            self._processes = self._start()
        return self._take(iter(self._processes), tokens, self._turn)

    def close(self) -> None:
        """Lets the processes go; the next :meth:`load` starts new ones."""
        self._processes = None

    def _take(self, stream: Iterator[Fetched | CvkitError], tokens: list[Token], turn: int) -> Iterator[Fetched]:
        for token in tokens:
            if turn != self._turn:
                yield self.fetcher(*token)
                continue
            try:
                made = next(stream)
            except RuntimeError as error:  # what a fetcher raises comes as a value: this is torch on a lost process
                self.close()
                raise DataError(
                    "a worker process died",
                    got=error,
                    expected=f"{self.count} processes that load until the epoch ends",
                    fix="most often memory ran out: take fewer workers (workers=0 for none), or give a container more "
                    "shared memory (--shm-size)",
                ) from error
            if isinstance(made, CvkitError):
                raise made
            yield made

    def _start(self) -> DataLoader[Fetched | CvkitError]:
        return DataLoader(
            _Tokened(self.fetcher),  # type: ignore[arg-type]  # its index is a token
            batch_size=None,
            sampler=self._tokens,
            num_workers=self.count,
            collate_fn=_as_is,  # type: ignore[arg-type]  # without batch_size it gets one item
            worker_init_fn=_ignore_interrupt,
            multiprocessing_context=multiprocessing.get_context("fork") if _forks() else None,
            persistent_workers=True,
            generator=torch.Generator(),  # without one of its own it would draw from the global one
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_processes": None, "_tokens": []}  # processes stay where they are


class _Tokened:
    """A data set whose index is a whole batch's token."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher

    def __getitem__(self, token: Token) -> Fetched | CvkitError:
        """Returns a batch, or the error: raised, torch would rewrite its message around the worker's traceback."""
        try:
            return self.fetcher(*token)
        except CvkitError as error:
            cause = error.__cause__
            if cause is not None and not isinstance(cause, CvkitError):
                error.add_note("In the worker process:\n" + "".join(traceback.format_exception(cause)))
            return error

    def __len__(self) -> int:
        return len(self.fetcher.dataset)


def _as_is(made: Fetched | CvkitError) -> Fetched | CvkitError:
    return made


def _ignore_interrupt(worker: int) -> None:
    """Leaves Ctrl-C, which a terminal sends to every process, to the main one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _forks() -> bool:
    """Whether workers can start by fork: no main guard needed, nothing to pickle."""
    return sys.platform == "linux"


def choose_workers(dataset: Any) -> int:
    """Returns how many workers pay: some where many files are to be decoded and they start by fork, else none."""
    whole = dataset
    while hasattr(whole, "dataset"):  # a subset's whole
        whole = whole.dataset
    files = getattr(whole, "paths", None) is not None or hasattr(whole, "samples") or hasattr(whole, "imgs")
    if not files or len(dataset) < _SMALL or not _forks():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4) if cores > 1 else 0
