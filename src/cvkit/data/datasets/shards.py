"""``ShardDataset``: samples inside tar files, by random access."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from cvkit.data.colour_profiles import Colour
from cvkit.data.datasets.base import class_names, fingerprint_of
from cvkit.data.datasets.files import EXTENSIONS, Background, FileDataset, OnError
from cvkit.data.datasets.labels import number
from cvkit.data.datasets.shard_index import Spec
from cvkit.data.datasets.shard_set import LazyList, ShardSet, cache_folder, manifest_of
from cvkit.data.datasets.tar_members import HEADER, samples_of
from cvkit.data.decode import MAX_PIXELS
from cvkit.data.storage import Local, Storage, changed, expanded, is_remote
from cvkit.data.truncation import check_strictly, strict_reader
from cvkit.errors import ArgumentError, DataError, ImageError, unknown_name
from cvkit.pixels import WHITE

__all__ = ["ShardDataset"]

_KINDS = ("class", "value")
_TARGETS = ("cls", "txt", "json")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST_CLASSES = 1_000_000


class ShardDataset(FileDataset):
    """Images in tar files, in WebDataset's layout: ``key.jpg`` and ``key.cls`` one after another, for each key.

    A sample is read where it lies, by an index that is built once: it is kept beside its shard, or in cvkit's cache folder
    where that cannot be written to, and is built anew where the shard's size or time is another. Index and targets are
    memory-mapped: what a process takes does not depend on the number of samples. The shards are the blocks of
    ``Loader(…, shuffle="blocks")``.

    Args:
        pattern: A path, a glob, one with a range in braces (``"train-{000..127}.tar"``), a URL of any of these
            (``"s3://…"``, ``"https://…"``, read through fsspec: ``pip install "cvkit[remote]"``), or a list of such.
        kind: ``"class"``, or ``"value"`` for numbers.
        image: The ending of the image, where samples hold several; by default any ending of an image.
        target: The ending of the part that holds the target: text (``"cls"``, ``"txt"``) or ``"json"``. By default the first of
            these three that the first sample has.
        label: The field of a JSON part that holds it; ``None`` where all of it is the target.
        classes: The class names in their order. By default those that ``write_shards`` has noted; else the labels that are
            found, sorted. Labels that are integers from 0 number the classes.
        on_error: As in :class:`FolderDataset`.
        background: What lies behind transparent pixels.
        max_pixels: The largest image that is decoded, in pixels.
        colour: As in :class:`FolderDataset`.
        cache_dir: Where indexes go that cannot lie beside their shard, and parts of remote shards.
        cache_bytes: The largest number of bytes that parts of remote shards take there.
        storage_options: What fsspec is given for a URL, e.g. ``{"anon": True}``.

    Attributes:
        shards: The tar files.
        classes: The class names; ``None`` for numbers.
        targets: The target of each sample, read from the index when asked for.
        paths: The name of each sample's image, behind that of its shard.
        block_ends: Where each shard ends, int64 ``(shards,)``.
        fingerprint: A hash of classes, names, sizes and targets; not of where the shards lie.

    Raises:
        DataError: No shard, one that is no whole tar file or holds what cannot be used, samples without an image or a target, a
            label that ``classes`` lacks.
        ArgumentError: A value that cannot be used.
        MissingDependencyError: A URL, and fsspec is not installed.
    """

    classes: list[str] | None

    def __init__(
        self,
        pattern: str | Path | Iterable[str | Path],
        *,
        kind: Literal["class", "value"] = "class",
        image: str | None = None,
        target: str | None = None,
        label: str | None = "label",
        classes: Sequence[str] | None = None,
        on_error: OnError = "raise",
        background: Background = WHITE,
        max_pixels: int = MAX_PIXELS,
        colour: Colour = "convert",
        cache_dir: str | Path | None = None,
        cache_bytes: int = 10 * 2**30,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if kind not in _KINDS:
            raise unknown_name("kind", kind, _KINDS)
        if kind == "value" and classes is not None:
            raise ArgumentError(
                "numbers have no classes", got=repr(classes), expected="no classes", fix="leave them out"
            )
        folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "shards"
        self.storage = _storage(pattern, storage_options, folder, cache_bytes)
        self.shards = expanded(pattern, self.storage.matches)
        if not self.shards:
            raise DataError(
                f"no shard matches {pattern}",
                got="no file",
                expected="tar files",
                fix=f"check the path; relative paths start at {Path.cwd()}",
            )
        self.kind: str = kind
        images = (image.lower().lstrip("."),) if image is not None else tuple(one[1:] for one in EXTENSIONS)
        target = target.lower().lstrip(".") if target is not None else _first_target(self.shards[0], self.storage)
        self.set = ShardSet(self.shards, Spec(images, target, label, kind), self.storage, folder)
        self.block_ends = self.set.ends
        paths = LazyList(len(self.set), self._path, self._all_paths, "paths")
        super().__init__(
            _common(self.shards),
            paths,
            on_error=on_error,
            background=background,
            max_pixels=max_pixels,
            colour=colour,
        )
        self.classes, self._tables = self._numbered(class_names(classes) if classes is not None else None)
        said = [
            (os.path.basename(one), header.digest) for one, header in zip(self.shards, self.set.headers, strict=True)
        ]
        self.fingerprint = fingerprint_of(kind, self.classes, said)

    def _numbered(self, given: list[str] | None) -> tuple[list[str] | None, list[np.ndarray[Any, Any]]]:
        """Returns the class names, and for each shard the class of each of its codes."""
        if self.kind == "value":
            return None, []
        folders = [shard.rpartition("/")[0] for shard in self.shards]
        noted = {folder: manifest_of(folder, self.storage) for folder in dict.fromkeys(folders)}
        names = [(manifest or {}).get("classes") for manifest in (noted[folder] for folder in folders)]
        texts = [
            [_named(label, known, shard) for label in header.labels]
            for header, known, shard in zip(self.set.headers, names, self.shards, strict=True)
        ]
        found = {text for part in texts for text in part}
        if given is None and any(known is not None for known in names):
            given = list(dict.fromkeys(name for known in names for name in known or sorted(found)))
        numbered = all(known is None for known in names) and all(_NUMBER.fullmatch(text) for text in found)
        if numbered and (given is None or not found <= set(given)):
            given = _by_number(found, given, self.shards[0])
            return given, [np.asarray([int(text) for text in part], np.int64) for part in texts]
        sources = [shard for shard, part in zip(self.shards, texts, strict=True) for _ in part]
        given, numbers = number([text for part in texts for text in part], given, sources)
        cuts = np.cumsum([len(part) for part in texts])[:-1]
        return given, np.split(np.asarray(numbers, np.int64), cuts)

    def _path(self, index: int) -> str:
        shard, place = self.set.locate(index)
        return (
            f"{os.path.relpath(self.shards[shard], self.root)}/{self.set.index(shard).name(place)}"
            if not is_remote(self.shards[shard])
            else f"{self.shards[shard]}/{self.set.index(shard).name(place)}"
        )

    def _all_paths(self) -> Iterator[list[str]]:
        return ([self._path(index)] for index in range(len(self.set)))

    @cached_property
    def targets(self) -> LazyList:  # type: ignore[override]  # it is read as a list is
        """The target of each sample, read from the index when it is asked for."""
        return LazyList(len(self.set), self._number, self._all_numbers, "targets")

    def _number(self, index: int) -> Any:
        shard, place = self.set.locate(index)
        found = self.set.index(shard).targets[place]
        return int(self._tables[shard][int(found)]) if self.kind == "class" else found.tolist()

    def _all_numbers(self) -> Iterator[np.ndarray[Any, Any]]:
        for shard in range(len(self.shards)):
            found = self.set.index(shard).targets
            yield self._tables[shard][found] if self.kind == "class" else found

    def target(self, index: int, image: Image.Image) -> Any:
        """Returns the class of a sample, or its numbers as float32."""
        found = self._number(index % len(self))
        return found if self.kind == "class" else torch.tensor(found, dtype=torch.float32)

    def source(self, index: int) -> tuple[bytes, str]:
        """Returns the bytes of a sample's image, and its name behind that of its shard.

        Raises:
            ImageError: The shard cannot be read, or is not what was indexed.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} paths")
        shard, place = self.set.locate(index % len(self))
        found, path = self.set.index(shard), self.shards[shard]
        offset, size, name = int(found.offsets[place]), int(found.sizes[place]), found.name(place)
        data = self.storage.read(path, offset - HEADER, size + HEADER, self.set.headers[shard].stamp)
        _check_header(data[:HEADER], size, name, path)
        return data[HEADER:], f"{path}/{name}"

    def prepare(self, indices: Sequence[int]) -> None:
        """Is told by a loader which samples are about to be read: parts of remote shards are then fetched together."""
        if isinstance(self.storage, Local):
            return
        parts = []
        for index in indices:
            shard, place = self.set.locate(index)
            found = self.set.index(shard)
            offset, size = int(found.offsets[place]) - HEADER, int(found.sizes[place]) + HEADER
            parts.append((self.shards[shard], offset, size, self.set.headers[shard].stamp))
        self.storage.prepare(parts)

    def files(self, index: int) -> list[Path]:
        """Returns nothing: a sample has no file of its own."""
        return []

    def why_bad(self, index: int, *, strict: bool = False) -> str | None:
        """Returns the message of a sample that cannot be read, without its index; ``None`` where it can."""
        found = super().why_bad(index)
        if found is not None or not strict:
            return found
        strict_reader()
        try:
            check_strictly(*self.source(index))
        except ImageError as error:
            return str(error)
        return None

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes is not None else ""
        return f"ShardDataset({len(self.shards)} shards, {len(self)} images{classes})"


