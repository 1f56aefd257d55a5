"""What a check finds, and the report that all findings make."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, TypeAlias

from cvkit.errors import PreflightError

__all__ = ["Finding", "Report", "Severity"]

Severity: TypeAlias = Literal["error", "warning"]
"""``"error"``: it cannot work. ``"warning"``: it works, and learns nothing or the wrong thing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake, named.

    Attributes:
        code: Its stable code, e.g. ``"CV301"``; :attr:`page` explains it.
        severity: ``"error"`` or ``"warning"``.
        what: What is wrong, in one sentence.
        got: What was seen, in numbers.
        expected: What a sound program shows there.
        fix: What to write.
        where: The layer's path, the argument, the file or the sample, where :attr:`what` does not say it.
    """

    code: str
    severity: Severity
    what: str
    got: str | None = None
    expected: str | None = None
    fix: str | None = None
    where: str | None = None

    @property
    def page(self) -> str:
        """Where the code is explained, with a bad and a good program."""
        return f"{_pages()}/{self.code}.rst"

    @property
    def parts(self) -> dict[str, str]:
        """What there is to say besides :attr:`what`, by its label."""
        found = {"got": self.got, "expected": self.expected, "where": self.where, "fix": self.fix}
        return {label: value for label, value in found.items() if value is not None}

    @property
    def message(self) -> str:
        """The finding as an error says it: what, and one line for each part."""
        return "\n".join([self.what, *(f"  {label}: {value}" for label, value in self.parts.items())])

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Report(list[Finding]):
    """All findings of one examination, errors first; empty, and so false, where nothing is wrong.

    It prints as text, and in a notebook it is shown as a table.

    Args:
        findings: The findings, in the order in which they were made.
        checks: How many checks have run.
        seconds: How long that took.
        failed: The checks that could not judge this program because they failed themselves, by code, each with its error.
    """

    def __init__(
        self,
        findings: Iterable[Finding] = (),
        *,
        checks: int = 0,
        seconds: float = 0.0,
        failed: dict[str, str] | None = None,
    ) -> None:
        super().__init__(sorted(findings, key=lambda one: one.severity != "error"))
        self.checks = checks
        self.seconds = seconds
        self.failed = failed or {}

    @property
    def errors(self) -> list[Finding]:
        """What cannot work."""
        return [one for one in self if one.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What works, and learns nothing or the wrong thing."""
        return [one for one in self if one.severity == "warning"]

    @property
    def codes(self) -> list[str]:
        """The code of each finding."""
        return [one.code for one in self]

    def raise_errors(self, *, strict: bool = False) -> None:
        """Raises one error for all that cannot work.

        Args:
            strict: Whether warnings count as errors.

        Raises:
            PreflightError: There are errors; its attribute ``findings`` holds them.
        """
        found = list(self) if strict else self.errors
        if not found:
            return
        if len(found) == 1:
            error = PreflightError(str(found[0]))
        else:
            parts = "\n".join(str(one) for one in found)
            error = PreflightError(f"{len(found)} mistakes were found before the first epoch\n{parts}")
        error.findings = tuple(found)
        raise error

    def __str__(self) -> str:
        if not self:
            return f"nothing found ({self._effort()})"
        blocks = [
            "\n".join(
                [f"{one.severity}[{one.code}]: {one.what}", *(f"  {label:>8}: {text}" for label, text in _lines(one))]
            )
            for one in self
        ]
        return "\n\n".join([*blocks, f"{self._counts()} ({self._effort()})"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Returns the report as a notebook shows it."""
        if not self:
            return f"<p>cvkit: {html.escape(str(self))}</p>"
        rows = "".join(
            f'<tr style="vertical-align:top"><td style="text-align:left;white-space:nowrap"><b>{one.severity}</b><br>'
            f'<a href="{html.escape(one.page)}">{one.code}</a></td><td style="text-align:left"><b>{html.escape(one.what)}</b>'
            + "".join(f"<br><i>{label}:</i> {html.escape(text)}" for label, text in one.parts.items())
            + "</td></tr>"
            for one in self
        )
        return f"<table>{rows}</table><p>cvkit: {self._counts()} ({self._effort()})</p>"

    def _counts(self) -> str:
        several = [(len(self.errors), "error"), (len(self.warnings), "warning")]
        return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for count, kind in several if count)

    def _effort(self) -> str:
        lost = f"; could not judge: {', '.join(self.failed)}" if self.failed else ""
        return f"{self.checks} checks in {self.seconds:.2f} s{lost}"


def _lines(finding: Finding) -> list[tuple[str, str]]:
    return [*finding.parts.items(), ("page", finding.page)]


def _pages() -> str:
    """Returns where the pages are, as the package's own metadata say."""
    for line in metadata.metadata("cvkit").get_all("Project-URL") or ():
        label, _, address = line.partition(", ")
        if label == "Repository":
            return f"{address}/blob/main/docs/errors"
    return "docs/errors"
