"""Rows of numbers as columns, which grow as the rows do: what a checkpoint holds of the history."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["Columns", "rows_of"]

_FLOAT, _INT, _BOOL, _OTHER = range(4)
"""What a cell holds; a float also stands for one that its row lacks."""

_EXACT = 2**53
"""Integers up to here are exact as a float64."""


class Columns:
    """Follows a list of rows and gives it as a few tensors, without visiting every cell again for each checkpoint."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []  # as they were when they were taken
        self._layouts: dict[tuple[str, ...], tuple[int, int]] = {}  # names in their order: its number, its first row
        self._layout = array("i")
        self._first: dict[str, int] = {}  # a column's first row
        self._values: dict[str, array[float]] = {}
        self._kinds: dict[str, bytearray] = {}
        self._others: set[tuple[str, int]] = set()

    def state(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns rows as tensors and plain types; :func:`rows_of` makes rows of it again.

        Whatever has happened to the rows since the last call is seen: they are compared with copies, as whole objects. The last
        one is always taken anew.

        Args:
            rows: One mapping from names to values for each epoch.

        Returns:
            ``layouts``, the names of rows in their order; ``layout``, which of them each row has, ``(N,)``; ``columns``, every
            name; ``values``, ``(C, N)``, float64; ``kinds``, ``(C, N)``: 0 for floats, 1 for integers, 2 for booleans, 3 for
            what is no such number and stands in ``others``.
        """
        self._follow(list(rows))
        count = len(self._rows)
        others: dict[str, dict[int, Any]] = {}
        for name, number in sorted(self._others):  # a list or tensor may have been changed in its place
            others.setdefault(name, {})[number] = rows[number][name]
        return {
            "layouts": [list(names) for names in self._layouts],
            "layout": torch.tensor(self._layout, dtype=torch.int32),
            "columns": list(self._first),
            "values": _stacked(self._values.values(), count, torch.float64),
            "kinds": _stacked(self._kinds.values(), count, torch.uint8),
            "others": others,
        }

    def _follow(self, rows: list[Mapping[str, Any]]) -> None:
        self._cut(min(len(self._rows) - 1, len(rows)))
        known = self._rows
        try:
            changed = rows[: len(known)] != known
        except (RuntimeError, ValueError):  # a tensor or array that is another one now
            self._cut(0)
        else:
            if changed:
                pairs = zip(rows, known, strict=False)
                self._cut(next(number for number, (now, then) in enumerate(pairs) if now != then))
        for row in rows[len(self._rows) :]:
            self._append(row)

    def _cut(self, count: int) -> None:
        """Forgets all rows but the first so many, and the names that only others had."""
        count = max(count, 0)
        del self._rows[count:], self._layout[count:]
        self._layouts = {names: one for names, one in self._layouts.items() if one[1] < count}
        self._first = {name: first for name, first in self._first.items() if first < count}
        self._values = {name: self._values[name] for name in self._first}
        self._kinds = {name: self._kinds[name] for name in self._first}
        for name in self._first:
            del self._values[name][count:], self._kinds[name][count:]
        self._others = {(name, number) for name, number in self._others if number < count}

    def _append(self, row: Mapping[str, Any]) -> None:
        number = len(self._rows)
        self._layout.append(self._layouts.setdefault(tuple(row), (len(self._layouts), number))[0])
        for name, value in row.items():
            if name not in self._first:
                self._first[name] = number
                self._values[name], self._kinds[name] = array("d", bytes(8 * number)), bytearray(number)
            kind = _kind(value)
            self._values[name].append(0.0 if kind == _OTHER else value)
            self._kinds[name].append(kind)
            if kind == _OTHER:
                self._others.add((name, number))
        for name in self._first.keys() - row.keys():
            self._values[name].append(0.0)
            self._kinds[name].append(_FLOAT)
        self._rows.append(dict(row))


def rows_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows that :meth:`Columns.state` was made of."""
    cells = dict(
        zip(state["columns"], zip(state["values"].tolist(), state["kinds"].tolist(), strict=True), strict=True)
    )
    others = state["others"]
    found: list[dict[str, Any]] = []
    for number, layout in enumerate(state["layout"].tolist()):
        row: dict[str, Any] = {}
        for name in state["layouts"][layout]:
            values, kinds = cells[name]
            row[name] = others[name][number] if kinds[number] == _OTHER else _AS[kinds[number]](values[number])
        found.append(row)
    return found


_AS = (float, int, bool)


def _kind(value: object) -> int:
    if type(value) is float:
        return _FLOAT
    if type(value) is bool:
        return _BOOL
    return _INT if type(value) is int and -_EXACT <= value <= _EXACT else _OTHER


def _stacked(columns: Any, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Returns columns as one tensor ``(C, N)``, copied."""
    parts = [torch.frombuffer(one, dtype=dtype) for one in columns if count]
    return torch.stack(parts) if parts else torch.empty(0, count, dtype=dtype)
