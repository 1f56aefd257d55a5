"""What every dataset of image files has: where the files are, how one is read, and how all are verified."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from cvkit.calls import warn
from cvkit.data.colour_profiles import Colour, check_colour
from cvkit.data.datasets.duplicates import check_repeats, no_file
from cvkit.data.datasets.joined import Joinable
from cvkit.data.datasets.verification import Verification, verified
from cvkit.data.decode import MAX_PIXELS, Enough, decode, header, upright_size
from cvkit.data.index import PathIndex
from cvkit.data.manifest import Manifest, Manifested, chosen
from cvkit.data.truncation import check_strictly, strict_reader
from cvkit.errors import ArgumentError, CvkitError, DataError, ImageError

__all__ = ["EXTENSIONS", "Background", "FileDataset", "OnError", "Tree", "Verification", "some"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File name endings that count as images, in any case."""

OnError = Literal["raise", "skip"]
Background = tuple[int, int, int]


class FileDataset(Manifested, Joinable, ABC):
    """Images in files, and a target for each.

    Attributes:
        root: The directory that the paths are relative to.
        classes: The class names; the target is the place in this list. ``None`` where targets are no classes.
        paths: The path of each sample's image, relative to ``root``.
        fingerprint: A hash of what the samples are.
        on_error: What the loader does with an image that cannot be decoded.
        background: What lies behind transparent pixels.
        max_pixels: The largest number of pixels that is decoded.
        colour: What becomes of an image whose file says that its colours are not sRGB.
    """

    deterministic = True

    classes: list[str] | None
    fingerprint: str

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str],
        *,
        on_error: OnError,
        background: Background,
        max_pixels: int,
        colour: Colour = "convert",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ArgumentError(
                "on_error cannot be used", got=repr(on_error), expected='"raise" or "skip"', fix="leave it out"
            )
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
            raise ArgumentError(
                "max_pixels cannot be used",
                got=repr(max_pixels),
                expected="an integer of pixels",
                fix=f"leave it out for {MAX_PIXELS:,}",
            )
        _check_background(background)
        check_colour(colour)
        self.root = Path(root)
        self.on_error: OnError = on_error
        self.background = background
        self.max_pixels = max_pixels
        self.colour: Colour = colour
        # a list would be copied into each worker that reads it; what is no list sees to that itself
        self.paths: Sequence[str] = PathIndex(paths) if isinstance(paths, list | tuple) else paths

    @abstractmethod
    def target(self, index: int, image: Image.Image) -> Any:
        """Returns the target of a sample whose image has been decoded.

        Raises:
            DataError: It cannot be read, or does not fit the image.
        """

    @cached_property
    @abstractmethod
    def targets(self) -> list[Any]:
        """The target of each sample."""

    def source(self, index: int) -> tuple[Path | bytes, str]:
        """Returns what holds a sample's image as it was written, a file or its bytes, and what to call it in messages.

        Raises:
            ImageError: It cannot be read.
        """
        path = self.root / self.paths[index]
        return path, str(path)

    def read(self, index: int, enough: Enough | None = None) -> tuple[Image.Image, Any]:
        """Returns a sample, whose image may be smaller than the file's; several threads may read at a time.

        Args:
            index: Which one.
            enough: As in :func:`decode`.

        Raises:
            ImageError: The file cannot be decoded; it and its index are named.
            DataError: The target does not fit it.
        """
        try:
            content, name = self.source(index)
            image = decode(
                content,
                background=self.background,
                max_pixels=self.max_pixels,
                enough=enough,
                colour=self.colour,
                name=name,
            )
            return image, self.target(index, image)
        except CvkitError as error:
            raise type(error)(f"sample {index}: {error}") from error

    def size(self, index: int) -> tuple[int, int]:
        """Returns the width and height in pixels of a sample's image, upright; only its header is read.

        Raises:
            ImageError: The file's header cannot be read; it and its index are named.
        """
        try:
            content, name = self.source(index)
            return upright_size(header(content, max_pixels=self.max_pixels, name=name))
        except ImageError as error:
            raise ImageError(f"sample {index}: {error}") from error

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        """Returns the image in RGB, upright, and its target.

        Raises:
            ImageError: The file cannot be decoded; it and its index are named.
            DataError: The target does not fit it.
        """
        return self.read(index)

    def files(self, index: int) -> list[Path]:
        """Returns the files that a sample's pixels come from."""
        return [self.root / self.paths[index]]

    def verify(self, *, strict: bool = False, manifest: bool | str | Path | Manifest = False) -> Verification:
        """Reads every sample, whole, and reports those that cannot be read, and files that are listed with two labels.

        Args:
            manifest: What the files were, as :meth:`manifest` has found it: the manifest, its file, or ``True`` for the one
                beside the data. Files with other content, and files that it does not list, count as bad.
            strict: Whether each JPEG is decoded once more by simplejpeg, and counts as bad where libjpeg has anything to say:
                data that end early, that are left over, or that are no code. A JPEG has no checksum, so damage that happens
                to be a code is not found by anybody. It takes about twice as long.

        Raises:
            MissingDependencyError: ``strict`` without simplejpeg: ``pip install "cvkit[jpeg]"``.
            DataError: The manifest is missing or damaged.

        Warns:
            CvkitWarning: Files that are listed more than once with one label, also by hard links.
        """
        return self.found_bad(range(len(self)), strict=strict, manifest=manifest)

    def found_bad(
        self, indices: Sequence[int], *, strict: bool = False, manifest: bool | str | Path | Manifest = False
    ) -> Verification:
        """Does what :meth:`verify` does for some samples."""
        if strict:
            strict_reader()
        listed = chosen(manifest, self.root)
        names = [self.paths[index] for index in indices]
        found = verified(self, indices, names, [os.path.join(self.root, name) for name in names], strict=strict)
        for index, message in (self.unlike(listed, indices) if listed is not None else {}).items():
            found.bad.setdefault(self.paths[index], message)
        return found

    def why_bad(self, index: int, *, strict: bool = False) -> str | None:
        """Returns the message of a sample that cannot be read, without its index; ``None`` where it can."""
        try:
            self[index]
            for path in self.files(index) if strict else ():
                check_strictly(path)
        except (ImageError, DataError) as error:
            return str(error).removeprefix(f"sample {index}: ")
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.__dict__.items() if name != "targets"
        }  # a worker needs no such list

    def __repr__(self) -> str:
        names = self.known_classes
        classes = f", {len(names)} classes" if names is not None else ""
        return f"{type(self).__name__}({str(self.root)!r}, {len(self)} images{classes})"

    @property
    def known_classes(self) -> list[str] | None:
        """The class names as far as they are known without reading a file."""
        return self.classes


