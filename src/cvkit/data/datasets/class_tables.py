"""What datasets must have in common to be joined, and how their classes are numbered together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from cvkit.errors import ArgumentError, DataError
from cvkit.numbering import known_classes, whole_of

__all__ = ["Labels", "Table", "check_alike", "labels_of", "tables", "told", "translated", "union"]

Labels: TypeAlias = Literal["class labels", "masks", "images", "numbers"]
"""What the targets of a dataset are."""

Table: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""The joined number of each class of one part."""

_BY_KIND: dict[object, Labels] = {
    "text": "class labels",
    "class": "class labels",
    "mask": "masks",
    "image": "images",
    "value": "numbers",
    "multilabel": "numbers",
}


def labels_of(dataset: Any) -> Labels | None:
    """Returns what the targets of a dataset are, by its ``kind``, else by its ``targets``; ``None`` where nothing tells."""
    kind = getattr(dataset, "kind", None)
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    if getattr(whole_of(dataset), "target_transform", None) is not None:
        return None
    targets = getattr(dataset, "targets", None)
    try:
        values = np.asarray(targets)
    except (TypeError, ValueError):  # of different sizes
        return None
    if targets is None or len(targets) != len(dataset) or values.dtype.kind not in "iuf":
        return None
    if values.ndim > 1 or values.dtype.kind == "f":
        return "numbers"
    return "class labels" if known_classes(dataset) is not None else None


def told(parts: Sequence[Any], said: Sequence[object]) -> str:
    """Returns what is said of each part, for a message."""
    lines = [f"{place} ({type(whole_of(part)).__name__}): {one}" for place, (part, one) in enumerate(zip(parts, said))]
    return "part " + "; part ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")


def check_alike(parts: Sequence[Any]) -> Labels:
    """Returns what the targets of all parts are.

    Raises:
        ArgumentError: No part, or one that is no dataset with targets of a known kind.
        DataError: Parts of different kinds, or with numbers or masks that do not go together.
    """
    for place, part in enumerate(parts):
        if not hasattr(part, "__len__") or not hasattr(part, "__getitem__") or labels_of(part) is None:
            raise ArgumentError(
                f"dataset {place} cannot be joined",
                got=f"a {type(whole_of(part)).__name__}, which does not say what its targets are",
                expected="a dataset of cvkit.data, or one with classes and one target for each sample",
                fix="wrap arrays in cvkit.data.ArrayDataset, or give the dataset lists classes and targets",
            )
    if not parts:
        raise ArgumentError(
            "there is nothing to join", got="no dataset", expected="one or more", fix="cvkit.data.concat(first, second)"
        )
    kinds = [labels_of(part) for part in parts]
    if len(set(kinds)) > 1:
        raise DataError(
            "datasets with targets of different kinds cannot be joined",
            got=told(parts, kinds),
            expected="class labels in all, or masks in all, or images in all, or numbers in all",
            fix="train on one kind, or write the labels of the other part in the same way",
        )
    if kinds[0] == "numbers":
        _check_numbers(parts)
    if kinds[0] == "masks":
        _check_masks(parts)
    return kinds[0]  # type: ignore[return-value]  # which is not None


def _check_numbers(parts: Sequence[Any]) -> None:
    said = [(np.shape(part.targets)[1:], known_classes(part)) for part in parts]
    if any(one != said[0] for one in said):
        words = [f"shape {shape}" + (f", {', '.join(names)}" if names is not None else "") for shape, names in said]
        raise DataError(
            "the numbers of these datasets do not mean the same",
            got=told(parts, words),
            expected="as many numbers a sample, of the same names in the same order",
            fix="build each part with the same columns: label=[…]",
        )


