"""``History``: what was logged, one row an epoch."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from cvkit.errors import ArgumentError, unknown_name
from cvkit.training.history_columns import Columns, rows_of

__all__ = ["History", "better"]

ROWS_SHOWN = 20
"""Rows that a printed table has at most; of a longer history the first and the last are shown."""

_LOWER = {
    *("loss", "error", "err", "mae", "mse", "rmse", "msle", "mape", "nll", "entropy", "perplexity"),
    *("brier", "ece", "fid", "lpips", "hausdorff"),
}
_HIGHER = {
    *("accuracy", "acc", "precision", "recall", "sensitivity", "specificity", "f1", "auc", "auroc", "auprc"),
    *("ap", "map", "iou", "miou", "jaccard", "dice", "kappa", "mcc", "psnr", "ssim", "r2"),
}


def better(name: str) -> Literal["min", "max"] | None:
    """Says from a logged name which way is better, e.g. ``"min"`` for ``"val_loss"``; ``None`` where it does not tell.

    A name that speaks of a loss is one: ``"dice_loss"`` is better when it is lower.
    """
    words = set(name.lower().split("_"))
    return "min" if words & _LOWER else "max" if words & _HIGHER else None


class History(Sequence[Mapping[str, float]]):
    """What was logged, one row an epoch.

    ``history[-1]`` is the last row, ``history[-3:]`` the last three, ``history["val_loss"]`` a column,
    ``pandas.DataFrame(history)`` a data frame, and ``print(history)`` a table. ``epoch`` and ``step`` count what was
    finished when the row was written: the first row's epoch is 1.

    Args:
        rows: One mapping from names to numbers for each epoch; a row may lack what others have.

    Attributes:
        rows: The rows, as plain dicts.
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()) -> None:
        self.rows: list[dict[str, float]] = [dict(row) for row in rows]
        self._columns = Columns()

    def state_dict(self) -> dict[str, Any]:
        """Returns what goes into a checkpoint: the rows as tensors, which take about the same time however many there are."""
        return self._columns.state(self.rows)

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, float]]) -> None:
        """Takes back what :meth:`state_dict` returned, or a list of rows, as older checkpoints hold them."""
        self.rows = rows_of(state) if isinstance(state, Mapping) else [dict(row) for row in state]

    def __getstate__(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rows, self._columns = state["rows"], Columns()

    @property
    def columns(self) -> list[str]:
        """Every name that was logged, in the order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @overload
    def __getitem__(self, key: int) -> dict[str, float]: ...
    @overload
    def __getitem__(self, key: slice) -> list[dict[str, float]]: ...
    @overload
    def __getitem__(self, key: str) -> list[float]: ...
    def __getitem__(self, key: int | slice | str) -> dict[str, float] | list[dict[str, float]] | list[float]:
        """Returns a row, several rows, or the column of a name (NaN where a row lacks it)."""
        if isinstance(key, str):
            if key not in self.columns:
                raise unknown_name("history column", key, self.columns)
            return [row.get(key, math.nan) for row in self.rows]
        return self.rows[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def __contains__(self, key: object) -> bool:
        """Whether there is a column of this name, or a row equal to this one."""
        return key in self.columns if isinstance(key, str) else key in self.rows

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same; a NaN is the same as a NaN, so that a run that was resumed equals the whole one."""
        if not isinstance(other, History):
            return NotImplemented
        return len(self) == len(other) and all(map(_same, self.rows, other.rows))

    __hash__ = None  # type: ignore[assignment]

    def best(self, name: str, mode: Literal["min", "max"] | None = None) -> dict[str, float]:
        """Returns the row with the best finite value of a column, the first of several.

        Args:
            name: The column, e.g. ``"val_accuracy"``.
            mode: Which direction is better; by default what the name tells: ``"min"`` for losses and errors, ``"max"``
                for accuracy and the like.

        Raises:
            UnknownNameError: No such column.
            ArgumentError: The name does not tell which way is better, or the column holds no finite value.
        """
        values = self[name]
        mode = mode or better(name)
        if mode not in ("min", "max"):
            raise ArgumentError(
                f"which way {name} is better is not known"
                if mode is None
                else f"the best {name} cannot be found in this way",
                got=f"mode={mode!r}" + (", and a name that does not tell" if mode is None else ""),
                expected='mode="min" or mode="max"',
                fix=f'history.best({name!r}, mode="max")',
            )
        found = [(value, row) for value, row in zip(values, self.rows, strict=True) if math.isfinite(value)]
        if not found:
            raise ArgumentError(
                f"history column {name!r} holds no finite value",
                got=values,
                expected="at least one finite number",
                fix="look for the first epoch in which the training loss is not finite",
            )
        return (min if mode == "min" else max)(found, key=lambda one: one[0])[1]

    def to_csv(self, path: str | Path | None = None) -> str:
        """Writes the rows as CSV, to a file if one is named, and returns the text; a cell that a row lacks is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if path is not None:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def _table(self) -> list[list[str]]:
        """Returns the cells of the table that is printed, the heads first; the middle of a long one is left out."""
        names = self.columns
        lines = [[_shown(row.get(name)) for name in names] for row in self.rows]
        if len(lines) > ROWS_SHOWN:
            half = ROWS_SHOWN // 2
            lines = [*lines[:half], ["…"] * len(names), *lines[-half:]]
        return [names, *lines]

    def __str__(self) -> str:
        if not self.rows:
            return "(no epoch finished yet)"
        cells = self._table()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
        )

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epoch{'s' * (len(self) != 1)}: {', '.join(self.columns)})"

    def _repr_html_(self) -> str:
        """Returns the table that a notebook shows."""
        if not self.rows:
            return html.escape(str(self))
        heads, *lines = [[html.escape(cell) for cell in line] for line in self._table()]
        head = "".join(f"<th>{cell}</th>" for cell in heads)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _same(row: Mapping[str, float], other: Mapping[str, float]) -> bool:
    if row.keys() != other.keys():
        return False
    return all(value == other[name] or (value != value and other[name] != other[name]) for name, value in row.items())


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
