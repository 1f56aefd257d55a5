"""``TableDataset``: images and labels are listed in a table."""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from cvkit.data.colour_profiles import Colour
from cvkit.data.datasets.base import class_names, fingerprint_of
from cvkit.data.datasets.duplicates import check_repeats, no_file
from cvkit.data.datasets.files import Background, FileDataset, OnError, some
from cvkit.data.datasets.labels import number
from cvkit.data.datasets.multilabel import check_separator, listed, multi_hot, no_separator
from cvkit.data.datasets.similar_names import warn_alike
from cvkit.data.datasets.text_files import check_encoding, read_text
from cvkit.data.decode import MAX_PIXELS
from cvkit.errors import ArgumentError, DataError, unknown_name
from cvkit.pixels import WHITE

__all__ = ["TableDataset"]

Row = Mapping[str, Any]

_KINDS = ("class", "multilabel", "value")

_LARGEST = float(np.finfo(np.float32).max)


class TableDataset(FileDataset):
    """Images listed in a CSV file, in a data frame, or in rows made by a script.

    Args:
        table: A CSV file with a header line (comma, semicolon or tab), a data frame, or rows as mappings.
        image: The column that holds each image's path, relative to ``root``.
        label: The column that holds each label; for ``kind="value"`` also several columns.
        root: The directory of the images; by default the one of the CSV file.
        kind: ``"class"``: labels are names (also names like ``"3"``), the target is the place among ``classes``. ``"value"``:
            labels are numbers, as for a regression or for several yes-or-no labels; the target is float32, ``()`` for one
            column and ``(k,)`` for a list of ``k``. ``"multilabel"``: the column lists the classes of an image, and the target
            is float32 ``(classes,)`` of 0 and 1, for ``loss="bce"``; an empty cell is an image of no class.
        classes: The class names in their order. By default those found, sorted (as numbers where all are numbers); for
            several columns of values the columns.
        separator: For ``kind="multilabel"``: what stands between two labels of a cell, e.g. ``"|"``.
        encoding: What the CSV file is in, e.g. ``"gbk"``; by default UTF-8, or what its byte order mark says.
        on_error: As in :class:`FolderDataset`.
        background: As in :class:`FolderDataset`.
        max_pixels: As in :class:`FolderDataset`.
        colour: As in :class:`FolderDataset`.
        follow_links: Whether a path may lead out of ``root`` through a symbolic link.

    Attributes:
        root: The directory.
        classes: The class names; ``None`` for one column of values.
        targets: The target of each sample.
        paths: The path of each sample, relative to ``root``, in the table's order.
        fingerprint: A hash of classes, paths and targets.

    Raises:
        DataError: A missing or empty table, column, cell or image, a path outside ``root``, an image that is listed twice,
            or through links with two labels, a label that is no number, or one that ``classes`` lacks; a pipe, socket or
            device.
        ArgumentError: A value that cannot be used.

    Warns:
        CvkitWarning: Links of either kind that list an image twice; class names that are nearly the same.
    """

    def __init__(
        self,
        table: str | Path | Iterable[Row] | Any,
        *,
        image: str = "image",
        label: str | Sequence[str] = "label",
        root: str | Path | None = None,
        kind: Literal["class", "value", "multilabel"] = "class",
        classes: Sequence[str] | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        on_error: OnError = "raise",
        background: Background = WHITE,
        max_pixels: int = MAX_PIXELS,
        colour: Colour = "convert",
        follow_links: bool = False,
    ) -> None:
        columns = [label] if isinstance(label, str) else list(label)
        given = class_names(classes) if classes is not None else None
        _check_labels(kind, label, given)
        check_separator(separator, kind=kind)
        check_encoding(encoding)
        name, rows = _rows(table, encoding)
        root = Path(root) if root is not None else Path(table).parent if isinstance(table, str | Path) else Path()
        _check_columns(name, rows, [image, *columns])
        home = os.path.realpath(root)
        paths = [_inside(root, home, str(_cell(name, line, row, image)), follow_links) for line, row in rows]
        identities = _checked_files(name, root, paths, [line for line, _ in rows])
        super().__init__(root, paths, on_error=on_error, background=background, max_pixels=max_pixels, colour=colour)
        self.kind = kind
        self.numbers: np.ndarray[Any, Any]
        if kind == "class":
            labels = [_as_name(_cell(name, line, row, columns[0])) for line, row in rows]
            self.classes, targets = number(labels, given, [f"{name}, {line}" for line, _ in rows])
            self.numbers = np.asarray(targets, dtype=np.int64)
            if given is None:
                warn_alike(name, self.classes)
        elif kind == "multilabel":
            lists = _lists(name, rows, columns[0], separator)
            self.classes, self.numbers = multi_hot(lists, given, [f"{name}, {line}" for line, _ in rows])
            if given is None:
                warn_alike(name, self.classes)
        else:
            values = [[_value(name, line, row, column) for column in columns] for line, row in rows]
            self.numbers = np.asarray(values, dtype=np.float32)
            self.numbers = self.numbers[:, 0] if isinstance(label, str) else self.numbers
            self.classes = given if given is not None or isinstance(label, str) else columns
        if len(set(identities)) < len(identities):
            check_repeats(name, paths, identities, self.numbers.tolist(), self.classes if kind == "class" else None)
        self.fingerprint = fingerprint_of(self.classes, self.numbers, paths)

    @cached_property
    def targets(self) -> list[Any]:
        """The target of each sample: class numbers, or values."""
        targets: list[Any] = self.numbers.tolist()
        return targets

    def target(self, index: int, image: Image.Image) -> Any:
        """Returns the class number or the values of a sample."""
        if self.kind == "class":
            return int(self.numbers[index])
        return torch.tensor(self.numbers[index])  # a copy: what is done to it in place stays out of the data


