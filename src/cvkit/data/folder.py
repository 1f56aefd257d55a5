"""``FolderDataset``: the folder is the label."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from cvkit.data.dataset import class_names, fingerprint_of
from cvkit.data.decode import decode
from cvkit.data.index import PathIndex
from cvkit.errors import ArgumentError, CvkitWarning, DataError, ImageError

__all__ = ["EXTENSIONS", "FolderDataset", "Verification"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File name endings that count as pictures, in any case."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify()`` found.

    Attributes:
        count: Files decoded.
        bad: The message of every file that cannot be, by path.
    """

    count: int
    bad: dict[str, str]

    def __bool__(self) -> bool:
        """Whether every file is sound."""
        return not self.bad

    def __str__(self) -> str:
        lines = [f"{self.count} files, {len(self.bad)} of them bad"]
        return "\n".join([*lines, *(message.splitlines()[0] for message in self.bad.values())])


class FolderDataset:
    """Pictures in ``root/<class>/**``.

    Hidden files and folders, and files that are no pictures by their ending, do not count. Nor do symbolic links to folders
    and to files outside ``root``, of which a warning tells. The order is that of the sorted class names, and within a class
    of the sorted paths.

    Args:
        root: The directory.
        classes: The class names in their order. By default the names of the folders, sorted; a validation set is made with
            ``classes=train.classes``, so that both number them alike.
        on_error: ``"raise"`` names a file that cannot be decoded; ``"skip"`` lets the loader leave it out and count it.
        extensions: File name endings that count as pictures, in any case.
        background: What lies behind transparent pixels.

    Attributes:
        root: The directory.
        classes: The class names; the target is the place in this list.
        targets: The target of each sample.
        paths: The path of each sample, relative to ``root``.
        fingerprint: A hash of classes, paths and targets.

    Raises:
        DataError: A missing directory, no class folders, a class without pictures, a folder that ``classes`` lacks, or one
            that cannot be read.
        ArgumentError: A value that cannot be used.

    Warns:
        CvkitWarning: Links that are not followed.
    """

    deterministic = True

    def __init__(
        self,
        root: str | Path,
        *,
        classes: Sequence[str] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        extensions: Sequence[str] = EXTENSIONS,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ArgumentError(
                "on_error cannot be used", got=repr(on_error), expected='"raise" or "skip"', fix="leave it out"
            )
        self.root = Path(root)
        self.on_error = on_error
        self.background = background
        endings = _endings(extensions)
        links: list[str] = []
        found = _class_folders(self.root, links)
        self.classes = class_names(classes) if classes is not None else found
        unknown = [name for name in found if name not in self.classes]
        if unknown:
            raise DataError(
                f"{self.root} holds folders that are no known class: {', '.join(unknown)}",
                got=f"folders {', '.join(found)}",
                expected=f"only {', '.join(self.classes)}",
                fix="rename or remove the folder, or add its pictures to the training set as well",
            )
        paths: list[str] = []
        self.targets: list[int] = []
        for target, name in enumerate(self.classes):
            inside = _pictures(self.root, name, endings, links) if name in found else []
            if not inside and classes is None:
                raise DataError(
                    f"the class folder {self.root / name} holds no picture",
                    got=_what_lies_in(self.root / name),
                    expected=f"files ending in {', '.join(endings)}",
                    fix="add pictures, or delete the folder",
                )
            paths += inside
            self.targets += [target] * len(inside)
        if not paths:
            raise DataError(
                f"no picture of any class in {self.root}",
                got=_what_lies_in(self.root),
                expected=f"files ending in {', '.join(endings)}",
                fix="add pictures, or name other endings: extensions=(…)",
            )
        if links:
            warnings.warn(_of_links(self.root, links), CvkitWarning, stacklevel=2)
        self.paths = PathIndex(paths)
        self.fingerprint = fingerprint_of(self.classes, self.targets, paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Returns the picture in RGB, upright, and its target.

        Raises:
            ImageError: The file cannot be decoded; it and its index are named.
        """
        path = self.root / self.paths[index]
        try:
            return decode(path, background=self.background), self.targets[index]
        except ImageError as error:
            raise ImageError(f"sample {index}: {error}") from error

    def verify(self) -> Verification:
        """Decodes every file and reports those that cannot be."""
        bad: dict[str, str] = {}
        for path in self.paths:
            try:
                decode(self.root / path, background=self.background)
            except ImageError as error:
                bad[path] = str(error)
        return Verification(len(self.paths), bad)

    def __repr__(self) -> str:
        return f"FolderDataset({str(self.root)!r}, {len(self)} pictures, {len(self.classes)} classes)"


def _endings(extensions: Sequence[str]) -> tuple[str, ...]:
    endings = tuple(one.lower() for one in extensions)
    if isinstance(extensions, str) or not endings or not all(one.startswith(".") for one in endings):
        raise ArgumentError(
            "extensions cannot be used",
            got=repr(extensions),
            expected="a list of file name endings, each with its dot",
            fix='extensions=(".jpg", ".png")',
        )
    return endings


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Returns what lies in a folder and is not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a folder whose pictures can all be counted",
            fix="check its permissions",
        ) from error


def _class_folders(root: Path, links: list[str]) -> list[str]:
    """Returns the names of the class folders; links to folders are added to ``links``."""
    if not root.is_dir():
        near = sorted(p.name for p in root.parent.iterdir() if p.is_dir()) if root.parent.is_dir() else None
        raise DataError(
            f"there is no directory {root}",
            got="a file"
            if root.exists()
            else f"{root.parent} {f'holds {near}' if near is not None else 'is not there either'}",
            expected="a directory with one folder a class",
            fix=f"check the path; relative paths start at {Path.cwd()}",
        )
    entries = [entry for entry in _entries(root) if entry.is_dir()]
    links += [entry.path for entry in entries if entry.is_symlink()]
    folders = [entry.name for entry in entries if not entry.is_symlink()]
    if not folders:
        raise DataError(
            f"{root} holds no class folder",
            got=_what_lies_in(root) + (f"; {len(entries)} links to folders, which are not followed" if entries else ""),
            expected=f"{root}/<class>/<picture>",
            fix="put the pictures of each class into a folder of its name",
        )
    return folders


def _pictures(root: Path, name: str, endings: tuple[str, ...], links: list[str]) -> list[str]:
    """Returns the pictures of a class, relative to ``root`` and sorted; links not followed are added to ``links``."""
    found = [Path(path).relative_to(root).as_posix() for path in _walk(root / name, endings, root.resolve(), links)]
    return sorted(found)


def _walk(folder: str | Path, endings: tuple[str, ...], home: Path, links: list[str]) -> Iterator[str]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, endings, home, links)
        elif entry.is_symlink() and (entry.is_dir() or not Path(entry.path).resolve().is_relative_to(home)):
            links.append(entry.path)
        elif entry.name.lower().endswith(endings):
            yield entry.path


def _of_links(root: Path, links: list[str]) -> str:
    return (
        f"{len(links)} links in {root} are left out, e.g. {links[0]}: links to folders, and to files outside the directory, "
        "are not followed; put the files or hard links to them in their place"
    )


def _what_lies_in(folder: Path) -> str:
    names = sorted(entry.name for entry in os.scandir(folder))
    return f"{len(names)} entries" + (f", e.g. {', '.join(names[:5])}" if names else "")
