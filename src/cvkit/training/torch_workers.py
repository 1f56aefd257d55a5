"""Iterating torch loaders: their worker processes leave signals to this one, and one that is gone is told plainly."""

from __future__ import annotations

import itertools
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from cvkit import worker_signals
from cvkit.errors import DataError

__all__ = ["explain_worker_errors", "iterate", "lost"]


def lost(error: BaseException) -> bool:
    """Whether an error says that a worker process is gone, in torch's words or in those of cvkit's loader."""
    said = str(error)
    if isinstance(error, DataError):
        return said.startswith(_DIED)
    return isinstance(error, RuntimeError) and said.startswith("DataLoader worker")


_DIED = "a worker process died"

_started: weakref.WeakSet[Any] = weakref.WeakSet()
"""The iterations of torch loaders that have processes."""


@contextmanager
def explain_worker_errors() -> Iterator[None]:
    """Makes of torch's error on a lost worker one that says what is most likely; it may be raised in any line.

    Raises:
        DataError: A worker process of a torch ``DataLoader`` died.
    """
    try:
        yield
    except RuntimeError as error:
        if not lost(error):
            raise
        ends: set[str] = set()
        for batches in list(_started):  # as long as a traceback keeps it, any child that ends would raise it once more
            worker_signals.unheard(batches)
            ends |= {signal.Signals(-code).name for one in batches._workers if (code := one.exitcode or 0) < 0}
        found = DataError(
            _DIED,
            got=str(error).strip(),
            expected="processes that load until the epoch ends",
            fix=f"most likely {_likely(str(error).lower(), ends)}",
        )
        for note in getattr(error, "__notes__", ()):
            found.add_note(note)
        raise found from error


def _likely(said: str, ends: set[str]) -> str:
    if "SIGBUS" in ends or "bus error" in said:
        return "shared memory is full: give a container more (--shm-size=2g), or take fewer workers"
    if "SIGKILL" in ends or "signal: killed" in said:
        return "the system ran out of memory and ended it: take fewer workers (num_workers=0 for none)"
    if ends & {"SIGSEGV", "SIGABRT"} or "segmentation fault" in said:
        return "native code crashed, most often a decoder on a damaged file: num_workers=0 shows at which sample"
    return "memory ran out, shared memory is full (--shm-size), or code of the dataset ended it: try num_workers=0"


def iterate(loader: Any, *, now: bool = False) -> Iterator[Any]:
    """Iterates a loader; worker processes that a torch ``DataLoader`` starts meanwhile leave signals to this one.

    Args:
        loader: The loader.
        now: Whether its processes start now rather than with the first batch.
    """
    shield = worker_signals.mine()
    if isinstance(loader, DataLoader) and loader.num_workers > 0 and shield.held:
        shielded = _shielded(loader, shield)
        if not now:
            return itertools.islice(shielded, 1, None)
        next(shielded)
        return shielded
    iterator: Iterator[Any] = iter(loader)
    return iterator


def _shielded(loader: DataLoader[Any], shield: worker_signals.Shield) -> Iterator[Any]:
    """Yields once when the processes have started, and then the batches."""
    own = loader.worker_init_fn
    inside = own if isinstance(own, worker_signals.Shielded) else shield.shielded(own)
    chosen = loader.multiprocessing_context
    loader.worker_init_fn = inside
    batches: Iterator[Any] = iter(())
    try:
        with worker_signals.starting(chosen.get_start_method() if chosen is not None else None):
            batches = iter(loader)
        _started.add(batches)
        yield None
        yield from batches
    except (OSError, EOFError) as error:  # on what a worker has sent; torch asks too soon whether one has died
        if str(error).startswith("Caught ") or not worker_signals.one_ended(getattr(batches, "_workers", ()), 1.0):
            raise
        raise RuntimeError(f"DataLoader worker exited unexpectedly ({type(error).__name__}: {error})") from error
    finally:
        if loader.worker_init_fn is inside:
            loader.worker_init_fn = own
