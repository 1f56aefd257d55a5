"""How an argument is checked: integers, numbers and choices, each refused with what arrived and what to pass."""

from __future__ import annotations

import math
from collections.abc import Collection

from cvkit.errors import ArgumentError

__all__ = ["check_choice", "check_integer", "check_number"]


def check_integer(name: str, value: object, *, at_least: int = 1, fix: str, expected: str | None = None) -> None:
    """Refuses what is no integer of a least size.

    Args:
        name: The argument's name, with what takes it where that is not clear: ``"find_lr: steps"``.
        value: What arrived.
        at_least: The least integer that is taken.
        fix: The line to write.
        expected: What is taken, in words; by default ``"an integer of at least 1"``.

    Raises:
        ArgumentError: Named by the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise _refused(name, value, expected or f"an integer of at least {at_least}", fix)


def check_number(
    name: str,
    value: object,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
    fix: str,
    expected: str,
) -> None:
    """Refuses what is no finite number within bounds.

    Args:
        name: The argument's name.
        value: What arrived.
        at_least: The least number that is taken.
        above: What it must be above.
        at_most: The largest number that is taken.
        below: What it must be below.
        fix: The line to write.
        expected: What is taken, in words.

    Raises:
        ArgumentError: Named by the argument.
    """
    within = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and at_least <= value <= at_most
        and value < below
        and value > above
    )
    if not within:
        raise _refused(name, value, expected, fix)


def check_choice(
    name: str, value: object, choices: Collection[object], *, fix: str, expected: str | None = None
) -> None:
    """Refuses what is none of a few values; names that a user types are better answered by ``errors.unknown_name``.

    Args:
        name: The argument's name.
        value: What arrived.
        choices: What is taken.
        fix: The line to write.
        expected: What is taken, in words; by default the choices.

    Raises:
        ArgumentError: Named by the argument.
    """
    if value not in choices:
        raise _refused(name, value, expected or " or ".join(map(repr, choices)), fix)


def _refused(name: str, value: object, expected: str, fix: str) -> ArgumentError:
    return ArgumentError(f"{name} cannot be used", got=repr(value), expected=expected, fix=fix)
