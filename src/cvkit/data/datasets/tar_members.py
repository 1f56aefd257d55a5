"""The samples of a tar file in WebDataset's layout: which parts each has and where they lie; nothing is unpacked."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cvkit.errors import DataError

__all__ = ["HEADER", "Part", "TarSample", "samples_of"]

HEADER = 512
"""Bytes of a tar file's header blocks."""

_REST = 1 << 20
"""How many bytes behind the end mark are looked at: programs fill a record with zeros, of 10 KiB as a rule."""


@dataclass(slots=True)
class Part:
    """One file in a tar file.

    Attributes:
        offset: Where its bytes begin.
        size: How many there are.
    """

    offset: int
    size: int


@dataclass(slots=True)
class TarSample:
    """Consecutive files of one name before the first dot.

    Attributes:
        key: That name, with its folders.
        parts: By what follows the dot, in lower case.
    """

    key: str
    parts: dict[str, Part] = field(default_factory=dict)


def samples_of(file: BinaryIO, name: str) -> Iterator[TarSample]:
    """Yields the samples of a tar file, in its order; hidden files and folders do not count.

    Args:
        file: The tar file, opened for reading.
        name: What to call it in messages.

    Raises:
        DataError: No tar file, a compressed or truncated one, one with data behind its end; or a member that is a link or a
            device, has an absolute name, one that leads outside, no ending, or one that comes twice.
    """
    seen: set[str] = set()
    sample: TarSample | None = None
    for member in _members(file, name):
        key, part = _key_of(member, name)
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            if key in seen:
                raise _refused(
                    name, member, "a sample whose files do not lie together", "the files of one sample in a row"
                )
            seen.add(key)
            sample = TarSample(key)
        if part in sample.parts:
            raise _refused(name, member, "a name that comes twice", "each name once")
        sample.parts[part] = Part(member.offset_data, member.size)
    if sample is not None:
        yield sample


def _members(file: BinaryIO, name: str) -> Iterator[tarfile.TarInfo]:
    try:
        # one that is not compressed: only in such a file a sample can be found by its place
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while True:
                member = tar.next()
                if member is None:
                    break
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
                if member.isdir() or _is_hidden(member.name):
                    continue
                _check(member, name)
                yield member
            _check_end(file, tar.offset, name)
    except tarfile.TarError as error:
        raise DataError(
            f"the shard {name} is no whole tar file",
            got=f"{type(error).__name__}: {error}",
            expected="a tar file that is not compressed, to its end",
            fix="unpack a .tar.gz to .tar; write or download the shard again if it is damaged",
        ) from error


def _is_hidden(path: str) -> bool:
    last = posixpath.basename(path)
    return last.startswith(".") or (last.startswith("__") and last.endswith("__"))  # the latter are webdataset's notes


def _check(member: tarfile.TarInfo, name: str) -> None:
    if not member.isreg() or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "a sparse file" if member.issparse() else "a device"
        raise _refused(name, member, kind, "plain files only")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise _refused(name, member, "a name that leads outside", "names relative to the shard, without '..'")


def _key_of(member: tarfile.TarInfo, name: str) -> tuple[str, str]:
    folder, slash, last = member.name.rpartition("/")
    stem, dot, ending = last.partition(".")
    if not dot or not ending:
        raise _refused(name, member, "a name without an ending", "key.jpg, key.cls, … as WebDataset names them")
    return folder + slash + stem, ending.lower()


def _refused(name: str, member: tarfile.TarInfo, got: str, expected: str) -> DataError:
    return DataError(
        f"the shard {name} holds {member.name!r}, which cannot be used",
        got=got,
        expected=expected,
        fix="write the shard anew without it: cvkit.data.write_shards",
    )


def _check_end(file: BinaryIO, offset: int, name: str) -> None:
    """Refuses a tar file that ends without its mark, or holds more behind it.

    Python's ``tarfile`` takes either for the end, and the samples behind it would be missing without a word.
    """
    file.seek(offset)
    mark = file.read(HEADER)
    if len(mark) < HEADER or any(mark):
        got = "no end mark" if len(mark) < HEADER else f"a header that is none at byte {offset:,}"
        raise DataError(
            f"the shard {name} is no whole tar file",
            got=got,
            expected="a tar file that is not compressed, to its end",
            fix="write or download the shard again: it is truncated or damaged",
        )
    if any(file.read(_REST)):
        raise DataError(
            f"the shard {name} holds data behind its end",
            got="bytes behind the end mark",
            expected="one tar file",
            fix="tar files that were joined by cat are to be written anew, or given as the files that they were",
        )