def _storage(pattern: Any, options: Mapping[str, Any] | None, folder: Path, cache_bytes: int) -> Storage:
    parts = [pattern] if isinstance(pattern, str | Path) else list(pattern)
    remote = [is_remote(one) for one in parts]
    if not any(remote):
        return Local()
    if not all(remote):
        raise ArgumentError(
            "pattern cannot be used",
            got="files of this machine and URLs together",
            expected="one or the other",
            fix="join two datasets: cvkit.data.concat(ShardDataset(…), ShardDataset(…))",
        )
    from cvkit.data.remote import Remote  # fsspec is not everybody's

    return Remote(str(parts[0]), options or {}, folder, cache_bytes)


def _common(shards: Sequence[str]) -> str:
    if is_remote(shards[0]):
        return shards[0].rpartition("/")[0]
    return os.path.commonpath([os.path.dirname(os.path.abspath(shard)) for shard in shards])


def _first_target(shard: str, storage: Storage) -> str:
    manifest = manifest_of(shard.rpartition("/")[0], storage)
    if manifest is not None and isinstance(manifest.get("target"), str):
        return str(manifest["target"])
    storage.stamp(shard)
    with storage.open(shard) as file:
        sample = next(samples_of(file, shard), None)
    found = [one for one in _TARGETS if sample is not None and one in sample.parts]
    if found:
        return found[0]
    raise DataError(
        f"the shard {shard} does not say where its targets are",
        got=f"a first sample of {', '.join(sample.parts)}" if sample is not None else "no sample",
        expected=f"one of {', '.join(_TARGETS)}",
        fix="name the ending of the part that holds the target: target='…'",
    )


