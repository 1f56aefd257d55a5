"""The findings of a report, as plain rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS", "LONG", "Row", "Severity"]

LONG = 4.0
"""How many times as long as wide an image may be: photos are at most 3:1 as a rule."""

Severity = Literal["error", "warning", "suspicion"]

KINDS: dict[str, tuple[Severity, str]] = {
    "unreadable": ("error", "files that cannot be read"),
    "duplicate across splits": (
        "error",
        "images of the training set that are in the validation set too (equal pixels)",
    ),
    "contradicting labels": ("error", "equal images with different labels"),
    "duplicate": ("warning", "images that come more than once in a split (equal pixels)"),
    "one colour": ("warning", "images of one colour"),
    "extreme shape": ("warning", f"images more than {LONG:g} times as long as wide, or the reverse"),
    "odd size": ("warning", "images with a side below a tenth, or above ten times, of what is usual here"),
    "odd format": ("warning", "images of a format that hardly any other has here"),
    "wrong extension": ("warning", "files whose name says another format"),
    "colour profile": ("warning", "images whose colours are not sRGB (they are converted when they are decoded)"),
    "near duplicate across splits": ("suspicion", "images of both splits that look alike: look at them"),
    "near duplicate": ("suspicion", "images of one split that look alike: look at them"),
}
"""What is looked for, how serious it is, and what to call it; in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One finding.

    Attributes:
        kind: One of the kinds of finding, e.g. ``"duplicate across splits"``.
        severity: ``"error"``, ``"warning"``, or ``"suspicion"`` for what only a person can decide.
        split: ``"train"`` or ``"val"``.
        file: The file, or the sample's index.
        label: Its label.
        other_split: That of the other file, for pairs.
        other: The other file, for pairs.
        other_label: Its label.
        detail: What was found, in words.
    """

    kind: str
    severity: Severity
    split: str
    file: str
    label: str
    other_split: str
    other: str
    other_label: str
    detail: str
