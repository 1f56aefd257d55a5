"""``plot_history``: losses and metrics of one run or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cvkit.errors import ArgumentError, unknown_name
from cvkit.figures import PALETTE, WRONG, new_figure, shorten
from cvkit.training import FitResult, History
from cvkit.training.history import better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_history"]

Run: TypeAlias = "History | FitResult"

PER_ROW = 3
"""Charts side by side."""
_INSIDE = 6  # the most entries of a legend that stands among the curves
_POSITIONS = {"epoch", "step"}
_ROUNDING = 1e-6  # of their size: single precision's rounding, and a little more
_NOTHING = 1e-9  # as good as 0


def plot_history(
    runs: Run | Sequence[Run] | Mapping[str, Run],
    *,
    charts: Sequence[str] | None = None,
    x: Literal["epoch", "step"] = "epoch",
) -> Figure:
    """Draws what was logged, one chart for each of loss, metrics, learning rate and whatever else there is.

    Training is dashed, validation solid. The best value of the validation, or of the training where there is none, is
    marked by a star where the name tells which way is better. Where a value is not finite the line is broken, and a
    cross stands at the foot of the chart.

    Args:
        runs: What ``fit`` returned or its history; or several, which are numbered, or named by a mapping.
        charts: Which, e.g. ``["loss", "accuracy"]``; by default all.
        x: Along which axis.

    Raises:
        ArgumentError: No run, or none that has finished an epoch.
        UnknownNameError: A chart of something that was not logged.
        MissingDependencyError: matplotlib is not installed.
    """
    named = _named(runs)
    if x not in _POSITIONS:
        raise unknown_name("x-axis", x, _POSITIONS)
    logged = [column for run in named.values() for column in run.columns if column not in _POSITIONS]
    known = list(dict.fromkeys(map(_chart, logged)))
    if not known:
        raise ArgumentError(
            "there is nothing to plot",
            got=f"{len(named)} runs without a finished epoch" if named else "no run",
            expected="at least one row of numbers",
            fix="plot after fit: plot_history(result)",
        )
    for one in [charts] if isinstance(charts, str) else charts or ():
        if one not in known:
            raise unknown_name("chart", one, known)
    wanted = list(known if charts is None else [charts] if isinstance(charts, str) else charts)
    columns = min(PER_ROW, len(wanted))
    rows = -(-len(wanted) // columns)
    figure = new_figure(max(4.2 * columns, 5.0), 3.2 * rows)
    for place, chart in enumerate(wanted, 1):
        axes = figure.add_subplot(rows, columns, place)
        _draw(axes, chart, named, x)
    return figure


def _named(runs: Any) -> dict[str, History]:
    """Returns each run's history by its name."""
    if isinstance(runs, History | FitResult):
        runs = {"": runs}
    elif isinstance(runs, Sequence) and not isinstance(runs, str):
        runs = {f"run {number}": run for number, run in enumerate(runs, 1)}
    found = {
        str(name): run.history if isinstance(run, FitResult) else run
        for name, run in (runs.items() if isinstance(runs, Mapping) else [("", runs)])
    }
    for run in found.values():
        if not isinstance(run, History):
            raise ArgumentError(
                "this is no run that can be plotted",
                got=type(run).__name__,
                expected="what fit returned, its history, or a list or dict of these",
                fix="plot_history(result), plot_history({'adamw': one, 'sgd': other})",
            )
    return found


def _chart(column: str) -> str:
    """Returns the chart that a column belongs to: training and validation share one."""
    return column.removeprefix("train_").removeprefix("val_")


def _columns(chart: str, run: History) -> list[str]:
    """Returns the columns of a run that a chart shows."""
    return [column for column in (f"val_{chart}", f"train_{chart}", chart) if column in run.columns]


def _spread_flat(axes: Axes, values: Sequence[float]) -> None:
    """Shows values that are as good as equal as one level, where a fitted axis would show their rounding as a curve."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return
    low, high = min(finite), max(finite)
    level = max(abs(low), abs(high))
    if level <= _NOTHING:
        axes.set_ylim(-0.05, 0.05)
    elif high - low <= _ROUNDING * level:
        axes.set_ylim((low + high) / 2 - 0.2 * level, (low + high) / 2 + 0.2 * level)


def _draw(axes: Axes, chart: str, runs: Mapping[str, History], x: str) -> None:
    for number, (name, run) in enumerate(runs.items()):
        colour = PALETTE[number % len(PALETTE)]
        there = _columns(chart, run)
        for column in there:
            phase = column.removesuffix(chart).rstrip("_")
            label = " ".join(part for part in (shorten(name, 24), phase) if part)
            mode = better(chart) if column == there[0] else None
            _line(axes, run, column, x, colour, label, mode)
    axes.set_title(chart, fontsize=11, parse_math=False)
    axes.set_xlabel(x)
    axes.grid(alpha=0.3)
    axes.locator_params(axis="x", integer=True)
    axes.ticklabel_format(axis="y", useOffset=False)  # 0.6931 is read, and not "2e-6 + 6.931e-1"
    _spread_flat(axes, [value for run in runs.values() for column in _columns(chart, run) for value in run[column]])
    labels = [label for label in axes.get_legend_handles_labels()[1] if label and not label.startswith("_")]
    if labels:  # many of them would cover the curves
        where: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if len(labels) > _INSIDE else {}
        for text in axes.legend(fontsize=8, **where).get_texts():
            text.set_parse_math(False)


def _line(
    axes: Axes, run: History, column: str, x: str, colour: str, label: str, mode: Literal["min", "max"] | None
) -> None:
    """Draws one column, its best value, and where it is not finite."""
    at = run[x] if x in run.columns else [float(number) for number in range(1, len(run) + 1)]
    values = [value if math.isfinite(value) else math.nan for value in map(float, run[column])]
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    alone = [one for one in finite if one - 1 not in finite and one + 1 not in finite]
    training = column.startswith("train_")
    if mode is not None and finite:
        best = (min if mode == "min" else max)(finite, key=values.__getitem__)
        label = f"{label}, best {values[best]:.4g}".removeprefix(", ")
    axes.plot(
        at,
        values,
        color=colour,
        linestyle="--" if training else "-",
        linewidth=1.2 if training else 1.8,
        marker="o" if len(values) <= 1 else None,
        label=label or None,
    )
    if alone and len(values) > 1:
        axes.plot([at[one] for one in alone], [values[one] for one in alone], "o", color=colour, markersize=4)
    if mode is not None and finite:
        axes.plot([at[best]], [values[best]], "*", color=colour, markersize=12, markeredgecolor="white")
    lost = [at[place] for place, row in enumerate(run) if column in row and place not in finite]
    if lost:
        foot = axes.get_xaxis_transform()
        axes.plot(lost, [0.04] * len(lost), "X", color=WRONG, markersize=7, transform=foot, label="not finite")
