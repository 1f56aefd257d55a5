"""What a file of saved tensors holds, told from its bytes: nothing of it is run, built or unpacked.

``torch.load(weights_only=True)`` keeps a file from running code. What it lets through, or what a program has allowed in
other places (``torch.serialization.add_safe_globals``), is still more than a checkpoint needs; and a small file may ask for
any amount of memory. So a checkpoint is looked through before it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

__all__ = ["COMMENT", "MAGIC", "excess", "foreign", "intact", "is_safetensors", "reason", "seal"]

MAGIC = b"cvkit-sha256:"
COMMENT = len(MAGIC) + 64
"""Bytes at the end of a file of cvkit's: the comment of the archive, which holds the SHA-256 of all before it."""

_CHUNK = 1 << 20
_ENOUGH = 1 << 24  # bytes of a foreign pickle that are looked through
_TYPES = ("collections.OrderedDict", "_codecs.encode", "torch.serialization._get_layout", "torch.Size", "torch.device")
_TORCH = (torch.dtype, torch.qscheme)


def is_safetensors(file: IO[bytes]) -> bool:
    """Whether a file begins as that format does: the length of a header in JSON, and the header."""
    file.seek(0)
    start = file.read(9)
    return start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= os.fstat(file.fileno()).st_size


def reason(error: Exception) -> str:
    """Returns what torch has refused in a file, without its advice to run the file all the same."""
    said = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    said = " ".join(said.partition(". Please use")[0].partition("Check the documentation")[0].split())
    return f"{type(error).__name__}: {said}"


def seal(file: IO[bytes]) -> str | None:
    """Returns the digest in the last bytes of a file; ``None`` where cvkit did not write it, or not to its end."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - COMMENT))
    comment = file.read(COMMENT)
    return comment[len(MAGIC) :].decode(errors="replace") if comment.startswith(MAGIC) else None


def intact(file: IO[bytes], sealed: str) -> bool:
    """Whether the bytes of a file are those that its digest was taken of."""
    digest = hashlib.sha256()
    left = os.fstat(file.fileno()).st_size - COMMENT - 2
    file.seek(0)
    while left > 0:
        chunk = file.read(min(_CHUNK, left))
        digest.update(chunk)
        left -= len(chunk)
    length = file.read(2)  # of the comment; it was 0 when the digest was taken
    digest.update(b"\0\0")
    return digest.hexdigest() == sealed and length == COMMENT.to_bytes(2, "little")


def excess(file: IO[bytes], size: int) -> str | None:
    """Returns what an archive has that a checkpoint of cvkit's never has; ``None`` for a sound one.

    Args:
        file: The archive, opened.
        size: Its length in bytes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return f"no archive of torch's: {error}"
    return _odd_records(records, size) or _odd_names(file, records)


def _odd_records(records: list[zipfile.ZipInfo], size: int) -> str | None:
    root = records[0].filename.partition("/")[0] + "/" if records else ""
    seen: set[str] = set()
    for record in records:
        name = record.filename
        if name.casefold() in seen:
            return f"the record {name!r} twice"
        seen.add(name.casefold())
        if not name.startswith(root) or ".." in name.split("/"):
            return f"the record {name!r} outside {root!r}"
        if (
            record.compress_type != zipfile.ZIP_STORED
            or record.compress_size != record.file_size
            or record.flag_bits & 1
        ):
            return f"the record {name!r} compressed or encrypted"
    if sum(record.file_size for record in records) > size:  # two records in the same bytes
        return f"records of {sum(record.file_size for record in records)} bytes in a file of {size}"
    if f"{root}constants.pkl" in seen:
        return "a TorchScript program"
    return None if f"{root}data.pkl" in seen else "no record 'data.pkl'"


def _odd_names(file: IO[bytes], records: list[zipfile.ZipInfo]) -> str | None:
    (record,) = (
        record for record in records if record.filename.endswith("/data.pkl") and record.filename.count("/") == 1
    )
    file.seek(record.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    file.seek(name + extra, io.SEEK_CUR)
    try:
        odd = [used for used in _names(io.BytesIO(file.read(record.file_size))) if not _is_plain(used)]
    except ValueError as error:
        return f"a broken pickle: {error}"
    return f"more than tensors and plain types: {', '.join(odd[:3])}" if odd else None


def _is_plain(name: str) -> bool:
    """Whether a name is one of those that tensors and plain types are written with."""
    module, _, last = name.rpartition(".")
    if name in _TYPES or (module == "torch._utils" and last.startswith("_rebuild_")):
        return True
    storage = last.endswith("Storage") and module in ("torch", "torch.storage")
    return storage or (module == "torch" and isinstance(getattr(torch, last, None), _TORCH))


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Yields the names that the pickle at a stream's position looks up, without looking any up.

    Raises:
        ValueError: It is broken; the names before that have been given.
    """
    texts: list[str] = []
    given: set[str] = set()
    for opcode, argument, _ in pickletools.genops(stream):
        if isinstance(argument, str) and opcode.name.endswith(("UNICODE", "UNICODE8", "STRING")):
            texts = [*texts[-1:], argument]
        name = None
        if opcode.name in ("GLOBAL", "INST"):
            name = str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            name = ".".join(texts)
        elif opcode.name.startswith("EXT"):
            name = f"extension {argument}"
        if name is not None and name not in given:
            given.add(name)
            yield name


def foreign(path: Path) -> tuple[str, str] | None:
    """Returns what a file is that cvkit did not write, and how its weights are had; ``None`` where it is not known.

    Args:
        path: A file that does not end in cvkit's checksum.
    """
    with open(path, "rb") as file:
        if is_safetensors(file):
            return "a safetensors file", f"model.load_state_dict(safetensors.torch.load_file({str(path)!r}))"
        file.seek(0)
        start = file.read(16)
        file.seek(0)
        if start.startswith(b"\x93NUMPY"):
            return "an array of NumPy's", f"torch.from_numpy(numpy.load({str(path)!r}, allow_pickle=False))"
        if start.startswith(b"PK"):
            return _foreign_archive(file, path)
        return _foreign_pickle([file.read(_ENOUGH)], path) if start.startswith(b"\x80") else None


def _foreign_archive(file: IO[bytes], path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                return "a TorchScript program", _conversion(f"torch.jit.load({str(path)!r})")
            if names and all(name.endswith(".npy") for name in names):
                return "arrays of NumPy's", f"torch.from_numpy(numpy.load({str(path)!r}, allow_pickle=False)[name])"
            streams = []
            for name in names:
                if name.endswith("/data.pkl"):
                    with archive.open(name) as record:
                        streams.append(record.read(_ENOUGH))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError):
        return None  # cut off or damaged: what it was cannot be told
    return _foreign_pickle(streams, path)


def _foreign_pickle(streams: list[bytes], path: Path) -> tuple[str, str] | None:
    odd: list[str] = []
    for stream in streams:
        rest = io.BytesIO(stream)
        with contextlib.suppress(ValueError):  # after its pickles, an older file of torch.save has bytes of tensors
            while rest.tell() < len(stream):
                odd.extend(name for name in _names(rest) if not _is_plain(name) and name not in odd)
    if not odd:
        return None
    shown = ", ".join(odd[:3]) + (", …" if len(odd) > 3 else "")
    return f"pickled Python objects: {shown}", _conversion(f"torch.load({str(path)!r}, weights_only=False)")


def _conversion(load: str) -> str:
    return (
        "reading it runs the code in it; if you trust where it comes from, take its weights out once: "
        f"torch.save({load}.state_dict(), 'weights.pt'), then "
        "model.load_state_dict(torch.load('weights.pt', weights_only=True))"
    )
