"""Who ends the worker processes that load data: the process that started them, and no signal from outside.

Ctrl-C, ``timeout``, SLURM and Kubernetes signal a whole process group. A worker that ended by that would take with it the
batch that the run still needs to come to its last save; torch then raises, from a handler of SIGCHLD, in whatever line is just
running.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, context
from multiprocessing.sharedctypes import RawValue
from typing import Any, TypeVar

__all__ = ["Shield", "Shielded", "mine", "one_ended", "starting", "unheard"]

Init = Callable[[int], Any]
"""What a torch ``DataLoader`` calls in each worker as it starts, with the worker's number."""

_OUTSIDE = (signal.SIGINT, signal.SIGTERM)


class Shield:
    """Says to worker processes of this process, in shared memory, whether a SIGTERM is theirs to obey.

    While it is held they ignore SIGINT and SIGTERM. They end when they are asked to by torch's own means, are killed, or their
    owner is gone; once it is let go, also by SIGTERM, which is what Python ends a worker by that hangs.

    Attributes:
        owner: The id of the process that starts the workers.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._holders = 0
        self._flag: Any = None
        self._guard = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether workers ignore signals."""
        return self._holders > 0

    def hold(self) -> None:
        """Has the workers ignore signals; once more for each call."""
        self._count(1)

    def let_go(self) -> None:
        """Takes one :meth:`hold` back; in a process that has been forked off since, does nothing."""
        self._count(-1)

    def _count(self, by: int) -> None:
        if os.getpid() != self.owner:
            return
        with self._guard:
            self._holders = max(self._holders + by, 0)
            if self._flag is not None:
                self._flag.value = self.held

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Holds it inside."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def shielded(self, init: Init | None = None) -> Shielded:
        """Returns a ``worker_init_fn`` that shields the worker and then calls the one given."""
        with self._guard:
            if self._flag is None:
                self._flag = RawValue(ctypes.c_bool, self.held)
        return Shielded(self.owner, self._flag, init)


@contextmanager
def starting(method: str | None = None) -> Iterator[None]:
    """Holds signals back from workers that start inside, until each has come to its ``worker_init_fn``.

    A process inherits which signals wait; those to this process wait as well, until the end of it.

    Args:
        method: How the workers start; ``None`` for the script's usual way.
    """
    method = method or multiprocessing.get_start_method()
    if not hasattr(signal, "pthread_sigmask") or method == "forkserver":  # its workers inherit from the server
        yield
        return
    if method == "spawn":  # started by the first worker otherwise, it would let signals through again
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OUTSIDE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_T = TypeVar("_T")


def unheard(batches: _T) -> _T:
    """Has torch not raise when a worker of an iteration dies, from a handler of SIGCHLD in whatever line is just running.

    Whoever waits for a batch finds out: torch looks after its workers where none comes in time.

    Args:
        batches: What ``iter`` of a torch ``DataLoader`` returned.

    Returns:
        The same.
    """
    from torch.utils.data._utils import signal_handling

    if getattr(batches, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(batches))  # type: ignore[attr-defined]  # torch imports it there
        batches._worker_pids_set = False  # type: ignore[attr-defined]
    return batches


def one_ended(processes: Iterable[multiprocessing.process.BaseProcess], seconds: float) -> bool:
    """Whether a process has ended; its exit code is then there.

    Both may come a moment after its connection is gone, and so this waits for them, at most so long for each.
    """
    by_sentinel = {process.sentinel: process for process in processes}
    ended = [by_sentinel[one] for one in connection.wait(list(by_sentinel), seconds) if isinstance(one, int)]
    for process in ended:
        process.join(seconds)
    return bool(ended)


_shield = Shield()


def mine() -> Shield:
    """Returns this process's shield, which ``fit`` holds while it trains."""
    global _shield
    if _shield.owner != os.getpid():
        _shield = Shield()
    return _shield


class Shielded:
    """A ``worker_init_fn`` that keeps signals from outside away from its worker.

    It goes to a worker however that starts; pickled for any other purpose it is the function inside.

    Args:
        owner: The id of the process that starts the workers.
        flag: Whether SIGTERM is to be ignored, in shared memory.
        init: Called after it, or ``None``.
    """

    def __init__(self, owner: int, flag: Any, init: Init | None) -> None:
        self.owner = owner
        self.flag = flag
        self.init = init

    def __call__(self, worker: int) -> None:
        """Shields this process, unless it is the owner (a loader may have threads for workers)."""
        if os.getpid() != self.owner:
            _ignore(self.owner, self.flag)
        if self.init is not None:
            self.init(worker)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if context.get_spawning_popen() is None:
            return _itself, (self.init,)
        return Shielded, (self.owner, self.flag, self.init)


def _itself(init: Init | None) -> Init | None:
    return init


def _ignore(owner: int, flag: Any) -> None:
    """Has this worker ignore SIGINT, and SIGTERM while the flag says so and the owner lives.

    A thread looks at what Python's handler of signals writes to a pipe: code that hangs outside of Python, such as a read from
    a dead network drive, keeps handlers written in Python from being run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "nt":  # there SIGTERM is no signal: it ends a process at once
        return
    if os.getppid() != owner:
        _watch_owner()
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _leave_it_to_the_thread)
    signal.siginterrupt(signal.SIGTERM, False)  # a call into the system that is under way goes on

    def obey() -> None:
        while True:
            if signal.SIGTERM in os.read(read, 64) and not (flag.value and _lives(owner)):
                os._exit(0)

    threading.Thread(target=obey, name="cvkit-signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OUTSIDE)


def _leave_it_to_the_thread(number: int, frame: object) -> None:
    """Stands for a handler: only with one does a signal get into the pipe."""


def _lives(owner: int) -> bool:
    return os.getppid() == owner or _Watchdog().is_alive()


class _Watchdog:
    """Tells a worker of a fork server whether the process that asked for it lives."""

    def is_alive(self) -> bool:
        parent = multiprocessing.process.parent_process()
        return parent is not None and parent.is_alive()


def _watch_owner() -> None:
    """Has torch's loop in this worker look after the owner rather than the parent, which is the fork server.

    SIGTERM to the group ends that server; its workers would take it for the end of the run.
    """
    from torch.utils.data._utils import worker

    worker.ManagerWatchdog = _Watchdog  # type: ignore[assignment, misc]
