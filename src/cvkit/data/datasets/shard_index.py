"""The index of one shard: where each sample lies and what its label is, in a file that is memory-mapped."""

from __future__ import annotations

import io
import json
import mmap
import os
import re
import tempfile
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO, Literal

import numpy as np

from cvkit.data.datasets.tar_members import Part, TarSample, samples_of
from cvkit.data.storage import Stamp
from cvkit.errors import DataError

__all__ = ["IndexHeader", "ShardIndex", "Spec", "build", "read_header", "restamped", "written"]

_MAGIC = b"cvkit shard index 1\n"
_ALIGN = 64
_TEXTS = ("cls", "txt")
_LONGEST_LABEL = 1 << 20


@dataclass(frozen=True)
class Spec:
    """What of each sample is indexed.

    Attributes:
        images: The endings that count as images, without their dot.
        target: The ending of the part that holds the target.
        label: The field of a JSON part, or none where all of it is the target.
        kind: Whether targets are classes or numbers.
    """

    images: tuple[str, ...]
    target: str
    label: str | None
    kind: Literal["class", "value"]

    @property
    def slug(self) -> str:
        """A short name, of which no two are the same."""
        digest = blake2b(repr(self).encode(), digest_size=4).hexdigest()
        return f"{re.sub('[^a-z0-9]', '-', self.target)}-{digest}"


@dataclass(frozen=True)
class IndexHeader:
    """What is known of a shard without looking at its samples.

    Attributes:
        stamp: By what a change of the shard is known.
        count: How many samples it has.
        labels: The labels that are found in it, as text, in the order of their codes.
        digest: A hash over keys, endings, sizes and targets.
        width: Numbers to a target, 0 for one that is no list.
        endings: The endings of its images, in the order of their codes.
        arrays: Type, shape and place of each array in the file.
        checksum: Of these arrays.
    """

    stamp: Stamp
    count: int
    labels: list[str]
    digest: str
    width: int
    endings: list[str]
    arrays: dict[str, tuple[str, list[int], int]]
    checksum: int


class ShardIndex:
    """The arrays of an index, memory-mapped: workers share their pages.

    Args:
        path: The index file.
        header: What :func:`read_header` has read of it.

    Attributes:
        offsets: Where each image begins in the shard, int64 ``(count,)``.
        sizes: Its bytes, int64 ``(count,)``.
        targets: Codes of labels, int32 ``(count,)``, or numbers, float64 ``(count, width)``.

    Raises:
        DataError: The file is damaged.
    """

    def __init__(self, path: str, header: IndexHeader) -> None:
        self._header = header
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = _start_of(data)
        if zlib.crc32(memoryview(data)[start:]) != header.checksum:
            raise DataError(
                f"the index {path} is damaged",
                got="a checksum that does not fit",
                expected="the index as it was written",
                fix="delete it: it is built again",
            )
        arrays = {
            name: np.frombuffer(data, dtype, int(np.prod(shape)), start + offset).reshape(shape)
            for name, (dtype, shape, offset) in header.arrays.items()
        }
        self.offsets, self.sizes, self.targets = arrays["offsets"], arrays["sizes"], arrays["targets"]
        self._keys, self._ends, self._endings = arrays["keys"], arrays["ends"], arrays["endings"]

    def name(self, place: int) -> str:
        """Returns the name of a sample's image in the shard."""
        start = int(self._ends[place - 1]) if place else 0
        key = self._keys[start : int(self._ends[place])].tobytes().decode("utf-8", "surrogateescape")
        return f"{key}.{self._header.endings[int(self._endings[place])]}"


def build(file: BinaryIO, name: str, spec: Spec, stamp: Stamp) -> bytes:
    """Reads through a shard and returns its index.

    Args:
        file: The tar file.
        name: What to call it in messages.
        spec: What is indexed.
        stamp: By what a change of the shard is known.

    Raises:
        DataError: The tar file cannot be used, or samples lack an image or a target, or have several.
    """
    keys, ends, endings = bytearray(), array("q"), array("B")
    offsets, sizes = array("q"), array("q")
    codes: dict[str, int] = {}
    kinds: dict[str, int] = {}
    targets: list[Any] = []
    lacking: list[str] = []
    for sample in samples_of(file, name):
        ending = _image_of(sample, spec, name)
        if ending is None or spec.target not in sample.parts:
            lacking.append(sample.key)
            continue
        found = _target(file, sample.parts[spec.target], spec, f"{name}/{sample.key}.{spec.target}")
        targets.append(codes.setdefault(found, len(codes)) if isinstance(found, str) else found)
        keys += sample.key.encode("utf-8", "surrogateescape")
        ends.append(len(keys))
        endings.append(kinds.setdefault(ending, len(kinds)))
        offsets.append(sample.parts[ending].offset)
        sizes.append(sample.parts[ending].size)
    _check_whole(name, lacking, len(offsets), spec)
    arrays = {
        "offsets": np.frombuffer(offsets, np.int64),
        "sizes": np.frombuffer(sizes, np.int64),
        "targets": _target_array(targets, spec, name),
        "ends": np.frombuffer(ends, np.int64),
        "endings": np.frombuffer(endings, np.uint8),
        "keys": np.frombuffer(bytes(keys), np.uint8),
    }
    return _packed(arrays, stamp, list(codes), list(kinds))


def _check_whole(name: str, lacking: Sequence[str], count: int, spec: Spec) -> None:
    if not lacking and count:
        return
    shown = ", ".join(lacking[:10]) + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
    raise DataError(
        f"the shard {name} holds {len(lacking)} samples without an image or without a target: {shown}"
        if lacking
        else f"the shard {name} holds no sample",
        got=f"{count} whole samples",
        expected=f"for each key an image ({', '.join(spec.images)}) and {spec.target!r}",
        fix="name the part that holds the target: target='cls', 'txt' or 'json'; or write the shard again",
    )


