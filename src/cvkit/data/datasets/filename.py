"""``FilenameDataset``: the label is in the file's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvkit.data.colour_profiles import Colour
from cvkit.data.datasets.base import class_names, fingerprint_of
from cvkit.data.datasets.files import EXTENSIONS, Background, ClassTargets, FileDataset, OnError, Tree, some
from cvkit.data.datasets.labels import number
from cvkit.data.datasets.similar_names import warn_alike
from cvkit.data.decode import MAX_PIXELS
from cvkit.errors import ArgumentError, DataError
from cvkit.pixels import WHITE

__all__ = ["FilenameDataset"]


class FilenameDataset(ClassTargets, FileDataset):
    r"""Images under ``root`` whose names tell their class, as in ``cat.0001.jpg``.

    Files and links count as in :class:`FolderDataset`; the order is that of the sorted paths.

    Args:
        root: The directory; folders in it are searched too.
        pattern: A regular expression with a group ``label``, which is searched for in each file's name (without folders):
            ``r"^(?P<label>[a-z]+)\."``.
        classes: The class names in their order. By default those found, sorted (as numbers where all are numbers).
        on_error: As in :class:`FolderDataset`.
        extensions: As in :class:`FolderDataset`.
        background: As in :class:`FolderDataset`.
        max_pixels: As in :class:`FolderDataset`.
        colour: As in :class:`FolderDataset`.
        follow_links: As in :class:`FolderDataset`.

    Attributes:
        root: The directory.
        classes: The class names; the target is the place in this list.
        targets: The target of each sample.
        paths: The path of each sample, relative to ``root``.
        fingerprint: A hash of classes, paths and targets.

    Raises:
        DataError: A missing directory, no images, names that do not match, or labels that ``classes`` lacks; an image that
            links list with two labels; a pipe, socket or device.
        ArgumentError: A value that cannot be used, or a pattern without a group ``label``.

    Warns:
        CvkitWarning: Links that are not followed, or that list an image twice; class names that are nearly the same.
    """

    classes: list[str]

    def __init__(
        self,
        root: str | Path,
        pattern: str | re.Pattern[str],
        *,
        classes: Sequence[str] | None = None,
        on_error: OnError = "raise",
        extensions: Sequence[str] = EXTENSIONS,
        background: Background = WHITE,
        max_pixels: int = MAX_PIXELS,
        colour: Colour = "convert",
        follow_links: bool = False,
    ) -> None:
        expression = _compiled(pattern)
        tree = Tree(root, extensions, follow_links=follow_links, what="a directory of images")
        paths = tree.files()
        if not paths:
            raise DataError(
                f"no image in {tree.root}",
                got=tree.holds(),
                expected=f"files ending in {', '.join(tree.endings)}",
                fix="check the path, or name other endings: extensions=(…)",
            )
        matches = [expression.search(path.rpartition("/")[2]) for path in paths]
        orphans = [path for path, match in zip(paths, matches, strict=True) if match is None or not match["label"]]
        if orphans:
            raise DataError(
                f"the names of {len(orphans)} images in {tree.root} do not match the pattern",
                got=some(orphans),
                expected=f"names in which {expression.pattern!r} finds a label",
                fix="widen the pattern, or move these files away",
            )
        labels = [match["label"] for match in matches if match is not None]
        given = class_names(classes) if classes is not None else None
        self.classes, targets = number(labels, given, [str(tree.root / path) for path in paths])
        tree.warn()
        tree.check_repeats(paths, targets, self.classes)
        if given is None:
            warn_alike(tree.root, self.classes)
        super().__init__(root, paths, on_error=on_error, background=background, max_pixels=max_pixels, colour=colour)
        self.numbers = np.asarray(targets, dtype=np.int64)
        self.fingerprint = fingerprint_of(self.classes, targets, paths)


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
        expression.search("")  # a pattern of bytes is none for names
    except (re.error, TypeError) as error:
        raise ArgumentError(
            "pattern is no regular expression",
            got=f"{pattern!r}: {error}",
            expected='r"^(?P<label>[a-z]+)"',
            fix="mend it",
        ) from error
    if "label" not in expression.groupindex:
        raise ArgumentError(
            "pattern has no group that is the label",
            got=repr(expression.pattern),
            expected="a group (?P<label>…)",
            fix='e.g. r"^(?P<label>[a-z]+)" for names like cat.0001.jpg',
        )
    return expression