class ClassTargets:
    """The targets of a dataset whose targets are classes, in one array; a mixin of the adapters."""

    numbers: np.ndarray[Any, np.dtype[np.int64]]

    @cached_property
    def targets(self) -> list[int]:
        """The target of each sample."""
        return [int(number) for number in self.numbers]

    def target(self, index: int, image: Image.Image) -> int:
        """Returns the class of a sample."""
        return int(self.numbers[index])


class Tree:
    """The files under a directory.

    Hidden files and folders do not count; nor, unless they are asked for, do symbolic links to folders and to files outside
    the directory, which are noted.

    Args:
        root: The directory.
        extensions: File name endings that count, in any case.
        follow_links: Whether links are followed, wherever they lead.
        what: What ``root`` is expected to be, for messages.

    Attributes:
        links: Links that were not followed.
        reals: The real path of each file that is a link, or lies in a folder that is one, by its path.

    Raises:
        DataError: A missing directory, or no directory.
        ArgumentError: ``extensions`` that are none.
    """

    def __init__(
        self, root: str | Path, extensions: Sequence[str], *, follow_links: bool = False, what: str = "a directory"
    ) -> None:
        self.root = Path(root)
        self.endings = _endings(extensions)
        self.follow_links = follow_links
        self.links: list[str] = []
        self.reals: dict[str, str] = {}
        if not self.root.is_dir():
            raise _no_directory(self.root, what)
        self._home = self.root.resolve()

    def folders(self) -> list[str]:
        """Returns the names of the folders directly under the root, sorted."""
        entries = [entry for entry in entries_of(self.root) if _is_folder(entry)]
        if not self.follow_links:
            self.links += [entry.path for entry in entries if entry.is_symlink()]
        return [entry.name for entry in entries if self.follow_links or not entry.is_symlink()]

    def files(self, under: str = "") -> list[str]:
        """Returns the files under a folder that count, relative to the root and sorted.

        Raises:
            DataError: A folder that cannot be read, a link that leads in circles, or a pipe, socket or device.
        """
        base = os.path.join(self.root, "")
        start, real = (base + under if under else str(self.root)), Path(self.root, under).resolve()
        found = []
        for path, linked in self._walk(start, (real,), real != self._home / under):
            name = path[len(base) :].replace(os.sep, "/")
            found.append(name)
            if linked:
                self.reals[name] = linked
        return sorted(found)

    def _walk(self, folder: str, above: tuple[Path, ...], linked: bool) -> Iterator[tuple[str, str | None]]:
        """Yields the files that count, each with its real path where that is another."""
        for entry in entries_of(folder):
            link = entry.is_symlink()
            if link and not self.follow_links and not self._within(entry):
                self.links.append(entry.path)
            elif _is_folder(entry):
                real = Path(entry.path).resolve()
                if real in above:
                    raise DataError(
                        f"the link {entry.path} leads back to a folder that it lies in",
                        got=str(real),
                        expected="links that do not go in circles",
                        fix="remove the link, or leave follow_links out",
                    )
                yield from self._walk(entry.path, (*above, real), linked or link)
            elif entry.name.lower().endswith(self.endings):
                _check_file(entry)
                yield entry.path, os.path.realpath(entry.path) if link or linked else None

    def check_repeats(self, paths: Sequence[str], labels: Sequence[Any], classes: Sequence[str] | None) -> None:
        """Refuses an image that links list with two labels, and warns of one that they list twice.

        Only links are looked at, which the listing knows; hard links would take a ``stat`` a file, and ``verify`` finds them.

        Raises:
            DataError: One image has two labels.

        Warns:
            CvkitWarning: An image counts more than once.
        """
        if self.reals:
            identities = [self.reals.get(path) or str(self._home / path) for path in paths]
            check_repeats(self.root, paths, identities, labels, classes)

    def _within(self, entry: os.DirEntry[str]) -> bool:
        """Whether a link leads to a file inside the directory."""
        return not _is_folder(entry) and Path(entry.path).resolve().is_relative_to(self._home)

    def warn(self) -> None:
        """Warns of the links that were not followed."""
        if self.links:
            warn(
                f"{len(self.links)} links in {self.root} are left out, e.g. {self.links[0]}: links to folders, and to files "
                "outside the directory, are not followed; pass follow_links=True if they are meant"
            )

    def holds(self, under: str = "") -> str:
        """Says what lies directly in the directory, or in a folder of it, and how many links were not followed."""
        left_out = f"; {len(self.links)} links, which are not followed without follow_links=True" if self.links else ""
        names = sorted(entry.name for entry in os.scandir(self.root / under))
        return f"{len(names)} entries" + (f", e.g. {', '.join(names[:5])}" if names else "") + left_out