def _check_labels(kind: str, label: str | Sequence[str], classes: Sequence[str] | None) -> None:
    if kind not in _KINDS:
        raise unknown_name("kind", kind, _KINDS)
    if kind != "value" and not isinstance(label, str):
        raise ArgumentError(
            "several label columns hold no one class",
            got=f"label={list(label)!r}",
            expected='one column, or kind="value"',
            fix='pass kind="value" for several numbers an image, as for loss="bce"',
        )
    if not label:
        raise ArgumentError("label names no column", got=f"label={label!r}", expected="a column", fix='label="label"')
    count = 1 if isinstance(label, str) else len(label)
    if kind == "value" and classes is not None and len(classes) != count:
        raise ArgumentError(
            "classes and label columns do not belong together",
            got=f"{len(classes)} classes, {count} columns",
            expected="one name a column",
            fix="leave classes out: the columns' names are taken",
        )


def _lists(name: str, rows: Sequence[tuple[str, Row]], column: str, separator: str | None) -> list[list[str]]:
    """Returns the labels that each cell of a column lists."""
    cells = [_text_of(name, line, row, column) for line, row in rows]
    if separator is None:
        raise no_separator(cells)
    return [listed(cell, separator, f"{name}, {line}") for (line, _), cell in zip(rows, cells, strict=True)]


def _text_of(name: str, line: str, row: Row, column: str) -> str:
    value = row.get(column)
    if value is None or _is_gap(value) or not str(value).strip():
        return ""  # an image of no class
    return _as_name(_cell(name, line, row, column))


def _rows(table: Any, encoding: str | None) -> tuple[str, list[tuple[str, Row]]]:
    """Returns what to call the table, and each row with what to call it."""
    if isinstance(table, str | Path):
        return str(table), _of_csv(Path(table), encoding)
    records = table
    if hasattr(table, "to_dicts"):  # polars
        records = table.to_dicts()
    elif hasattr(table, "to_dict") and not isinstance(table, Mapping):  # pandas
        records = table.to_dict("records")
    rows = list(records) if isinstance(records, Iterable) and not isinstance(records, Mapping) else None
    if rows is None or not all(isinstance(row, Mapping) for row in rows):
        raise ArgumentError(
            "table cannot be used",
            got=type(table).__name__,
            expected="the path of a CSV file, a data frame, or rows as mappings",
            fix='e.g. [{"image": "a.jpg", "label": "cat"}, …]',
        )
    if not rows:
        raise DataError("the table is empty", got="no rows", expected="one row an image", fix="see how it was made")
    return "the table", [(f"row {index}", row) for index, row in enumerate(rows)]


def _of_csv(path: Path, encoding: str | None) -> list[tuple[str, Row]]:
    fix = f"check path and encoding; relative paths start at {Path.cwd()}"
    text = read_text(
        path, encoding, what="the table", holds=f"a CSV file ({encoding or 'UTF-8'}) with a header line", fix=fix
    )
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    # strict: else a quote that is never closed swallows the rows after it
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[str, Row]] = []
    for row in _parsed(path, reader):
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {reader.line_num} has another number of cells than the header",
                got=f"{_cells(row)} cells",
                expected=f"{len(reader.fieldnames or [])}: {', '.join(reader.fieldnames or [])}",
                fix="mend the line; a cell that holds the delimiter goes into quotes",
            )
        rows.append((f"line {reader.line_num}", row))
    if not rows:
        raise DataError(
            f"the table {path} is empty", got="no rows", expected="a header and one row an image", fix="fill it"
        )
    return rows


def _parsed(path: Path, reader: csv.DictReader[str]) -> Iterator[dict[Any, Any]]:
    try:
        header = list(reader.fieldnames or [])
        twice = sorted({one for one in header if header.count(one) > 1})
        if twice:
            raise DataError(
                f"the header of {path} names columns twice: {some(twice)}",
                got=f"columns {', '.join(header)}",
                expected="each column once, so that it is known which holds the labels",
                fix="rename or remove one of them",
            )
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read from line {reader.line_num + 1} on",
            got=str(error),
            expected='cells parted by commas, semicolons or tabs; quotes are closed, and doubled ("") inside a cell',
            fix="mend the line; it may open a quote that is never closed",
        ) from error


