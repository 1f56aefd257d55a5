"""What the content of a dataset's files was: size, modification time and hash of each, in a plain text file beside them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cvkit.data.manifest_file import FORMAT, Entry, read_entries, write_entries
from cvkit.errors import DataError

__all__ = ["NAME", "Entry", "Manifest", "Manifested", "chosen", "content_digest", "content_hash"]

NAME = ".cvkit-manifest.txt"
"""The manifest's file, beside the data. It is hidden, so that no dataset takes it for a sample."""

_CHUNK = 2**20
_SETTLED = (
    2_000_000_000  # nanoseconds: a file that is younger may change again within one tick of its file system's clock
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the content of files was.

    Attributes:
        entries: Size, modification time and hash of each file, by its path relative to the dataset's ``root``.
        replaced: The hash that a file had in the manifest before, for those whose content has changed since.
        path: The text file that holds it, or ``None`` where none could be written.
    """

    entries: Mapping[str, Entry]
    replaced: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def digest(self) -> str:
        """One hash over the names and contents of all files."""
        return _digest({name: entry.hash for name, entry in self.entries.items()})

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Reads a manifest from its text file.

        Args:
            path: The file, as :meth:`save` wrote it.

        Raises:
            DataError: It is missing, damaged or no manifest.
        """
        entries, replaced = read_entries(Path(path))
        return cls(entries, replaced, Path(path))

    def save(self, path: str | Path) -> None:
        """Writes the manifest to a text file, whole or not at all.

        Args:
            path: The file; one that is there is replaced.

        Raises:
            DataError: It cannot be written.
        """
        write_entries(Path(path), self.entries, self.replaced)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        size = sum(entry.size for entry in self.entries.values())
        return f"{len(self)} files, {size:,} bytes, digest {self.digest}"


class Manifested:
    """What a dataset of files can say of their content; a mixin of the datasets that have ``root`` and ``files``."""

    root: Path

    def files(self, index: int) -> list[Path]:
        """Returns the files of a sample."""
        raise NotImplementedError

    def manifest(self, path: str | Path | None = None) -> Manifest:
        """Hashes every file, and writes what was found to a text file beside the data.

        A file whose size and modification time are those of the manifest that is there is not read again, so a second look
        costs one ``stat`` a file.

        Args:
            path: Where the manifest lies; by default ``.cvkit-manifest.txt`` in ``root``. Entries of other files in it stay.

        Returns:
            The manifest of this dataset's files.

        Raises:
            DataError: A file that cannot be read, a damaged manifest, or one that cannot be written.
        """
        return self.manifest_of(range(len(self)), path)  # type: ignore[arg-type]  # the adapters are sized

    def manifest_of(self, indices: Sequence[int], path: str | Path | None = None) -> Manifest:
        """Does what :meth:`manifest` does for some samples."""
        target = Path(path) if path is not None else self.root / NAME
        before = Manifest.load(target) if target.exists() else Manifest({})
        found = _looked_at(self.named_files(indices), before.entries)
        replaced = dict(before.replaced)
        for name, entry in found.items():
            if name in before.entries and before.entries[name].hash != entry.hash:
                replaced[name] = before.entries[name].hash
        kept = {name: entry for name, entry in before.entries.items() if name not in found}
        if {**kept, **found} != dict(before.entries):
            Manifest({**kept, **found}, replaced).save(target)
        return Manifest(found, {name: old for name, old in replaced.items() if name in found}, target)

    def content_digest(self, indices: Sequence[int] | None = None) -> str | None:
        """Returns one hash over the content of all files, from the manifest beside the data; ``None`` where there is none.

        ``fit`` notes it in the checkpoint. Files with the size and time of the manifest are not read.

        Args:
            indices: Which samples; by default all.

        Raises:
            DataError: A file's content is not what the manifest says; it is named.
        """
        if not (self.root / NAME).exists():
            return None
        names = self.named_files(indices)
        before = Manifest.load(self.root / NAME).entries
        if not any(name in before for name in names):
            return None
        found = _looked_at(names, before)
        changed = [name for name in names if name not in before or before[name].hash != found[name].hash]
        if changed:
            raise _not_as_listed(self.root, changed, before)
        return _digest({name: entry.hash for name, entry in found.items()})

    def content_changes(self, indices: Sequence[int] | None = None) -> list[str]:
        """Returns the files whose content was another in an earlier state of the manifest."""
        if not (self.root / NAME).exists():
            return []
        replaced = Manifest.load(self.root / NAME).replaced
        return [name for name in self.named_files(indices) if name in replaced]

    def named_files(self, indices: Sequence[int] | None = None) -> dict[str, Path]:
        """Returns the files of samples, each once, by their path relative to ``root``."""
        base, found = os.path.join(self.root, ""), {}
        for index in indices if indices is not None else range(len(self)):  # type: ignore[arg-type]
            for path in self.files(index):
                text = str(path)
                inside = text.startswith(base)
                name = text[len(base) :] if inside else os.path.relpath(text, self.root)
                found[name.replace(os.sep, "/")] = path
        return found

    def unlike(self, manifest: Manifest, indices: Sequence[int]) -> dict[int, str]:
        """Returns, for each sample with a file that is not what a manifest says, a message.

        Every file is read: damage on a disk leaves its modification time as it was.

        Args:
            manifest: What the files were.
            indices: Which samples.
        """

        def look(index: int) -> str | None:
            lines = (_difference(name, path, manifest.entries) for name, path in self.named_files([index]).items())
            return next((line for line in lines if line is not None), None)

        with _threads() as pool:
            found = zip(indices, pool.map(look, indices), strict=True)
            return {index: line for index, line in found if line is not None}


def chosen(manifest: bool | str | Path | Manifest, root: Path) -> Manifest | None:
    """Returns the manifest that ``verify(manifest=…)`` names.

    Args:
        manifest: ``True`` for the one beside the data, a file, a manifest, or ``False`` for none.
        root: The dataset's directory.

    Raises:
        DataError: It is missing or damaged.
    """
    if isinstance(manifest, Manifest):
        return manifest
    if manifest is False:
        return None
    return Manifest.load(root / NAME if manifest is True else Path(manifest))


def content_digest(parts: Sequence[str | None]) -> str | None:
    """Returns one digest for several; ``None`` where one of them is not known."""
    known = [part for part in parts if part is not None]
    return _digest({str(place): part for place, part in enumerate(known)}) if len(known) == len(parts) else None


def content_hash(path: str | Path) -> str:
    """Returns a hash of a file's bytes: BLAKE2b with 128 bits, in hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    made = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):  # hashing lets other threads run
            made.update(chunk)
    return made.hexdigest()


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 8))


def _looked_at(names: Mapping[str, Path], before: Mapping[str, Entry]) -> dict[str, Entry]:
    """Returns what files are now; those with the size and time of an entry are not read.

    Raises:
        DataError: One cannot be read.
    """

    def look(name: str) -> Entry:
        path = names[name]
        try:
            now = os.stat(path)
            known = before.get(name)
            if known is not None and (known.size, known.mtime) == (now.st_size, now.st_mtime_ns):
                return known
            # an unsettled time is not noted, so that the file is read again at the next look
            settled = time.time_ns() - now.st_mtime_ns > _SETTLED
            return Entry(content_hash(path), now.st_size, now.st_mtime_ns if settled else 0)
        except OSError as error:
            raise DataError(
                f"the file {path} cannot be hashed",
                got=f"{type(error).__name__}: {error.strerror}",
                expected="a file that can be read",
                fix="check the path and its permissions",
            ) from error

    with _threads() as pool:
        return dict(zip(names, pool.map(look, names, chunksize=1), strict=True))


def _difference(name: str, path: Path, entries: Mapping[str, Entry]) -> str | None:
    """Returns in what a file differs from its entry, or ``None``."""
    entry = entries.get(name)
    if entry is None:
        return f"the file {name} is not in the manifest"
    try:
        now = os.stat(path)
        same = now.st_size == entry.size and content_hash(path) == entry.hash
    except OSError as error:
        return f"the file {name} cannot be read: {error.strerror}"
    if same:
        return None
    if now.st_size != entry.size:
        return f"the file {name} is not what the manifest says: {now.st_size:,} bytes now, {entry.size:,} then"
    untouched = "; its modification time is the same" if now.st_mtime_ns == entry.mtime else ""
    return f"the file {name} is not what the manifest says: other content of the same size{untouched}"


def _digest(hashes: Mapping[str, str]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for line in _lines(hashes):
        made.update(line)
    return made.hexdigest()


def _lines(hashes: Mapping[str, str]) -> Iterator[bytes]:
    for name in sorted(hashes):
        yield f"{hashes[name]}\t{name}\0".encode("utf-8", "surrogateescape")


def _not_as_listed(root: Path, changed: Sequence[str], before: Mapping[str, Entry]) -> DataError:
    """Returns the error on files that are not what the manifest beside them says."""
    told = [name if name in before else f"{name} (new)" for name in changed[:5]]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return DataError(
        f"{len(changed)} files in {root} are not what the manifest says",
        got=", ".join(told) + more,
        expected=f"the content that {root / NAME} lists (format {FORMAT})",
        fix="restore the files; or, if the change is meant, write the manifest anew: dataset.manifest()",
    )
