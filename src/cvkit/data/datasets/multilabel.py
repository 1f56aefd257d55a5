"""Several labels an image: a list in one cell or one text file, to one 0 or 1 a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvkit.data.datasets.labels import number
from cvkit.errors import ArgumentError, DataError

__all__ = ["check_separator", "listed", "multi_hot", "no_separator"]

_USUAL = "|;, "


def check_separator(separator: str | None, *, kind: str) -> None:
    """Refuses a separator that is none, or that belongs to no ``kind="multilabel"``.

    Raises:
        ArgumentError: It is.
    """
    if separator is not None and (not isinstance(separator, str) or not separator):
        raise ArgumentError(
            "separator cannot be used",
            got=repr(separator),
            expected="what stands between two labels",
            fix='separator="|"',
        )
    if separator is not None and kind != "multilabel":
        raise ArgumentError(
            "separator is for several labels an image",
            got=f"kind={kind!r}",
            expected='kind="multilabel"',
            fix="leave it out",
        )


def listed(text: str, separator: str | None, source: str) -> list[str]:
    """Returns the labels of one image; none for an empty text.

    Args:
        text: The labels.
        separator: What stands between two of them; without one each line is one.
        source: Where it comes from, for messages.

    Raises:
        DataError: A label that is there twice, or an empty one between two separators.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    blank = separator is not None and not separator.strip()
    parts = [part for line in lines for part in (line.split(separator) if separator is not None else [line])]
    found = [part.strip() for part in parts if part.strip() or not blank]
    twice = [label for label, count in Counter(found).items() if count > 1]
    if twice or "" in found:
        raise DataError(
            f"{source} lists labels that cannot be used",
            got=f"{twice[0]!r} twice" if twice else f"an empty label in {text.strip()!r:.60}",
            expected="each label once" + (f", with {separator!r} between two" if separator is not None else ""),
            fix="mend it, or name another separator",
        )
    return found


def multi_hot(
    labels: Sequence[Sequence[str]], classes: Sequence[str] | None, sources: Sequence[str]
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float32]]]:
    """Returns the class names, and for each image one 0 or 1 a class ``(N, classes)``.

    Args:
        labels: The labels of each image.
        classes: The class names in their order; by default those found, sorted.
        sources: Where those of each image come from, for messages.

    Raises:
        DataError: A label that ``classes`` lacks, or no label at all.
    """
    flat = [label for one in labels for label in one]
    where = [source for source, one in zip(sources, labels, strict=True) for _ in one]
    if not flat and classes is None:
        raise DataError(
            "no image has a label",
            got=f"{len(labels)} empty lists of labels",
            expected="at least one label, by which the classes are known",
            fix="name the classes: classes=[…]",
        )
    names, places = number(flat, classes, where)
    made = np.zeros((len(labels), len(names)), dtype=np.float32)
    rows = np.repeat(np.arange(len(labels)), [len(one) for one in labels])
    made[rows, np.asarray(places, dtype=np.int64)] = 1
    return names, made


def no_separator(cells: Sequence[str]) -> ArgumentError:
    """Returns the error on a column of lists whose separator is not named."""
    counts = {one: sum(one in cell for cell in cells) for one in _USUAL}
    likely = max(counts, key=lambda one: counts[one])
    return ArgumentError(
        "it is not known what stands between two labels",
        got='kind="multilabel" without separator',
        expected="the characters between two labels of one cell",
        fix=f"pass separator={likely!r}"
        + (f", which {counts[likely]} of {len(cells)} cells hold" if counts[likely] else ", or whichever it is"),
    )
