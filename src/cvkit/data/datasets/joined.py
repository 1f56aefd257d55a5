"""``JoinedDataset``: several datasets as one, with their classes numbered together."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cvkit.calls import warn
from cvkit.data.datasets.class_tables import Table, check_alike, tables, told, translated, union
from cvkit.data.datasets.similar_names import alike, warn_alike
from cvkit.data.datasets.traits import fingerprint_of, is_deterministic, reads
from cvkit.data.datasets.verification import Verification, verified, why_bad
from cvkit.data.index import PathIndex
from cvkit.data.manifest import content_digest
from cvkit.data.truncation import strict_reader
from cvkit.errors import CvkitError
from cvkit.numbering import known_classes, whole_of

__all__ = ["Joinable", "JoinedDataset"]

_SAMPLE = re.compile(r"^sample -?\d+: ")


class Joinable:
    """What can be joined by ``+``."""

    def __add__(self, other: Any) -> JoinedDataset:
        """Returns both as one, as :func:`concat` does.

        Raises:
            ArgumentError: The other does not say what its targets are.
            DataError: The targets of the two are of different kinds.
        """
        if not hasattr(other, "__len__") or not hasattr(other, "__getitem__"):
            return NotImplemented
        return JoinedDataset([self, other])


class JoinedDataset(Joinable):
    """Several datasets one after another; :func:`concat` makes it.

    Args:
        parts: The datasets.
        classes: The class names in their order; by default those of all parts.

    Attributes:
        parts: The datasets; of one that was joined without ``classes`` its parts.
        classes: The class names; ``None`` where targets are no classes.
        targets: The target of each sample; labels that are files by their whole path.
        paths: The whole path of each sample's file, or ``None`` where some have none.
        fingerprint: A hash of the classes and of each part.
        on_error: ``"skip"`` where every part with files has it, else ``"raise"``.
        kind: What the parts call their targets.
        background: What lies behind transparent pixels; ``None`` where parts differ, of which a warning tells.
        colour: What becomes of colour profiles; ``None`` where parts differ.
        max_pixels: The largest of the parts' bounds; each file is decoded with the bound of its own part.

    Raises:
        ArgumentError: No dataset, or one that does not say what its targets are.
        DataError: Targets of different kinds, or a class that ``classes`` lacks.

    Warns:
        CvkitWarning: Parts with different backgrounds, or with class names that are nearly the same.
    """

    kind: str | None
    on_error: str

    def __init__(self, parts: Sequence[Any], classes: Sequence[str] | None = None) -> None:
        self.parts: list[Any] = [one for part in parts for one in _flat(part)]
        self.labels = check_alike(self.parts)
        self._ends = np.cumsum([len(part) for part in self.parts])
        check_sizes = [whole_of(part) for part in self.parts]
        kinds = {getattr(whole, "kind", None) for whole in check_sizes}
        common = {"class labels": "class", "masks": "mask", "images": "image", "numbers": "value"}[self.labels]
        self.kind = kinds.pop() if len(kinds) == 1 else common
        answers = {
            getattr(part, "on_error", "raise") for part in self.parts if getattr(part, "paths", None) is not None
        }
        self.on_error = "skip" if answers == {"skip"} else "raise"
        self.ignore = next((one.ignore for one in check_sizes if getattr(one, "ignore", None) is not None), None)
        bounds = [whole.max_pixels for whole in check_sizes if isinstance(getattr(whole, "max_pixels", None), int)]
        self.max_pixels: int | None = max(bounds, default=None)
        colours = {getattr(whole, "colour", None) for whole in check_sizes}
        self.colour: str | None = colours.pop() if len(colours) == 1 else None
        self.background = self._background([getattr(whole, "background", None) for whole in check_sizes])
        self.given = list(classes) if classes is not None else None
        self.known_classes, self.tables = self._numbered()

    def _background(self, found: list[Any]) -> tuple[int, int, int] | None:
        levels = {tuple(one) for one in found if one is not None}
        if len(levels) > 1:
            warn(
                f"the joined datasets lay different backgrounds behind transparent pixels: {told(self.parts, found)}. A "
                "checkpoint keeps none of them; build the parts with one background=(…)"
            )
        return levels.pop() if len(levels) == 1 else None

    def _numbered(self) -> tuple[list[str] | None, list[Table | None]]:
        """Returns the class names as far as they are known, and each part's table."""
        names = [known_classes(part) for part in self.parts]
        if self.labels == "class labels" or (self.labels == "masks" and names[0] is not None):
            known = [one for one in names if one is not None]
            together = self.given if self.given is not None else union(known)
            if self.given is None and any(all(set(group) - set(one) for one in known) for group in alike(together)):
                warn_alike("the joined datasets together", together)
            return together, tables(self.parts, known, together)
        if self.given is not None and self.given != names[0]:
            tables(self.parts, [one or [f"no {self.labels} by that name"] for one in names], self.given)
        return names[0], [None] * len(self.parts)

    @cached_property
    def classes(self) -> list[str] | None:
        """The class names; of masks that name none the numbers found in them, for which each is read once.

        Raises:
            DataError: A mask that cannot be read, where the classes are to be found in the masks.
        """
        if self.known_classes is not None or self.labels != "masks":
            return self.known_classes
        return union([part.classes for part in self.parts])

    @cached_property
    def targets(self) -> list[Any]:
        """The target of each sample: class numbers, the whole paths of masks or images, or numbers."""
        made: list[Any] = []
        for part, table in zip(self.parts, self.tables, strict=True):
            targets = part.targets.tolist() if hasattr(part.targets, "tolist") else list(part.targets)
            if table is not None and self.labels == "class labels":
                targets = table[np.asarray(targets, dtype=np.int64)].tolist()
            root = getattr(whole_of(part), "label_root", None)
            made += (
                [Path(root, one) for one in targets] if root is not None and self.labels != "class labels" else targets
            )
        return made

    @cached_property
    def paths(self) -> PathIndex | None:
        """The whole path of each sample's file, or ``None`` where some samples have none."""
        listed = [_files(part) for part in self.parts]
        known = [path for paths in listed if paths is not None for path in paths]
        return PathIndex(known) if len(known) == len(self) else None

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the classes and of each part; not of where the files lie."""
        said = [getattr(part, "fingerprint", None) or (type(part).__name__, len(part)) for part in self.parts]
        return fingerprint_of(self.known_classes, said)

    @property
    def deterministic(self) -> bool:
        """Whether a sample is known to be the same each time it is asked for."""
        return all(is_deterministic(part) for part in self.parts)

    @property
    def reads(self) -> bool:
        """Whether every part can give a smaller image."""
        return all(reads(part) for part in self.parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Returns a sample of a part, with the joined number of its class.

        Raises:
            ImageError: The file cannot be decoded; it and its index are named.
            DataError: The target does not fit it.
        """
        return self._sample(index, lambda part, place: part[place])

    def _sample(self, index: int, take: Any) -> tuple[Any, Any]:
        number, place = self.locate(index)
        try:
            item = take(self.parts[number], place)
            table = self.tables[number]
            return item if table is None else (item[0], translated(item[1], table, self.ignore))
        except CvkitError as error:
            raise type(error)(f"sample {index}: {_SAMPLE.sub('', str(error))}") from error

    def __getattr__(self, name: str) -> Any:
        """Offers what only some parts have: ``read`` and ``size``, by which a loader saves work."""
        if name == "read" and "tables" in self.__dict__ and self.reads:
            return lambda index, enough=None: self._sample(index, lambda part, place: part.read(place, enough))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def size(self, index: int) -> tuple[int, int]:
        """Returns the width and height of a sample's image in pixels.

        Raises:
            ImageError: The file's header cannot be read.
            AttributeError: Its part cannot tell.
        """
        number, place = self.locate(index)
        size: tuple[int, int] = self.parts[number].size(place)
        return size

    def locate(self, index: int) -> tuple[int, int]:
        """Returns which part a sample is of, and its index there.

        Raises:
            IndexError: There is no such sample.
        """
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number - 1] if number else 0)

    def verify(self, *, strict: bool = False) -> Verification:
        """Reads every sample, whole, as each part's ``verify`` does; a file that is in two parts is found too.

        Args:
            strict: As there.

        Raises:
            MissingDependencyError: As there.

        Warns:
            CvkitWarning: Files that are listed more than once with one label.
        """
        return self.found_bad(range(len(self)), strict=strict)

    def found_bad(self, indices: Sequence[int], *, strict: bool = False) -> Verification:
        """Does what :meth:`verify` does for some samples; they are named by their whole path, or by their index."""
        if strict:
            strict_reader()
        files: list[str | None] = []
        for part in self.parts:
            files += _files(part) or [None] * len(part)
        wanted = [files[index] for index in indices]
        names = [path if path is not None else str(index) for index, path in zip(indices, wanted, strict=True)]
        return verified(self, indices, names, wanted, strict=strict)

    def why_bad(self, index: int, *, strict: bool = False) -> str | None:
        """Returns the message of a sample that cannot be read, without its index; ``None`` where it can."""
        number, place = self.locate(index)
        return why_bad(self.parts[number], place, strict=strict)

    def content_digest(self, indices: Sequence[int] | None = None) -> str | None:
        """Returns one hash over the content of all files, where a manifest lies beside those of every part.

        Args:
            indices: Which samples; by default all.
        """
        return content_digest(
            [made(places) if made is not None else None for made, places in self._asked("content_digest", indices)]
        )

    def content_changes(self, indices: Sequence[int] | None = None) -> list[str]:
        """Returns the files whose content was another in an earlier state of their part's manifest."""
        asked = self._asked("content_changes", indices)
        return [name for made, places in asked if made is not None for name in made(places)]

    def _asked(self, name: str, indices: Sequence[int] | None) -> list[tuple[Any, list[int]]]:
        """Returns a method of each part with samples among those asked for, and its places of them."""
        places: list[list[int]] = [[] for _ in self.parts]
        for index in indices if indices is not None else range(len(self)):
            number, place = self.locate(index)
            places[number].append(place)
        return [(getattr(part, name, None), own) for part, own in zip(self.parts, places, strict=True) if own]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "targets"}

    def __repr__(self) -> str:
        classes = f", {len(self.known_classes)} classes" if self.known_classes is not None else ""
        return f"JoinedDataset({len(self)} samples of {len(self.parts)} datasets{classes})"


def _flat(part: Any) -> Iterator[Any]:
    if type(part) is JoinedDataset and part.given is None:
        yield from part.parts
    else:
        yield part


def _files(part: Any) -> list[str] | None:
    """Returns the whole path of each sample's file, where a part has files; torchvision's too."""
    paths, root = getattr(part, "paths", None), getattr(whole_of(part), "root", None)
    if paths is not None:
        return [os.path.join(root, path) if root is not None else str(path) for path in paths]
    pairs = getattr(part, "samples", None)
    return [str(one[0]) for one in pairs] if isinstance(pairs, list) else None
