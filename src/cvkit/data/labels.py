"""Labels as text to class numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cvkit.data.alike import hint
from cvkit.data.files import some
from cvkit.errors import DataError

__all__ = ["number"]

_WHOLE = re.compile(r"-?[0-9]{1,18}")


def number(labels: Sequence[str], classes: Sequence[str] | None, sources: Sequence[str]) -> tuple[list[str], list[int]]:
    """Numbers labels by their place among the class names.

    Args:
        labels: The label of each sample.
        classes: The class names in their order; ``None`` takes those found, sorted as numbers where all are whole numbers (so
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
