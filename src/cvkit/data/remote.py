"""Shards behind a URL, through fsspec: parts of files, asked for again a bounded number of times, and kept on disk."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from cvkit.data.block_cache import BlockCache
from cvkit.data.storage import Stamp, changed
from cvkit.errors import CvkitError, DataError, ImageError, MissingDependencyError

__all__ = ["BLOCK_BYTES", "Remote"]

T = TypeVar("T")

BLOCK_BYTES = 1 << 20
"""Bytes that are fetched at a time: a request costs more than so many bytes, and neighbours are wanted next."""

_AT_ONCE = 16
"""How many requests a process has under way."""

_TRIES = 5
_WAIT = 0.2
"""Seconds before the second try; each further one waits twice as long."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ImportError)
"""What another try does not mend."""

_TAGS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


_INHERITED: list[Any] = []
"""What this process got by a fork. Were it let go, it would close its connections, and take them out of the list of those that
the parent's event loop listens to: the two share it, and the parent would wait for its answers in vain."""


class Remote:
    """Files behind URLs of one kind.

    Args:
        url: One of them, which tells the kind.
        options: What fsspec is given.
        folder: Where parts of files are kept.
        limit: The largest number of bytes that these take.

    Raises:
        MissingDependencyError: fsspec, or what it needs for this kind, is not installed.
        DataError: fsspec does not know this kind.
    """

    def __init__(self, url: str, options: Mapping[str, Any], folder: Path, limit: int) -> None:
        self.url = url
        self.options = dict(options)
        self.cache = BlockCache(folder / "blocks", limit)
        self._opened: tuple[int, Any] | None = None
        self._system()

    def _system(self) -> Any:
        """Returns fsspec's file system, a new one in each process: its threads do not outlive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            _INHERITED.append(self._opened)
            try:
                import fsspec

                # one of its own: those that fsspec shares it lets go in a forked process
                system, _ = fsspec.core.url_to_fs(self.url, **{**self.options, "skip_instance_cache": True})
            except ImportError as error:
                raise MissingDependencyError(
                    f"{self.url.partition('://')[0]}:// is read through fsspec, and something is not installed",
                    got=error,
                    expected="fsspec, and the package for this kind of URL (aiohttp, s3fs, gcsfs, …)",
                    fix='pip install "cvkit[remote]"',
                ) from error
            except ValueError as error:
                raise DataError(
                    f"fsspec does not know what {self.url} is",
                    got=error,
                    expected="a URL such as https://…, s3://…, gs://…",
                    fix="check the URL and storage_options",
                ) from error
            self._opened = (os.getpid(), system)
        return self._opened[1]

    def _asked(self, what: str, ask: Callable[[], T], kind: type[DataError] = DataError) -> T:
        """Returns an answer, for which it is asked a few times.

        Raises:
            DataError: There is none; ``kind`` of it.
        """
        for attempt in range(_TRIES):
            try:
                return ask()
            except CvkitError:
                raise
            except Exception as error:  # each file system has errors of its own
                if isinstance(error, _FINAL) or attempt == _TRIES - 1:
                    raise kind(
                        f"cannot read {what}",
                        got=f"{type(error).__name__}: {error}" + (f" ({attempt + 1} times)" if attempt else ""),
                        expected="a server that gives parts of files",
                        fix="check the URL, the network and storage_options; a run goes on with resume=True",
                    ) from error
                time.sleep(_WAIT * 2**attempt)
        raise kind(f"cannot read {what}")  # the last try has returned or raised

    def matches(self, pattern: str) -> list[str]:
        """Returns the files of a glob, as URLs."""
        system = self._system()
        return self._asked(pattern, lambda: [system.unstrip_protocol(one) for one in system.glob(pattern)])

    def stamp(self, path: str) -> Stamp:
        """Returns the size, and what else the server tells by which a change is known.

        Raises:
            DataError: There is no such file, or the server does not answer or does not tell its size.
        """
        system = self._system()

        def ask() -> dict[str, Any]:
            system.invalidate_cache()
            found: dict[str, Any] = system.info(path)
            return found

        found = self._asked(f"the shard {path}", ask)
        if not isinstance(found.get("size"), int):
            raise DataError(
                f"the server does not tell the size of {path}",
                got=f"{found.get('size')}",
                expected="a number of bytes, as servers tell that give parts of files",
                fix="use another server, or copy the shards to this machine",
            )
        return found["size"], next((str(found[tag]) for tag in _TAGS if found.get(tag)), "")

    def read(self, path: str, offset: int, size: int, stamp: Stamp) -> bytes:
        """Returns a part of a file, from the blocks on this machine as far as they are there.

        Raises:
            ImageError: The server does not give it.
        """
        parts = []
        for number in range(offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES + 1):
            begin = number * BLOCK_BYTES
            start, stop = max(offset - begin, 0), min(offset + size - begin, BLOCK_BYTES)
            part = self.cache.part(_name(path, stamp, number), start, stop)
            parts.append(part if part is not None else self._block(path, stamp, number)[start:stop])
        found = b"".join(parts)
        if len(found) != size:
            raise changed(path, f"{len(found)} bytes at {offset:,}", f"{size} bytes")
        return found

    def prepare(self, parts: Iterable[tuple[str, int, int, Stamp]]) -> None:
        """Fetches what of some parts is not on this machine yet, several blocks at a time; what fails is left to :meth:`read`.

        Args:
            parts: As the arguments of :meth:`read`.
        """
        wanted = {
            (path, stamp, number)
            for path, offset, size, stamp in parts
            for number in range(offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES + 1)
        }
        missing = [one for one in wanted if _name(*one) not in self.cache]
        if len(missing) < 2:
            return
        with ThreadPoolExecutor(min(len(missing), _AT_ONCE)) as pool:
            coming = [pool.submit(self._block, *one) for one in missing]
        failed = [one for one in coming if one.exception() is not None]
        if failed and not isinstance(failed[0].exception(), CvkitError):
            failed[0].result()

    def _block(self, path: str, stamp: Stamp, number: int) -> bytes:
        data = self._fetched(path, number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, stamp[0]))
        self.cache.put(_name(path, stamp, number), data)
        return data

    def _fetched(self, path: str, start: int, stop: int) -> bytes:
        system = self._system()

        def ask() -> bytes:
            data: bytes = system.cat_file(path, start=start, end=stop)
            if len(data) != stop - start:
                raise OSError(f"{len(data)} bytes instead of {stop - start}")
            return data

        return self._asked(f"bytes {start:,} to {stop:,} of the shard {path}", ask, ImageError)

    def open(self, path: str) -> BinaryIO:
        """Opens a file, to read it from beginning to end through the blocks."""
        return io.BufferedReader(_Stream(self, path, self.stamp(path)), BLOCK_BYTES)

    def content(self, path: str) -> bytes | None:
        """Returns a whole small file, or ``None`` where there is none."""
        system = self._system()

        def ask() -> bytes | None:
            try:
                data: bytes = system.cat_file(path)
            except FileNotFoundError:
                return None
            return data

        return self._asked(path, ask)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def _name(path: str, stamp: Stamp, number: int) -> str:
    return f"{path} {stamp} {BLOCK_BYTES} {number}"


class _Stream(io.RawIOBase):
    """A remote file, as the standard library's readers take it."""

    def __init__(self, remote: Remote, path: str, stamp: Stamp) -> None:
        self._remote = remote
        self._path = path
        self._stamp = stamp
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._stamp[0])[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), self._stamp[0] - self._place)
        if size <= 0:
            return 0
        view[:size] = self._remote.read(self._path, self._place, size, self._stamp)
        self._place += size
        return size
