"""Class names that look the same, or nearly so, and are not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from cvkit.calls import warn

__all__ = ["alike", "hint", "warn_alike"]

_NUMBER = re.compile(r"0*([0-9]+)")


def alike(names: Iterable[str]) -> list[list[str]]:
    """Returns the groups of names that differ only in what is easily overlooked, each in its order.

    That is: case, spaces at either end or of another kind, characters without width, how an accented letter is encoded
    (NFC or NFD), zeros in front of a number.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def warn_alike(where: object, names: Sequence[str]) -> None:
    """Warns of class names that are nearly the same; they are shown escaped, so that one sees what differs.

    Args:
        where: What holds the names, for the message.
        names: The class names.

    Warns:
        CvkitWarning: Some are.
    """
    groups = alike(names)
    if groups:
        shown = "; ".join(" and ".join(map(ascii, group)) for group in groups[:5])
        more = f"; and {len(groups) - 5} more" if len(groups) > 5 else ""
        warn(
            f"{where} has classes whose names are nearly the same: {shown}{more}. Each counts as a class of its own; give them "
            "one name if they are one class, or name all classes with classes=[…] if they are not"
        )


def hint(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Returns which unknown names are nearly known ones, for the end of a message's line; empty where none is."""
    by_plain = {_plain(name): name for name in known}
    near = [f"{name!a} is nearly {by_plain[_plain(name)]!a}" for name in unknown if _plain(name) in by_plain]
    return f" ({'; '.join(near[:5])})" if near else ""


def _plain(name: str) -> str:
    """Returns a name without what is easily overlooked."""
    seen = "".join(one for one in unicodedata.normalize("NFD", name) if unicodedata.category(one) != "Cf")
    plain = unicodedata.normalize("NFC", " ".join(seen.split()).casefold())
    number = _NUMBER.fullmatch(plain)
    return number[1] if number else plain
