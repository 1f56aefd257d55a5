"""What reading every sample of a dataset finds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cvkit.calls import warn
from cvkit.data.datasets.duplicates import identity, repeats
from cvkit.errors import CvkitError

__all__ = ["Verification", "verified", "why_bad"]

_SAMPLE = re.compile(r"^sample \d+: ")


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify()`` found.

    Attributes:
        count: Samples read.
        bad: The message of every one that cannot be read, or whose file is listed with another label too, by the file's
            path (or the sample's index where there is no file).
    """

    count: int
    bad: dict[str, str]

    def __bool__(self) -> bool:
        """Whether every sample is sound."""
        return not self.bad

    def __str__(self) -> str:
        lines = [f"{self.count} files, {len(self.bad)} of them bad"]
        return "\n".join([*lines, *(message.splitlines()[0] for message in self.bad.values())])


def why_bad(dataset: Any, index: int, *, strict: bool = False) -> str | None:
    """Returns the message of a sample that cannot be read, or ``None``; a dataset may know better (``why_bad``)."""
    own: Callable[..., str | None] | None = getattr(dataset, "why_bad", None)
    if own is not None:
        return own(index, strict=strict)
    try:
        dataset[index]
    except CvkitError as error:
        return _SAMPLE.sub("", str(error))
    return None


def verified(
    dataset: Any,
    indices: Sequence[int],
    names: Sequence[str],
    files: Sequence[str | None],
    *,
    strict: bool = False,
) -> Verification:
    """Reads samples, whole, and reports those that cannot be read, and files that are listed with two labels.

    That two names are one file, by links of either kind, takes a ``stat`` a file, which is little beside reading it.

    Args:
        dataset: A dataset with ``targets``.
        indices: Which samples.
        names: What to call each of them.
        files: The file of each of them, where it has one.
        strict: Whether JPEGs are read more strictly, where the dataset can.

    Warns:
        CvkitWarning: Files that are listed more than once with one label.
    """

    def look(place: int) -> tuple[str | None, tuple[int, int] | None]:
        file = files[place]
        return why_bad(dataset, indices[place], strict=strict), identity(file) if file is not None else None

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        found = list(pool.map(look, range(len(indices))))
    bad = {name: why for name, (why, _) in zip(names, found, strict=True) if why is not None}
    once: dict[int, int] = {}  # a sample that was asked for twice is no second file
    for place, index in enumerate(indices):
        once.setdefault(index, place)
    places = list(once.values())
    targets = dataset.targets
    other, same = repeats([found[place][1] for place in places], [targets[indices[place]] for place in places])
    for first, again in other:
        name = names[places[again]]
        bad.setdefault(name, f"the image {name} is the same file as {names[places[first]]}, which has another label")
    if same:
        first, again = same[0]
        warn(
            f"{len(same)} images are listed more than once, e.g. {names[places[first]]} and {names[places[again]]}, which are "
            "the same file: each name counts as a sample; remove the links if that is not meant"
        )
    return Verification(len(indices), bad)
