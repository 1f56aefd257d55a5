"""One run to a directory: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cvkit.calls import warn
from cvkit.errors import CheckpointError

__all__ = ["NAME", "claimed"]

NAME = ".lock"

_held: set[Path] = set()
_guard = threading.Lock()


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Keeps other runs, of this and of other processes, out of a directory.

    The lock is the system's on an open file, which goes with the process that holds it: nothing is left behind by a kill that
    could keep anybody out. The file tells who holds it.

    Args:
        directory: Made if missing.

    Raises:
        CheckpointError: Another run is at work there, or the directory cannot be made.

    Warns:
        CvkitWarning: The file system has no locks.
    """
    place = directory.resolve()
    with _guard:
        if place in _held:
            raise _taken(directory, "this process")
        _held.add(place)
    try:
        with _locked(directory) as file:
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps an open file; it harms nobody
                    (directory / NAME).unlink()
    finally:
        with _guard:
            _held.discard(place)


def _locked(directory: Path) -> IO[str]:
    """Returns the lock's file, open and locked."""
    while True:
        file = _opened(directory)
        try:
            _lock(file, directory)
            if os.name == "nt" or _is_there(file, directory):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its holder has removed it as it left


def _is_there(file: IO[str], directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(directory / NAME))
    except FileNotFoundError:
        return False


def _opened(directory: Path) -> IO[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return open(directory / NAME, "a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {directory}",
            got=f"{type(error).__name__}: {error}",
            expected="a directory for the run's files",
            fix="choose another directory, or see whether the disk is full or read-only",
        ) from error


def _lock(file: IO[str], directory: Path) -> None:
    try:
        _take(file)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise _taken(directory, _holder(file)) from None
        warn(
            f"the file system of {directory} has no locks ({error.strerror}): see to it that no other run writes there"
        )


def _holder(file: IO[str]) -> str:
    """Returns who holds the lock, as far as that can be read: on Windows a locked file cannot."""
    try:
        file.seek(0)
        return file.read().strip() or "another process"
    except OSError:
        return "another process"


def _take(file: IO[str]) -> None:
    """Locks an open file without waiting.

    On POSIX it is a record lock, which a forked worker does not inherit: one that outlives a killed run keeps nobody out.
    """
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # of Windows only
        return
    import fcntl

    fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _taken(directory: Path, holder: str) -> CheckpointError:
    return CheckpointError(
        f"another run is at work in {directory}",
        got=f"a lock of {holder}",
        expected="one run to a directory: two would write over each other's files",
        fix="wait for it, stop it, or choose another directory",
    )
