"""A manifest as a plain text file: one line a file."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cvkit.errors import DataError

__all__ = ["FORMAT", "Entry", "read_entries", "write_entries"]

FORMAT = 1

_HEADER = f"# cvkit manifest {FORMAT}: hash (blake2b, 128 bits), bytes, modification time (ns), file"
_LINE = re.compile(r"([0-9a-f]{32})\t([0-9]+)\t(-?[0-9]+)\t(.+)")
_REPLACED = re.compile(r"# replaced ([0-9a-f]{32})\t(.+)")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = {value: key for key, value in _ESCAPES.items()}


class Entry(NamedTuple):
    """What one file was.

    Attributes:
        hash: BLAKE2b of its bytes with 128 bits, in hexadecimal digits.
        size: In bytes.
        mtime: Its modification time in nanoseconds; 0 where the file was written just before it was hashed.
    """

    hash: str
    size: int
    mtime: int


def write_entries(path: Path, entries: Mapping[str, Entry], replaced: Mapping[str, str]) -> None:
    """Writes a manifest to a temporary name beside it, and renames it.

    Raises:
        DataError: It cannot be written.
    """
    lines = [_HEADER]
    lines += [f"{entry.hash}\t{entry.size}\t{entry.mtime}\t{_escape(name)}" for name, entry in sorted(entries.items())]
    lines += [f"# replaced {old}\t{_escape(name)}" for name, old in sorted(replaced.items())]
    lines.append(f"# {len(entries)} files")
    data = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # others who may read the data may read what it was
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise DataError(
            f"the manifest {path} cannot be written",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a directory that can be written to",
            fix='name another place: dataset.manifest("manifest.txt")',
        ) from error


def read_entries(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Returns the entries of a manifest, and the earlier hash of each file that has changed since it was first written.

    Raises:
        DataError: It is missing, damaged or no manifest.
    """
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except OSError as error:
        raise DataError(
            f"the manifest {path} cannot be read",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a file that dataset.manifest() wrote",
            fix="write it: dataset.manifest()",
        ) from error
    if lines[0] != _HEADER:
        raise _damaged(path, f"the first line {lines[0][:60]!r}")
    entries: dict[str, Entry] = {}
    replaced: dict[str, str] = {}
    for number, line in enumerate(lines[1:-2], start=2):
        if found := _LINE.fullmatch(line):
            entries[_unescape(found[4])] = Entry(found[1], int(found[2]), int(found[3]))
        elif found := _REPLACED.fullmatch(line):
            replaced[_unescape(found[2])] = found[1]
        else:
            raise _damaged(path, f"line {number}: {line[:60]!r}")
    if lines[-2:] != [f"# {len(entries)} files", ""]:
        raise _damaged(path, f"{len(entries)} files, and no last line that says so")
    return entries, replaced


def _escape(name: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda found: _ESCAPES[found[0]], name)


def _unescape(name: str) -> str:
    return re.sub(r"\\[\\tnr]", lambda found: _ESCAPED[found[0]], name)


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        f"{path} is no sound manifest",
        got=got,
        expected=f"the line {_HEADER!r}, one line a file, and their number",
        fix="delete it, and write it anew: dataset.manifest()",
    )