def _named(label: str, names: list[str] | None, shard: str) -> str:
    """Returns the class that a label stands for, by the names that ``write_shards`` has noted."""
    if names is None:
        return label
    if _NUMBER.fullmatch(label) and int(label) < len(names):
        return names[int(label)]
    raise DataError(
        f"the shard {shard} holds a label that is no class of the shards.json beside it",
        got=repr(label),
        expected=f"a number from 0 to {len(names) - 1}",
        fix="keep shards of another origin in a folder of their own",
    )


def _by_number(found: set[str], given: list[str] | None, shard: str) -> list[str]:
    """Returns the class names where labels are the numbers of classes."""
    most = max(int(text) for text in found)
    if given is None and most < _MOST_CLASSES:
        return [str(one) for one in range(most + 1)]
    if given is not None and most < len(given):
        return given
    raise DataError(
        "a label is no number of a class",
        got=f"{most} (in {shard} or a later shard)",
        expected=f"an integer from 0 to {(len(given) if given is not None else _MOST_CLASSES) - 1}",
        fix="name all classes: classes=[…]" if given is not None else "name another part as target, or kind='value'",
    )


def _check_header(block: bytes, size: int, name: str, path: str) -> None:
    """Refuses bytes that are not the sample that was indexed: each lies behind a header that tells its name and size."""
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise changed(path, f"no header of a file where {name} should lie", "the sample that was indexed") from error
    encoded = len(name.encode("utf-8", "surrogateescape"))
    if (encoded <= 100 and found.name.lower() != name.lower()) or found.size not in (size, 0):
        raise changed(path, f"{found.name} of {found.size} bytes", f"{name} of {size} bytes")