def _image_of(sample: TarSample, spec: Spec, name: str) -> str | None:
    found = [ending for ending in sample.parts if ending in spec.images and ending != spec.target]
    if len(found) > 1:
        raise DataError(
            f"the shard {name} holds several images of the sample {sample.key}",
            got=", ".join(found),
            expected="one image a sample",
            fix=f"say which one is the image: image={found[0]!r}",
        )
    return found[0] if found else None


def _target(file: BinaryIO, part: Part, spec: Spec, name: str) -> Any:
    """Returns a label as text, or numbers."""
    if part.size > _LONGEST_LABEL:
        raise _no_target(name, f"{part.size:,} bytes", spec)
    place = file.tell()
    file.seek(part.offset)
    data = file.read(part.size)
    file.seek(place)
    try:
        text = data.decode("utf-8-sig").strip()
        if spec.target.rpartition(".")[2] in _TEXTS:
            found: Any = text if spec.kind == "class" else [float(one) for one in text.split()]
        else:
            found = json.loads(text)
            found = found[spec.label] if spec.label is not None and isinstance(found, dict) else found
    except (ValueError, KeyError) as error:
        raise _no_target(name, f"{type(error).__name__}: {error}", spec) from error
    if spec.kind == "class" and type(found) is int:
        found = str(found)
    numbers = found if isinstance(found, list) else [found]
    sound = (
        isinstance(found, str) and found and "\n" not in found
        if spec.kind == "class"
        else numbers and all(type(one) in (int, float) and np.isfinite(one) for one in numbers)
    )
    if not sound:
        raise _no_target(name, f"{found!r:.60}", spec)
    return found


def _no_target(name: str, got: str, spec: Spec) -> DataError:
    where = f" in its field {spec.label!r}" if spec.label is not None and spec.target not in _TEXTS else ""
    return DataError(
        f"the target {name} cannot be used",
        got=got,
        expected=("one line of text or an integer" if spec.kind == "class" else "a finite number, or a list of such")
        + where,
        fix="name the part and the field that hold the target: target='json', label='…'",
    )


def _target_array(targets: list[Any], spec: Spec, name: str) -> np.ndarray[Any, Any]:
    if spec.kind == "class":
        return np.asarray(targets, dtype=np.int32)
    lengths = {len(one) if isinstance(one, list) else 0 for one in targets}
    if len(lengths) > 1:
        raise DataError(
            f"the targets of the shard {name} are not alike",
            got=f"lists of {', '.join(map(str, sorted(lengths)))} numbers",
            expected="as many numbers in each",
            fix="write the shard again",
        )
    return np.asarray(targets, dtype=np.float64)


def _packed(arrays: dict[str, np.ndarray[Any, Any]], stamp: Stamp, labels: list[str], endings: list[str]) -> bytes:
    body, places = bytearray(), {}
    for name, one in arrays.items():
        body += bytes(-len(body) % _ALIGN)
        places[name] = (one.dtype.str, list(one.shape), len(body))
        body += one.tobytes()
    digest = blake2b(digest_size=12)
    for name in ("keys", "ends", "endings", "sizes", "targets"):
        digest.update(arrays[name].tobytes())
    digest.update(repr((labels, endings)).encode("utf-8", "surrogateescape"))
    header = {
        "stamp": list(stamp),
        "count": len(arrays["offsets"]),
        "labels": labels,
        "digest": digest.hexdigest(),
        "width": arrays["targets"].shape[1] if arrays["targets"].ndim > 1 else 0,
        "endings": endings,
        "arrays": places,
        "checksum": zlib.crc32(body),
    }
    return _lead(header) + body


def _lead(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    lead = _MAGIC + len(text).to_bytes(8, "little") + zlib.crc32(text).to_bytes(4, "little") + text
    return lead + bytes(-len(lead) % _ALIGN)


def _start_of(data: mmap.mmap | bytes) -> int:
    lead = len(_MAGIC) + 12 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 8], "little")
    return lead + -lead % _ALIGN


def read_header(path: str) -> IndexHeader | None:
    """Returns what an index says of its shard; ``None`` where there is no index, or none of this version, or a damaged one."""
    try:
        with open(path, "rb") as file:
            found = _header_in(file)
    except OSError:
        return None
    return IndexHeader(**{**found, "stamp": tuple(found["stamp"])}) if found is not None else None


def _header_in(file: BinaryIO) -> dict[str, Any] | None:
    lead = file.read(len(_MAGIC) + 12)
    if not lead.startswith(_MAGIC) or len(lead) < len(_MAGIC) + 12:
        return None
    length = int.from_bytes(lead[-12:-4], "little")
    text = file.read(length)
    if len(text) != length or zlib.crc32(text) != int.from_bytes(lead[-4:], "little"):
        return None
    found: dict[str, Any] = json.loads(text)
    return found


def restamped(data: bytes, stamp: Stamp) -> bytes | None:
    """Returns an index that was built elsewhere with the stamp that the shard has here; ``None`` where it does not fit.

    Only the sizes are compared, and the arrays with their checksum: a copy has another time. What lies in the shard is compared
    whenever a sample is read.
    """
    found = _header_in(io.BytesIO(data))
    body = data[_start_of(data) :]
    if found is None or found["stamp"][0] != stamp[0] or zlib.crc32(body) != found["checksum"]:
        return None
    return _lead({**found, "stamp": list(stamp)}) + body


def written(path: str, data: bytes) -> bool:
    """Writes a file at once, so that nobody ever sees half of it; returns whether the folder can be written to."""
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder or ".", exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder or ".", prefix=f".{name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
    except OSError:
        return False
    return True
