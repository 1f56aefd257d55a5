"""The same file listed more than once, through links; and files that are no files to read, such as pipes."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from cvkit.calls import warn
from cvkit.errors import DataError

__all__ = ["Repeat", "check_repeats", "identity", "no_file", "repeats"]

Repeat = tuple[int, int]
"""The places of a file that is listed for the first time, and once more."""

_KINDS = (
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def no_file(mode: int) -> str | None:
    """Returns what something is that reading may never come to the end of; ``None`` for a file or a folder.

    Args:
        mode: The ``st_mode`` of a ``stat``.
    """
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def identity(path: str | Path) -> tuple[int, int] | None:
    """Returns what is the same for every name of one file, links followed; ``None`` where the system does not tell."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # what cannot be reached is found when it is read
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def repeats(identities: Sequence[Hashable | None], labels: Sequence[Any]) -> tuple[list[Repeat], list[Repeat]]:
    """Finds files that are listed more than once.

    Args:
        identities: What is the same for every name of one file; ``None`` where it is not known.
        labels: The label of each; those that are paths, of masks or images, cannot be compared and count as the same.

    Returns:
        Those with another label than the first time, and those with the same.
    """
    first: dict[Hashable, int] = {}
    other: list[Repeat] = []
    same: list[Repeat] = []
    for place, one in enumerate(identities):
        if one is None:
            continue
        before = first.setdefault(one, place)
        if before != place:
            alike = isinstance(labels[place], Path) or labels[before] == labels[place]
            (same if alike else other).append((before, place))
    return other, same


def check_repeats(
    where: object,
    paths: Sequence[str],
    identities: Sequence[Hashable | None],
    labels: Sequence[Any],
    classes: Sequence[str] | None,
) -> None:
    """Refuses an image that is listed with two labels, and warns of one that is listed twice with the same.

    Args:
        where: What lists them, for messages.
        paths: The path of each.
        identities: As in :func:`repeats`.
        labels: As in :func:`repeats`.
        classes: The class names, where labels are places among them.

    Raises:
        DataError: One image has two labels.

    Warns:
        CvkitWarning: An image counts more than once.
    """
    other, same = repeats(identities, labels)
    if other:
        first, again = other[0]
        said = [_label(labels[place], classes) for place in (first, again)]
        raise DataError(
            f"{where} lists one image with two labels: {paths[first]} and {paths[again]} are the same file",
            got=f"{said[0]} and {said[1]}" + (f"; and {len(other) - 1} more such images" if len(other) > 1 else ""),
            expected="one label for each image",
            fix="remove the link that is wrong",
        )
    if same:
        first, again = same[0]
        warn(
            f"{where} lists {len(same)} images more than once, e.g. {paths[first]} and {paths[again]}, which are the same "
            "file: each name counts as a sample; remove the links if that is not meant"
        )


def _label(label: Any, classes: Sequence[str] | None) -> str:
    return repr(classes[label]) if classes is not None and isinstance(label, int) else str(label)