def _check_masks(parts: Sequence[Any]) -> None:
    names = [known_classes(part) for part in parts]
    if len({one is None for one in names}) > 1:
        raise DataError(
            "some of these datasets name the classes of their masks, and some do not",
            got=told(parts, ["no names" if one is None else ", ".join(one[:5]) for one in names]),
            expected="class names in all, or in none",
            fix="build each part with the names of its classes: classes=[…]",
        )
    ignored = {one for one in (getattr(whole_of(part), "ignore", None) for part in parts) if one is not None}
    if len(ignored) > 1:
        raise DataError(
            "the masks of these datasets mark what is no class with different values",
            got=told(parts, [f"ignore={getattr(whole_of(part), 'ignore', None)}" for part in parts]),
            expected="one value, which the loss is given as ignore_index",
            fix="save the masks with one value there, e.g. 255",
        )


def union(names: Sequence[Sequence[str]]) -> list[str]:
    """Returns the classes of all parts, each once.

    Where each part has its own in sorted order (as numbers where all are numbers), so has the union; otherwise those of the
    first part come first, and each further part adds those that are new.
    """
    together = list(dict.fromkeys(name for one in names for name in one))
    numbers = all(name.isdecimal() and name.isascii() for name in together)
    if numbers and all(list(one) == sorted(one, key=_as_number) for one in names):
        return sorted(together, key=_as_number)
    return sorted(together) if all(list(one) == sorted(one) for one in names) else together


def _as_number(name: str) -> tuple[int, str]:
    return int(name), name


def tables(parts: Sequence[Any], names: Sequence[Sequence[str]], classes: Sequence[str]) -> list[Table | None]:
    """Returns the joined number of each class of each part; ``None`` for a part whose numbers stay as they are.

    Raises:
        DataError: A part has a class that ``classes`` lacks, or masks ignore a value that is the number of one.
    """
    place = {name: index for index, name in enumerate(classes)}
    unknown = [[name for name in one if name not in place] for one in names]
    if any(unknown):
        where = [index for index, one in enumerate(unknown) if one]
        raise DataError(
            f"classes does not hold {', '.join(dict.fromkeys(name for one in unknown for name in one))}",
            got="; ".join(
                f"part {index} ({type(whole_of(parts[index])).__name__}) has {', '.join(unknown[index])}"
                for index in where[:5]
            ),
            expected=f"only {', '.join(classes[:10])}"
            + (f" and {len(classes) - 10} more" if len(classes) > 10 else ""),
            fix="add them to classes=[…], or leave classes out",
        )
    ignored = [value for value in (getattr(whole_of(part), "ignore", None) for part in parts) if value is not None]
    if ignored and ignored[0] < len(classes):
        raise DataError(
            "ignore is the number of a class",
            got=f"ignore={ignored[0]}, {len(classes)} classes together",
            expected="a value beyond the classes' numbers",
            fix="save the masks with another value there, e.g. 255",
        )
    made = [np.asarray([place[name] for name in one], dtype=np.int64) for one in names]
    return [None if np.array_equal(table, np.arange(len(table))) else table for table in made]


def translated(target: Any, table: Table, ignore: int | None) -> Any:
    """Returns a target with the joined numbers of its classes: of a class label an integer, of a mask a mask.

    Args:
        target: A class number, or a mask.
        table: The joined number of each class.
        ignore: A value of masks that stays.

    Raises:
        DataError: A class number that the part does not have.
    """
    values = np.asarray(target)
    wrong = values[((values < 0) | (values >= len(table))) & (values != (ignore if ignore is not None else -1))]
    if values.dtype.kind not in "iu" or wrong.size:
        raise DataError(
            "a target is no class",
            got=f"{wrong.flat[0]}" if wrong.size else type(target).__name__,
            expected=f"an integer from 0 to {len(table) - 1}",
            fix="see that the dataset's classes are those of its samples",
        )
    if not isinstance(target, Image.Image):
        return int(table[int(values)])
    stays = values == ignore if ignore is not None else np.zeros(values.shape, dtype=bool)
    numbers = np.where(stays, values, table[np.where(stays, 0, values)])
    return Image.fromarray(numbers.astype(np.uint8 if numbers.max(initial=0) <= 255 else np.int32))
