"""Parts of remote files kept on this machine's disk, up to a bound; whoever is killed leaves nothing wrong behind."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import zlib
from pathlib import Path

__all__ = ["BlockCache"]

_LOOK = 64
"""After how many new blocks a process looks at what all processes have put there."""

_KNOWN = 100_000
"""Of how many blocks a process remembers that they are sound."""

_OLD = 3_600.0
"""After how many seconds a file that somebody began to write is no longer waited for."""


class BlockCache:
    """Blocks of bytes by a name, one file each, the longest unused of which go first.

    A block appears whole or not at all, and carries a checksum; one that is damaged counts as missing. Several processes may
    use one folder.

    Args:
        folder: Where they are kept.
        limit: The largest number of bytes that they take together, but for what processes put there within a few blocks.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._new = 0
        self._sound: set[str] = set()

    def part(self, name: str, start: int, stop: int) -> bytes | None:
        """Returns a part of a block, or ``None``; each block is compared with its checksum once by each process."""
        if name not in self._sound:
            block = self.get(name)
            return block[start:stop] if block is not None else None
        try:
            with open(self._path(name), "rb", buffering=0) as file:
                file.seek(start)
                return file.read(stop - start)
        except OSError:  # another process has made room meanwhile
            self._sound.discard(name)
            return None

    def __contains__(self, name: str) -> bool:
        return name in self._sound or self._path(name).exists()

    def _path(self, name: str) -> Path:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{digest}.block"

    def get(self, name: str) -> bytes | None:
        """Returns a block, or ``None``."""
        path = self._path(name)
        try:
            data = path.read_bytes()
            os.utime(path)  # it was used now
        except OSError:  # another process may have made room meanwhile
            return None
        if len(data) < 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            return None
        if len(self._sound) >= _KNOWN:
            self._sound.clear()
        self._sound.add(name)
        return data[:-4]

    def put(self, name: str, data: bytes) -> None:
        """Keeps a block, if the disk takes it; then makes room where there is too much."""
        if len(data) > self.limit:
            return
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
                try:
                    file.write(data + zlib.crc32(data).to_bytes(4, "little"))
                    file.flush()
                    os.replace(file.name, path)
                except OSError:
                    os.unlink(file.name)
                    raise
        except OSError:  # a full or read-only disk: the bytes are fetched again when they are needed
            return
        self._new += len(data)
        if self._new >= min(self.limit // 8, _LOOK * max(len(data), 1)):
            self._new = 0
            self.make_room()

    def make_room(self) -> None:
        """Removes the longest unused blocks above the limit, and what was begun and never finished."""
        found: list[tuple[float, int, str]] = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    stat = os.stat(path)
                except OSError:
                    continue
                if name.endswith(".block"):
                    found.append((stat.st_mtime, stat.st_size, path))
                elif name.endswith(".partial") and time.time() - stat.st_mtime > _OLD:
                    _remove(path)
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self.limit:
                break
            _remove(path)
            left -= size


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:  # another process was quicker
        return False
    return True
