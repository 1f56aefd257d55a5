"""What a file says of itself: plain values of a bounded size, and nothing that could be a place to open.

A checkpoint describes its model and its preprocessing, so that it can be used without the script that wrote it. Whoever wrote
the file chose these values. So they are looked at before anything is made of them, and they are never shown at full length.
"""

from __future__ import annotations

import math
import reprlib
import unicodedata
from collections.abc import Iterable

__all__ = ["LONGEST", "MOST", "WEIGHTS", "line", "name_oddity", "oddity", "shown", "text_oddity"]

LONGEST = 200
"""Characters that a name or an argument in a description may have."""

MOST = 2**31 - 1
"""The largest integer that a description may have."""

WEIGHTS = frozenset(
    {
        *("pretrained", "weights", "weights_backbone", "pretrained_backbone", "progress", "freeze"),
        *("checkpoint_path", "cache_dir"),
    }
)
"""Arguments of builders that say where weights come from, or what of them is trained. A description leaves them out, and where
an older file has them they are passed over: the weights are those in the file."""

_ITEMS = 1_000  # in the lists of one argument, all levels together
_LEVELS = 3
_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # they change the direction of the text around them


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 2, 4, 4, 12
        self.maxstring, self.maxother, self.maxlong = 120, 60, 40

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 2_000:  # Python refuses to write very long ones
            return f"<an integer of {x.bit_length()} bits>"
        return super().repr_int(x, level)


_SHORT = _Short()


def shown(value: object) -> str:
    """Returns a value in a line of bounded length, whatever it is; control characters are written as escapes."""
    return line(_SHORT.repr(value), 300)


def line(text: str, most: int = 400) -> str:
    """Returns a text as one line of at most so many characters; control characters are written as escapes."""
    words = " ".join(text[: 4 * most].split())
    clipped = words if len(words) <= most else words[: most - 1] + "…"
    return "".join(one if _harmless(one) else repr(one)[1:-1] for one in clipped)


def oddity(value: object) -> str | None:
    """Returns why a value cannot be an argument in a description; ``None`` for one that can.

    An argument is ``None``, a boolean, an integer up to :data:`MOST`, a finite number, a short text that is no path and no
    address, or a list of such.
    """
    return _oddity(value, [_ITEMS], _LEVELS)


def _oddity(value: object, left: list[int], levels: int) -> str | None:
    if value is None or type(value) is bool:
        return None
    if type(value) is int:
        return None if abs(value) <= MOST else f"{shown(value)}, beyond {MOST}"
    if type(value) is float:
        return None if math.isfinite(value) else f"{value}, no finite number"
    if type(value) is str:
        return text_oddity(value)
    if type(value) not in (list, tuple):
        return f"a {type(value).__name__}"
    left[0] -= len(value)  # type: ignore[arg-type]
    if left[0] < 0:
        return f"more than {_ITEMS} values"
    if not levels:
        return f"lists in lists, more than {_LEVELS} deep"
    return _first(_oddity(one, left, levels - 1) for one in value)  # type: ignore[attr-defined]


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)


def text_oddity(text: str) -> str | None:
    """Returns why a text cannot be a name or an argument in a description; ``None`` for one that can."""
    if len(text) > LONGEST:
        return f"a text of {len(text)} characters"
    if "/" in text or "\\" in text:
        return f"{shown(text)}, which may be a path or an address"
    return name_oddity(text)


def name_oddity(text: str) -> str | None:
    """Returns why a text cannot be shown as a name: a control character, or one that turns the text around it."""
    return None if all(map(_harmless, text)) else f"{shown(text)}, with a control character"


def _harmless(one: str) -> bool:
    if one.isprintable():
        return True
    return unicodedata.category(one) not in ("Cc", "Zl", "Zp") and ord(one) not in _TURNING
