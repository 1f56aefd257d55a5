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

__all__ = ["NAME", "Claim", "locked_directory"]

NAME = ".lock"

_held: set[Path] = set()
_open: set[IO[str]] = set()
_guard = threading.Lock()


def _leave_to_the_parent() -> None:
    """Has a forked child know nothing of its parent's locks: its copies of the files would keep them after the parent's end."""
    global _guard
    _guard = threading.Lock()  # another thread may have held it
    for file in _open:
        file.close()
    _open.clear()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class Claim:
    """A directory that is kept for one run.

    Args:
        directory: The directory.
        file: The lock's file, open and locked.
    """

    def __init__(self, directory: Path, file: IO[str]) -> None:
        self.directory = directory
        self._file = file

    def check(self) -> None:
        """Sees whether the directory is still the one that was claimed.

        Raises:
            CheckpointError: It, or the lock's file in it, has been removed or replaced since, so that another run may be there.
        """
        if os.name == "nt" or _is_there(self._file, self.directory):  # Windows does not remove an open file
            return
        path = self.directory / NAME
        raise CheckpointError(
            f"{self.directory} is not this run's directory any more",
            got=f"another {NAME} in it" if path.exists() else f"no {NAME} in it",
            expected=f"the {NAME} that this run made as it began, so that no other run writes there",
            fix="leave the directory of a run alone while it trains; run it again, with resume=True, to go on from its last "
            "checkpoint, or in another directory",
        )


@contextmanager
def locked_directory(directory: Path) -> Iterator[Claim]:
    """Keeps other runs, of this and of other processes, out of a directory.

    The lock is ``flock``'s, which belongs to the open file and goes when the last process that has it open ends, however that
    ends: nothing is left behind by a kill that could keep anybody out. A record lock of POSIX would not do: it is lost as soon
    as anything in this process closes any descriptor of the file, as a callback does that copies the directory. A forked child
    shares the open file, so it closes its copy at once: one that outlives a killed run keeps nobody out, and one that ends
    removes nothing. The file tells who holds the lock.

    Args:
        directory: Made if missing.

    Returns:
        The claim, which can be checked later.

    Raises:
        CheckpointError: Another run is at work there, or the directory cannot be made or written to.

    Warns:
        CvkitWarning: The file system has no locks.
    """
    place = directory.resolve()
    with _guard:
        if place in _held:
            raise _taken(directory, "this process")
        _held.add(place)
    owner = os.getpid()
    try:
        with _locked(directory) as file:
            _open.add(file)
            try:
                _sign(file, directory)
                yield Claim(directory, file)
            finally:
                _open.discard(file)
                # a forked child has closed its own; Windows keeps an open file, which harms nobody
                if os.getpid() == owner and (os.name == "nt" or _is_there(file, directory)):
                    with suppress(OSError):
                        (directory / NAME).unlink()
    finally:
        with _guard:
            _held.discard(place)


def _sign(file: IO[str], directory: Path) -> None:
    """Writes into the lock's file whose it is; past its buffer, which would be tried again as it is closed."""
    text = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), text.encode())
    except OSError as error:
        raise _unwritable(directory, error) from error


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
    """Whether an open file is the one under the lock's name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(directory / NAME))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _opened(directory: Path) -> IO[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return open(directory / NAME, "a+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot write to {directory}",
        got=f"{type(error).__name__}: {error}",
        expected=f"a directory for the run's files, of which {directory / NAME} is the first",
        fix="choose another directory, or see whether the disk is full or read-only",
    )


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
    """Locks an open file without waiting."""
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # of Windows only
        return
    import fcntl

    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _taken(directory: Path, holder: str) -> CheckpointError:
    return CheckpointError(
        f"another run is at work in {directory}",
        got=f"a lock of {holder}",
        expected="one run to a directory: two would write over each other's files",
        fix="wait for it, stop it, or choose another directory",
    )
