"""Labels as text to class numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cvkit.data.datasets.files import some
from cvkit.data.datasets.similar_names import hint
from cvkit.errors import ArgumentError, DataError
from cvkit.numbering import classes_keyword, known_classes

__all__ = ["number", "number_one", "places_of", "unnumbered"]

_WHOLE = re.compile(r"-?[0-9]{1,18}")


def number(labels: Sequence[str], classes: Sequence[str] | None, sources: Sequence[str]) -> tuple[list[str], list[int]]:
    """Numbers labels by their place among the class names.

    Args:
        labels: The label of each sample.
        classes: The class names in their order; ``None`` takes those found, sorted as numbers where all are integers (so
            that ``"10"`` comes after ``"9"``), else as text.
        sources: Where each label comes from, for messages.

    Returns:
        The class names, and the target of each sample.

    Raises:
        DataError: A label that ``classes`` lacks.
    """
    found = set(labels)
    if classes is None:
        as_numbers = all(_WHOLE.fullmatch(label) for label in found)
        classes = sorted(found, key=lambda label: (int(label), label)) if as_numbers else sorted(found)
    place = {name: index for index, name in enumerate(classes)}
    unknown = sorted(found - set(place))
    if unknown:
        where = [source for label, source in zip(labels, sources, strict=True) if label not in place]
        raise DataError(
            f"{len(where)} labels are no known class: {some(unknown)}",
            got=f"in {some(where, 5)}",
            expected=f"only {some(list(classes))}",
            fix=f"mend{hint(unknown, place)} or remove these labels, or add their class to the training set as well",
        )
    return list(classes), [place[label] for label in labels]


def places_of(classes: Sequence[str], dataset: Any) -> dict[str, int]:
    """Returns the number of each class that a loader is given for a dataset.

    Raises:
        ArgumentError: The dataset has other class names of its own.
    """
    known = known_classes(dataset)
    if known is not None and known != list(classes):
        raise ArgumentError(
            f"{type(dataset).__name__} has other classes than those given",
            got=f"classes={some([repr(name) for name in classes])}",
            expected=f"those of the dataset: {some([repr(name) for name in known])}",
            fix="leave classes out, or give them to the dataset",
        )
    return {name: place for place, name in enumerate(classes)}


def number_one(label: Any, places: Mapping[str, int], sample: str, *, numbered: bool) -> Any:
    """Numbers the label of one sample by its class's place.

    Args:
        label: What the dataset gives as target.
        places: The number of each class.
        sample: What to call the sample in a message.
        numbered: Whether the dataset has these class names itself; its numbers then mean these classes.

    Raises:
        DataError: A label that is no class, or no text.
    """
    if not isinstance(label, str):
        if numbered:
            return label
        raise DataError(
            f"the target of {sample} is no label to be numbered by classes=[…]",
            got=f"{label!r:.60} ({type(label).__name__})",
            expected="a label as text",
            fix='if the dataset numbers its classes itself, leave classes out; dataset.classes = ["…"] gives them names',
        )
    if label in places:
        return places[label]
    near = [repr(name) for name in difflib.get_close_matches(label, places, n=1)]
    # names that look the same are shown escaped
    mend = hint([label], places) or (f" (did you mean {near[0]}?)" if near else "")
    raise DataError(
        f"the label of {sample} is no known class",
        got=repr(label),
        expected=f"one of {some([repr(name) for name in places])}",
        fix=f"mend the label{mend}, or add it to classes=[…]",
    )


def unnumbered(labels: Sequence[str], dataset: Any, sample: str) -> DataError:
    """Returns the error on labels that are text where no classes were given to number them by.

    Args:
        labels: The labels of a batch.
        dataset: Where they come from.
        sample: What to call the first of them.
    """
    known = known_classes(dataset)
    rest = ", and the classes that are not in this batch" if known is None else ""
    return DataError(
        f"the label of {sample} is text, and no classes are given to number it by",
        got=repr(labels[0]),
        expected="a number, or the names of all classes in the order of their numbers",
        fix=f"name the classes: Loader(dataset, …, {classes_keyword(labels, known)}){rest}",
    )
