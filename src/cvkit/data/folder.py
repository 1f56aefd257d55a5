"""``FolderDataset``: the folder is the label."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from cvkit.data.dataset import fingerprint_of
from cvkit.data.decode import decode
from cvkit.data.index import PathIndex
from cvkit.errors import ArgumentError, DataError, ImageError

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

    Hidden files and folders, and files that are no pictures by their ending, do not count. Symbolic links to folders are
    not followed. The order is that of the sorted class names, and within a class of the sorted paths.

    Args:
        root: The directory.
        classes: The class names in their order. By default the names of the folders, sorted; a validation set is made with
            ``classes=train.classes``, so that both number them alike.
        on_error: ``"raise"`` names a file that cannot be decoded; ``"skip"`` lets the loader leave it out and count it.
        background: What lies behind transparent pixels.

    Attributes:
        root: The directory.
        classes: The class names; the target is the place in this list.
        targets: The target of each sample.
        paths: The path of each sample, relative to ``root``.
        fingerprint: A hash of classes, paths and targets.

    Raises:
        DataError: A missing directory, no class folders, a class without pictures, or a folder that ``classes`` lacks.
    """

    deterministic = True

    def __init__(
        self,
        root: str | Path,
        *,
        classes: Sequence[str] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ArgumentError(
                "on_error cannot be used", got=repr(on_error), expected='"raise" or "skip"', fix="leave it out"
            )
        self.root = Path(root)
        self.on_error = on_error
        self.background = background
        found = _class_folders(self.root)
        self.classes = list(classes) if classes is not None else found
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
            inside = sorted(_pictures(self.root, name)) if name in found else []
            if not inside and classes is None:
                raise DataError(
                    f"the class folder {self.root / name} holds no picture",
                    got=_what_lies_in(self.root / name),
                    expected=f"files ending in {', '.join(EXTENSIONS)}",
                    fix="add pictures, or delete the folder",
                )
            paths += inside
            self.targets += [target] * len(inside)
        if not paths:
            raise DataError(f"no picture of any class in {self.root}", got=_what_lies_in(self.root), fix="add pictures")
        self.paths = PathIndex(paths)
        self.fingerprint = fingerprint_of(self.classes, self.targets, "\n".join(paths))

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


def _class_folders(root: Path) -> list[str]:
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
    folders = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith(".") and entry.is_dir())
    if not folders:
        raise DataError(
            f"{root} holds no class folder",
            got=_what_lies_in(root),
            expected=f"{root}/<class>/<picture>",
            fix="put the pictures of each class into a folder of its name",
        )
    return folders


def _pictures(root: Path, name: str) -> Iterator[str]:
    for directory, folders, files in os.walk(root / name):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for file in files:
            if not file.startswith(".") and file.lower().endswith(EXTENSIONS):
                yield Path(directory, file).relative_to(root).as_posix()


def _what_lies_in(folder: Path) -> str:
    names = sorted(entry.name for entry in os.scandir(folder))
    return f"{len(names)} entries" + (f", e.g. {', '.join(names[:5])}" if names else "")
