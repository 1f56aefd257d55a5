"""Several shards as one list of samples: their indexes, opened when they are used."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import numpy as np

from cvkit.data.datasets.shard_index import IndexHeader, ShardIndex, Spec, build, read_header, restamped, written
from cvkit.data.storage import Stamp, Storage, is_remote
from cvkit.errors import DataError

__all__ = ["MANIFEST", "LazyList", "ShardSet", "cache_folder", "manifest_of"]

MANIFEST = "shards.json"
"""What ``write_shards`` leaves beside the shards: the class names, and which shards there are."""

_AT_ONCE = 16
"""How many remote shards are asked for at a time."""

_OPEN = 256
"""How many indexes a process keeps mapped; a system allows some ten thousand maps."""


def cache_folder() -> Path:
    """Returns where cvkit keeps what it can make again: ``$XDG_CACHE_HOME/cvkit``, else ``~/.cache/cvkit``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvkit"


class ShardSet:
    """The samples of some shards, one after another.

    Args:
        shards: The tar files.
        spec: What of each sample is indexed.
        storage: What reads them.
        folder: Where indexes are kept that cannot lie beside their shard.

    Attributes:
        headers: What is known of each shard.
        ends: Where each shard ends among all samples, int64 ``(shards,)``.
    """

    def __init__(self, shards: Sequence[str], spec: Spec, storage: Storage, folder: Path) -> None:
        self.shards = list(shards)
        self.spec = spec
        self.storage = storage
        self.folder = folder
        with ThreadPoolExecutor(_AT_ONCE if is_remote(self.shards[0]) else 1) as pool:
            found = list(pool.map(self._found, self.shards))
        self._files = [path for path, _ in found]
        self.headers = [header for _, header in found]
        self.ends = np.cumsum([header.count for header in self.headers], dtype=np.int64)
        self._open: OrderedDict[int, ShardIndex] = OrderedDict()

    def _found(self, shard: str) -> tuple[str, IndexHeader]:
        """Returns the index file of a shard, which is built where there is none that fits."""
        stamp = self.storage.stamp(shard)
        beside = f"{shard}.{self.spec.slug}.index"
        name = (
            f"{hashlib.blake2b(os.path.abspath(shard).encode(), digest_size=8).hexdigest()}.{os.path.basename(beside)}"
        )
        kept = str(self.folder / name)
        places = [kept] if is_remote(shard) else [beside, kept]
        for path in places:
            header = read_header(path)
            if header is not None and header.stamp == stamp:
                return path, header
        data = self._sent_along(beside, stamp) if is_remote(shard) else None
        if data is None:
            with self.storage.open(shard) as file:
                data = build(file, shard, self.spec, stamp)
        for path in places:
            header = read_header(path) if written(path, data) else None
            if header is not None:
                return path, header
        raise DataError(
            f"the index of the shard {shard} can be kept nowhere",
            got=f"neither {' nor '.join(os.path.dirname(path) or '.' for path in places)} can be written to",
            expected="one of them, with room for some 40 bytes a sample",
            fix="set XDG_CACHE_HOME, or pass cache_dir=… with a folder that can be written to",
        )

    def _sent_along(self, beside: str, stamp: Stamp) -> bytes | None:
        """Returns the index that lies beside a remote shard, as ``write_shards`` leaves it; its size tells whether it fits."""
        data = self.storage.content(beside)
        return restamped(data, stamp) if data is not None else None  # times differ between machines

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """Returns the number of a sample's shard, and its place there."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - (int(self.ends[number - 1]) if number else 0)

    def index(self, number: int) -> ShardIndex:
        """Returns the arrays of a shard.

        Raises:
            DataError: The index is damaged.
        """
        found = self._open.get(number)
        if found is None:
            found = self._open[number] = ShardIndex(self._files[number], self.headers[number])
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


class LazyList(Sequence[Any]):
    """A list whose items are made when they are asked for.

    Args:
        count: How many.
        item: Makes one.
        parts: Makes all of them, as arrays or lists one after another.
        what: What they are, for messages.
    """

    def __init__(
        self, count: int, item: Callable[[int], Any], parts: Callable[[], Iterator[Any]], what: str = "samples"
    ) -> None:
        self._count = count
        self._item = item
        self._parts = parts
        self._what = what

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._item(i) for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"index {index} of {self._count} {self._what}")
        return self._item(int(index) % self._count)

    def __iter__(self) -> Iterator[Any]:
        for part in self._parts():
            yield from part.tolist() if isinstance(part, np.ndarray) else part

    def tolist(self) -> list[Any]:
        """Returns all of them."""
        return list(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        made = np.concatenate([np.asarray(part) for part in self._parts()])
        return made if dtype is None else made.astype(dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(other) == self._count and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to a list, which has none

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", …" if self._count > 3 else "")
        return f"{self._count} {self._what}: {shown}"


def manifest_of(folder: str, storage: Storage) -> dict[str, Any] | None:
    """Returns what ``write_shards`` has left in a folder, if it has.

    Raises:
        DataError: It cannot be read, or shards are still being written.
    """
    path = f"{folder}/{MANIFEST}" if folder else MANIFEST
    data = storage.content(path)
    if data is None:
        return None
    try:
        found = json.loads(data)
        if (
            isinstance(found, dict)
            and found.get("format") == "cvkit shards"
            and isinstance(found["classes"], list | None)
        ):
            return found
    except (ValueError, KeyError) as error:
        raise _no_manifest(path, f"{type(error).__name__}: {error}") from error
    raise _no_manifest(path, "another file of this name")


def _no_manifest(path: str, got: str) -> DataError:
    return DataError(
        f"{path} does not say what shards lie beside it",
        got=got,
        expected="what cvkit.data.write_shards writes",
        fix="write the shards again, or rename a file of another program",
    )
