"""``report``: what is in a training and a validation set, and what is wrong with them."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from cvkit.data.folder_data import FolderData
from cvkit.data.loader import Loader
from cvkit.data.reporting.duplicates import MOST_NEAR, equal, near
from cvkit.data.reporting.look import Look, looks
from cvkit.data.reporting.page import page
from cvkit.data.reporting.rows import KINDS, LONG, Row
from cvkit.errors import ArgumentError, DataError

__all__ = ["DataReport", "report"]

_IMBALANCE = 10.0
_RARE = 0.005


@dataclass(slots=True)
class DataReport:
    """What :func:`report` has found; ``str(report)`` is its text.

    Attributes:
        looks: What is known of each sample.
        rows: The findings, the most serious first.
        notes: What was not looked at, and why.
        datasets: The datasets by split, for thumbnails.
    """

    looks: list[Look]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    datasets: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is no error among the findings; warnings and suspicions are for a person to decide."""
        return not any(row.severity == "error" for row in self.rows)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of samples of each class, by split; empty for a split whose labels are no text or number."""
        found: dict[str, dict[str, int]] = {}
        for split in self.datasets:
            labels = Counter(look.label for look in self.looks if look.split == split and look.label is not None)
            found[split] = dict(sorted(labels.items()))
        return found

    def of(self, kind: str) -> list[Row]:
        """Returns the findings of one kind.

        Args:
            kind: E.g. ``"near duplicate"``.

        Raises:
            ArgumentError: There is no such kind.
        """
        if kind not in KINDS:
            raise ArgumentError(
                "kind cannot be used", got=repr(kind), expected=f"one of {', '.join(KINDS)}", fix="choose one of these"
            )
        return [row for row in self.rows if row.kind == kind]

    def table(self) -> list[dict[str, str]]:
        """Returns the findings as rows of text, e.g. for a data frame."""
        return [asdict(row) for row in self.rows]

    def to_csv(self, path: str | Path) -> None:
        """Writes the findings as a CSV file (UTF-8), one row each.

        Args:
            path: The file.

        Raises:
            DataError: It cannot be written.
        """
        try:
            with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                writer = csv.DictWriter(file, list(Row.__annotations__))
                writer.writeheader()
                writer.writerows(self.table())
        except OSError as error:
            raise not_written(path, error) from error

    def to_html(self, path: str | Path) -> None:
        """Writes one HTML page with thumbnails, which needs no other file and no network.

        Args:
            path: The file.

        Raises:
            DataError: It cannot be written.
        """
        try:
            Path(path).write_text(page(self), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise not_written(path, error) from error

    def __str__(self) -> str:
        lines = [line for split in self.datasets for line in self.summary(split)]
        for kind, (severity, meaning) in KINDS.items():
            found = self.of(kind)
            if found:
                lines += ["", f"{severity}: {len(found)} {meaning}"]
                lines += [f"  {_told(row)}" for row in found[:5]]
                lines += [f"  … and {len(found) - 5} more"] if len(found) > 5 else []
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines if self.rows else [*lines, "", "nothing suspicious was found"])

    def summary(self, split: str) -> list[str]:
        """Returns counts, classes, sizes, modes and formats of a split as lines of text."""
        mine = [look for look in self.looks if look.split == split]
        read = [look for look in mine if look.error is None]
        lines = [
            f"{split}: {len(mine)} images" + (f", {len(mine) - len(read)} unreadable" if len(read) < len(mine) else "")
        ]
        counts = self.counts[split]
        if counts and len(counts) <= max(len(mine) // 2, 1):
            shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:20])
            lines.append(f"  classes: {shown}" + (f" and {len(counts) - 20} more" if len(counts) > 20 else ""))
            ratio = max(counts.values()) / min(counts.values())
            hint = '; weights="balanced" draws each as often' if ratio >= _IMBALANCE else ""
            lines.append(f"  the largest class has {ratio:.1f} times the samples of the smallest{hint}")
        if read:
            for name, at in (("width", 0), ("height", 1)):
                sides = [look.size[at] for look in read]
                lines.append(f"  {name}: {min(sides)} to {max(sides)}, median {statistics.median_low(sides)}")
            lines.append(f"  modes: {_shares(look.mode for look in read)}")
            lines.append(f"  formats: {_shares(look.format or 'array' for look in read)}")
        return lines


def report(train: Any, val: Any = None, *, near_duplicates: bool = True) -> DataReport:
    """Looks at every sample of a training and a validation set, and reports what is in them and what is wrong.

    Every image is decoded once. Equal images are found by a hash of their decoded pixels, so a copy under another name, or
    saved again without loss, counts too. Images that look alike are found by a perceptual hash: they are a suspicion.

    Args:
        train: A dataset of images, a loader over one (its transform is left out), or what ``from_folder`` returns.
        val: The validation set, in the same way.
        near_duplicates: Whether to look for images that look alike; each is compared with each.

    Returns:
        Text by ``str``, rows by ``table()`` and ``to_csv``, a page with thumbnails by ``to_html``.

    Raises:
        ArgumentError: No dataset.
    """
    if isinstance(train, FolderData):
        train, val = train.train, train.val if val is None else val
    given = {"train": train, **({"val": val} if val is not None else {})}
    datasets = {name: _dataset(one) for name, one in given.items()}
    found = [look for name, one in datasets.items() for look in looks(one, name)]
    rows, notes = list(_suspicious(found)), []
    rows += _equal(found)
    if near_duplicates and len(found) > MOST_NEAR:
        notes.append(f"images that look alike were not looked for: {len(found):,} are more than {MOST_NEAR:,}")
    elif near_duplicates:
        rows += [_pair("near duplicate", one, other, detail) for one, other, detail in near(found)]
    order = list(KINDS)
    return DataReport(found, sorted(rows, key=lambda row: order.index(row.kind)), notes, datasets)


def _dataset(given: Any) -> Any:
    dataset = given.dataset if isinstance(given, Loader | DataLoader) else given
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ArgumentError(
            "there is nothing to report on",
            got=type(given).__name__,
            expected="a dataset of images, or a loader over one",
            fix="cvkit.data.report(FolderDataset(…))",
        )
    return dataset


def _suspicious(found: Sequence[Look]) -> Iterator[Row]:
    """Yields what is suspicious about single files."""
    sides = [side for look in found if look.error is None for side in look.size]
    usual = statistics.median_low(sides) if sides else 0
    formats = Counter(look.format for look in found if look.error is None)
    for look in found:
        if look.error is not None:
            yield _row("unreadable", look, look.error)
            continue
        shape = f"{look.size[0]}×{look.size[1]} pixels"
        if look.one_colour:
            yield _row("one colour", look, shape)
        if max(look.size) > LONG * min(look.size):
            yield _row("extreme shape", look, shape)
        if min(look.size) * 10 < usual or max(look.size) > 10 * usual:
            yield _row("odd size", look, f"{shape}, where {usual} is usual")
        if formats[look.format] <= _RARE * sum(formats.values()):
            yield _row("odd format", look, f"{look.format}, where {formats.most_common(1)[0][0]} is usual")
        if look.wrong_ending:
            yield _row("wrong extension", look, f"its content is {look.format}")
        if look.profile is not None:
            yield _row("colour profile", look, look.profile)


def _equal(found: Sequence[Look]) -> Iterator[Row]:
    """Yields what is wrong with equal images: each with the first of its group, or the first in the other split."""
    for group in equal(found):
        first: dict[str, Look] = {}
        for look in group:
            first.setdefault(look.split, look)
        one = group[0]
        for look in group[1:]:
            other = first[look.split]
            if other is not look:
                yield _pair("duplicate", other, look, "the decoded images are equal")
            elif look is not one:
                yield _pair("duplicate", one, look, "the decoded images are equal")
            if look.label != one.label:
                yield _pair("contradicting labels", one, look, f"{one.label} and {look.label}")


def _row(kind: str, look: Look, detail: str) -> Row:
    return Row(kind, KINDS[kind][0], look.split, look.name, look.label or "", "", "", "", detail)


def _pair(kind: str, one: Look, other: Look, detail: str) -> Row:
    if kind != "contradicting labels" and one.split != other.split:
        kind = f"{kind} across splits"
    said = (other.split, other.name, other.label or "")
    return Row(kind, KINDS[kind][0], one.split, one.name, one.label or "", *said, detail)


def _told(row: Row) -> str:
    place = f"{row.split}: {row.file}"
    return f"{place} and {row.other_split}: {row.other} ({row.detail})" if row.other else f"{place} ({row.detail})"


def _shares(values: Iterator[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(values).most_common())


def not_written(path: str | Path, error: OSError) -> DataError:
    """Returns the error on a report that cannot be written."""
    return DataError(
        f"the report {path} cannot be written",
        got=f"{type(error).__name__}: {error.strerror}",
        expected="a file in a directory that is there and can be written to",
        fix="check the path and its permissions",
    )