def _cells(row: Mapping[Any, Any]) -> int:
    """Returns how many cells a line had: ``DictReader`` files those too many under ``None``, and ``None`` for those missing."""
    return sum(value is not None for key, value in row.items() if key is not None) + len(row.get(None) or [])


def _check_columns(name: str, rows: Sequence[tuple[str, Row]], columns: Sequence[str]) -> None:
    there = [str(column) for column in rows[0][1]]
    missing = [column for column in columns if column not in there]
    if missing:
        raise DataError(
            f"{name} has no column {', '.join(map(repr, missing))}",
            got=f"columns {', '.join(there)}",
            expected="the columns that image= and label= name",
            fix="pass "
            + ", ".join(f"{option}={one!r}" for option, one in zip(("image", "label"), there, strict=False))
            + ", or whichever they are"
            if there
            else "see how the table was made",
        )


def _cell(name: str, line: str, row: Row, column: str) -> Any:
    value = row.get(column)
    if value is None or _is_gap(value) or not str(value).strip():
        raise DataError(
            f"{name}, {line} has no {column}",
            got="an empty cell",
            expected="a value",
            fix="fill it in, or take the row out",
        )
    if isinstance(value, bytes | Sequence | Mapping | set | np.ndarray | torch.Tensor) and not isinstance(value, str):
        raise DataError(
            f"{name}, {line}: {column} is no single value",
            got=f"{type(value).__name__}: {value!r:.60}",
            expected="a text or a number",
            fix='take its text or number out; several numbers an image go into columns: label=[…], kind="value"',
        )
    return value.strip() if isinstance(value, str) else value


def _is_gap(value: Any) -> bool:
    """Whether a value is what data frames have where there is none."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")  # pandas is not needed for this


def _as_name(value: Any) -> str:
    """Returns a label as text; 3.0 is what data frames make of a 3 in a column with gaps."""
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


def _value(name: str, line: str, row: Row, column: str) -> float:
    cell = _cell(name, line, row, column)
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not abs(value) <= _LARGEST:
        raise DataError(
            f"{name}, {line}: {column} is no number",
            got=repr(cell),
            expected="a finite number of 32 bits",
            fix='mend the cell, or pass kind="class" if the labels are names',
        )
    return value


def _inside(root: Path, home: str, path: str, follow_links: bool) -> str:
    """Returns a path relative to the root, whose own whole path is ``home``.

    Raises:
        DataError: It leads elsewhere, or is no path.
    """
    plain = PurePath(path)
    roundabout = plain.is_absolute() or ".." in plain.parts
    if follow_links and not roundabout:
        return plain.as_posix()
    try:
        real = os.path.realpath(os.path.join(root, path))
    except (ValueError, OSError) as error:  # e.g. a null character
        raise DataError(
            f"{path!r} is no path",
            got=f"{type(error).__name__}: {error}",
            expected=f"a file under {root}",
            fix="mend the cell",
        ) from error
    if real.startswith(os.path.join(home, "")):
        return PurePath(os.path.relpath(real, home)).as_posix() if roundabout else plain.as_posix()
    raise DataError(
        f"the path {path} leads out of {root}",
        got=real,
        expected=f"a path under {home}",
        fix="pass the directory above all images as root, or follow_links=True where a link in it is meant",
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # ValueError: a character that no path may have
        return None


def _checked_files(name: str, root: Path, paths: Sequence[str], lines: Sequence[str]) -> list[Hashable | None]:
    """Returns what is the same for every name of one file; the ``stat`` that finds what is missing tells it too."""
    found = [_stat(os.path.join(root, path)) for path in paths]
    listed = list(zip(paths, lines, found, strict=True))
    kinds = [(path, line, no_file(one.st_mode)) for path, line, one in listed if one is not None]
    special = [f"{path} ({line}), {kind}" for path, line, kind in kinds if kind is not None]
    if special:
        raise DataError(
            f"{len(special)} of {len(paths)} images in {name} are no files that can be read to their end",
            got=some(special, 5),
            expected="image files",
            fix="take these rows out",
        )
    missing = [f"{path} ({line})" for path, line, one in listed if one is None or not stat.S_ISREG(one.st_mode)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images in {name} are not there",
            got=some(missing, 5),
            expected=f"files under {root}",
            fix="pass the directory that the paths are relative to: root=…",
        )
    first: dict[str, str] = {}
    for path, line in zip(paths, lines, strict=True):
        if path in first:
            raise DataError(
                f"{name} lists {path} twice",
                got=f"{first[path]} and {line}",
                expected="each image once, so that none counts twice",
                fix="take one of the rows out",
            )
        first[path] = line
    return [(one.st_dev, one.st_ino) if one is not None and one.st_ino else None for one in found]
