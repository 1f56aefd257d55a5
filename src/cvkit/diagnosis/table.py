"""The table of checks: each is one small function that says what it needs and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from cvkit.diagnosis.finding import Finding, Severity
from cvkit.errors import ArgumentError, unknown_name

__all__ = ["NEEDS", "TABLE", "Check", "Cost", "Need", "Seen", "announce", "check", "check_codes"]

Need: TypeAlias = Literal[
    "settings",
    "labels",
    "both_datasets",
    "batch",
    "outputs",
    "loss",
    "gradients",
    "evaluation",
    "second_batch",
    "update",
]
"""What a check looks at, in the order in which it becomes available."""

NEEDS: tuple[Need, ...] = get_args(Need)

Cost: TypeAlias = Literal["free", "forward", "deep"]
"""``"free"``: it looks at what is there. ``"forward"``: it runs the model. ``"deep"``: seconds; only on request."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check has seen; the table adds the code and the severity.

    Attributes:
        what: What is wrong, in one sentence.
        got: What was seen, in numbers.
        expected: What a sound program shows there.
        fix: What to write.
        where: The layer's path, the argument, the file or the sample, where ``what`` does not say it.
    """

    what: str
    got: str | None = None
    expected: str | None = None
    fix: str | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table.

    Attributes:
        code: The code of what it finds.
        severity: How bad that is.
        title: The mistake in a few words, for the index.
        needs: What it looks at; it is not called where any of it is not available.
        cost: What it costs.
        each: Whether it is called for the training and for the validation side in turn, as ``function(probe, side)``;
            else once, as ``function(probe)``.
        function: Yields what it has seen.
    """

    code: str
    severity: Severity
    title: str
    needs: frozenset[Need]
    cost: Cost
    each: bool
    function: Callable[..., Iterable[Seen]]

    def __call__(self, *given: Any) -> Iterator[Finding]:
        """Yields the findings."""
        for one in self.function(*given):
            yield Finding(self.code, self.severity, one.what, one.got, one.expected, one.fix, one.where)


TABLE: dict[str, Check] = {}
"""Every check by its code."""


def check(
    code: str,
    severity: Severity,
    title: str,
    *,
    needs: Iterable[Need],
    cost: Cost = "free",
    each: bool = False,
) -> Callable[[Callable[..., Iterable[Seen]]], Callable[..., Iterable[Seen]]]:
    """Returns a decorator that files a function into the table.

    Args:
        code: A code of its own, ``CV`` and three digits.
        severity: ``"error"`` or ``"warning"``.
        title: The mistake in a few words.
        needs: What it looks at.
        cost: What it costs.
        each: Whether it looks at one side, training or validation, at a time.

    Raises:
        ArgumentError: The code is taken.
    """

    def file(function: Callable[..., Iterable[Seen]]) -> Callable[..., Iterable[Seen]]:
        if code in TABLE:
            raise ArgumentError(
                f"the code {code} is taken", got=title, expected=f"another code than that of: {TABLE[code].title}"
            )
        TABLE[code] = Check(code, severity, title, frozenset(needs), cost, each, function)
        return function

    return file


def announce(code: str, severity: Severity, title: str) -> None:
    """Files a code that no function of the table finds: of a crash, or of what is only seen while it trains."""
    check(code, severity, title, needs=())(lambda: ())


def check_codes(ignore: object) -> frozenset[str]:
    """Returns the codes to be ignored.

    Raises:
        ArgumentError: No sequence of codes.
        UnknownNameError: A code that no check has.
    """
    if isinstance(ignore, str) or not isinstance(ignore, Iterable):
        raise ArgumentError(
            "ignore cannot be used",
            got=repr(ignore),
            expected='codes of findings, e.g. ("CV204",)',
            fix=f"ignore=({ignore!r},)" if isinstance(ignore, str) else 'ignore=("CV204",)',
        )
    codes = list(ignore)
    for code in codes:
        if code not in TABLE:
            raise unknown_name("code in ignore", code, TABLE)
    return frozenset(codes)