def entries_of(folder: str | Path) -> list[os.DirEntry[str]]:
    """Returns what lies in a folder and is not hidden, by name.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a folder whose images can all be counted",
            fix="check its permissions",
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one.

    Raises:
        DataError: It is a link that leads to itself.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        raise DataError(
            f"the link {entry.path} leads nowhere",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a link to a file or a folder",
            fix="remove the link",
        ) from error


def _check_file(entry: os.DirEntry[str]) -> None:
    """Refuses what is no file to read; it is known from the listing, and only what is none is looked at more closely.

    Raises:
        DataError: A pipe, a socket or a device.
    """
    if entry.is_file():
        return
    try:
        kind = no_file(entry.stat().st_mode)
    except OSError:  # a link to nothing, which is named when it is read
        return
    if kind is not None:
        raise DataError(
            f"{entry.path} is no file that can be read to its end",
            got=kind,
            expected="an image or a label in a file",
            fix="move it out of the directory",
        )


def some(names: Sequence[str], most: int = 10) -> str:
    """Returns the first few names, and how many more there are, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def stem_of(path: str) -> str:
    """Returns a path without the last ending of its name, by which images and labels are matched."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.rpartition(".")[0]


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


def _check_background(background: Background) -> None:
    levels = list(background) if isinstance(background, Sequence) and not isinstance(background, str) else []
    if len(levels) != 3 or not all(type(level) is int and 0 <= level <= 255 for level in levels):
        raise ArgumentError(
            "background cannot be used",
            got=repr(background),
            expected="red, green and blue, each from 0 to 255",
            fix="e.g. background=(255, 255, 255)",
        )


def _no_directory(root: Path, what: str) -> DataError:
    near = sorted(p.name for p in root.parent.iterdir() if p.is_dir()) if root.parent.is_dir() else None
    more = f" and {len(near) - 10} more" if near and len(near) > 10 else ""
    return DataError(
        f"there is no directory {root}",
        got="a file"
        if root.exists()
        else f"{root.parent} {f'holds {near[:10]}{more}' if near is not None else 'is not there either'}",
        expected=what,
        fix=f"check the path; relative paths start at {Path.cwd()}",
    )
