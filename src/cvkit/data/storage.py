"""Where shards lie: any part of a file, from a disk or through fsspec."""

from __future__ import annotations

import glob
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cvkit.errors import DataError, ImageError

__all__ = ["Local", "Stamp", "Storage", "expanded", "is_remote"]

Stamp = tuple[int, str]
"""By what a changed file is known: its size, and its time or whatever tag a server gives."""

_OPEN = 64
"""How many shards a process keeps open."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Storage(Protocol):
    """What gives parts of files; it is pickled without what it holds open, and several threads may read."""

    def stamp(self, path: str) -> Stamp:
        """Returns by what a change of a file is known."""

    def read(self, path: str, offset: int, size: int, stamp: Stamp) -> bytes:
        """Returns so many bytes of a file that must not have changed."""

    def prepare(self, parts: Iterable[tuple[str, int, int, Stamp]]) -> None:
        """Is told which parts are about to be read."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file, to read it from beginning to end."""

    def content(self, path: str) -> bytes | None:
        """Returns a whole small file, or ``None`` where there is none."""

    def matches(self, pattern: str) -> list[str]:
        """Returns the files of a glob."""


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def expanded(pattern: str | Path | Iterable[str | Path], matches: Callable[[str], list[str]]) -> list[str]:
    """Returns the files that a pattern stands for.

    Args:
        pattern: A path, a glob (``*``, ``?``, ``[…]``), one with a range in braces (``{000..127}``), or several of these.
        matches: What finds the files of a glob.

    Returns:
        Those of a glob sorted, all others in the order that they are given in.
    """
    if not isinstance(pattern, str | Path):
        return [one for part in pattern for one in expanded(part, matches)]
    text = str(pattern)
    found = _RANGE.search(text)
    if found is not None:
        first, last = found.groups()
        width = len(first) if first.startswith("0") else 0
        numbers = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
        return [one for number in numbers for one in expanded(_RANGE.sub(number, text, count=1), matches)]
    if glob.has_magic(text):
        return sorted(matches(text))
    return [text]


class _Handle:
    """An open file, closed when nobody uses it any more: not while another thread still reads."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Local:
    """Files of this machine, a few of which are kept open."""

    def __init__(self) -> None:
        self._handles: OrderedDict[str, _Handle] = OrderedDict()

    def stamp(self, path: str) -> Stamp:
        """Returns size and time of last change.

        Raises:
            DataError: There is no such file.
        """
        try:
            return _stamp(os.stat(path))
        except OSError as error:
            raise DataError(
                f"cannot read the shard {path}",
                got=f"{type(error).__name__}: {error.strerror}",
                expected="a tar file",
                fix="check the path and its permissions",
            ) from error

    def read(self, path: str, offset: int, size: int, stamp: Stamp) -> bytes:
        """Returns a part of a file.

        Raises:
            ImageError: It cannot be read, or is not what it was.
        """
        try:
            handle = self._handles.get(path)
            if handle is None:
                handle = self._opened(path, stamp)
            data = os.pread(handle.number, size, offset)
        except OSError as error:
            raise ImageError(
                f"cannot read the shard {path}",
                got=f"{type(error).__name__}: {error.strerror}",
                expected="a file that can be read",
                fix="check the path and its permissions",
            ) from error
        if len(data) != size:
            raise changed(path, f"{len(data)} bytes at {offset:,}", f"{size} bytes")
        return data

    def _opened(self, path: str, stamp: Stamp) -> _Handle:
        handle = _Handle(path)
        if (now := _stamp(os.fstat(handle.number))) != stamp:
            raise changed(path, f"{now[0]:,} bytes", f"{stamp[0]:,} bytes, of the time when it was indexed")
        self._handles[path] = handle
        while len(self._handles) > _OPEN:
            self._handles.popitem(last=False)
        return handle

    def prepare(self, parts: Iterable[tuple[str, int, int, Stamp]]) -> None:
        """Does nothing: the system reads ahead by itself."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file."""
        return open(path, "rb")

    def content(self, path: str) -> bytes | None:
        """Returns a whole small file, or ``None`` where there is none."""
        return Path(path).read_bytes() if Path(path).is_file() else None

    def matches(self, pattern: str) -> list[str]:
        """Returns the files of a glob."""
        return glob.glob(pattern)

    def __getstate__(self) -> dict[str, Any]:
        return {"_handles": OrderedDict()}


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_size, str(found.st_mtime_ns)


def changed(path: str, got: str, expected: str) -> ImageError:
    """Returns the error on a shard that is not what it was when it was indexed."""
    return ImageError(
        f"the shard {path} has changed since it was indexed",
        got=got,
        expected=expected,
        fix="build the dataset again; a run that goes on needs the shards that it began with",
    )
