"""``plot_history``: which charts, which lines, what is marked."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

import cvkit
from cvkit import History
from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.figures import PALETTE
from cvkit.plots import plot_history

ROWS = [
    {"epoch": e, "step": 10 * e, "train_loss": t, "train_accuracy": 0.5, "val_loss": v, "val_accuracy": a, "lr": 0.1}
    for e, t, v, a in [(1, 2.0, 1.5, 0.2), (2, 1.0, 0.5, 0.8), (3, 0.5, 0.75, 0.7)]
]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def marks(axes, marker):
    return [
        (float(line.get_xdata()[i]), float(line.get_ydata()[i]))
        for line in axes.lines
        if line.get_marker() == marker
        for i in range(len(line.get_xdata()))
    ]


def test_training_and_validation_share_a_chart_and_the_best_is_marked():
    figure = plot_history(cvkit.History(ROWS))
    loss, accuracy, lr = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "lr"]
    assert list(lines(loss)) == ["val, best 0.5", "train"]
    assert lines(loss)["train"].get_ydata().tolist() == [2.0, 1.0, 0.5]
    assert lines(loss)["val, best 0.5"].get_xdata().tolist() == [1, 2, 3]
    assert [line.get_linestyle() for line in lines(loss).values()] == ["-", "--"]
    assert marks(loss, "*") == [(2, 0.5)]
    assert marks(accuracy, "*") == [(2, 0.8)]
    assert marks(lr, "*") == [], "nobody knows which way is better"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["val, best 0.5", "train"]
    assert lr.get_legend() is None
    assert loss.get_xlabel() == "epoch"


def test_it_can_be_drawn_along_the_steps_and_some_charts_alone():
    (axes,) = plot_history(cvkit.History(ROWS), charts=["accuracy"], x="step").axes
    assert axes.get_title() == "accuracy"
    assert axes.lines[0].get_xdata().tolist() == [10, 20, 30]
    (axes,) = plot_history(cvkit.History(ROWS), charts="lr").axes
    assert axes.get_title() == "lr"


def test_runs_are_named_or_numbered_and_have_a_colour_each():
    one, two = cvkit.History(ROWS), cvkit.History(ROWS[:2])
    loss = plot_history({"adamw": one, "sgd": two}).axes[0]
    assert list(lines(loss)) == ["adamw val, best 0.5", "adamw train", "sgd val, best 0.5", "sgd train"]
    assert [line.get_color() for line in lines(loss).values()] == [PALETTE[0]] * 2 + [PALETTE[1]] * 2
    assert list(lines(plot_history([one, two]).axes[2])) == ["run 1", "run 2"]


def test_what_fit_returns_can_be_given_as_it_is():
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))]
    result = cvkit.fit(nn.Linear(3, 2), batches, epochs=2, progress=False, device="cpu")
    figure = plot_history(result)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "lr"]
    assert (
        lines(figure.axes[0])[f"train, best {min(result.history['train_loss']):.4g}"].get_ydata().tolist()
        == (result.history["train_loss"])
    )


def test_where_a_value_is_not_finite_the_line_is_broken_and_a_cross_stands():
    rows = [{"epoch": e, "loss": v} for e, v in enumerate([1.0, math.nan, 3.0, math.inf, 5.0], 1)]
    (axes,) = plot_history(cvkit.History(rows)).axes
    drawn = lines(axes)["best 1"].get_ydata()
    assert np.isnan(drawn).tolist() == [False, True, False, True, False]
    assert marks(axes, "o") == [(1, 1.0), (3, 3.0), (5, 5.0)], "a point alone is no line"
    assert marks(axes, "X") == [(2, 0.04), (4, 0.04)]
    assert "not finite" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_nothing_but_nan_can_be_drawn():
    (axes,) = plot_history(cvkit.History([{"epoch": 1, "loss": math.nan}])).axes
    assert marks(axes, "*") == []
    assert axes.figure.savefig("/dev/null", format="png") is None


def test_one_epoch_is_a_point():
    (axes,) = plot_history(cvkit.History([{"epoch": 1, "lr": 0.5}])).axes
    assert axes.lines[0].get_marker() == "o"


def test_a_row_that_lacks_a_column_is_a_gap_without_a_cross():
    (axes,) = plot_history(cvkit.History([{"a": 1.0}, {}, {"a": 2.0}])).axes
    assert marks(axes, "X") == []
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3], "rows are counted where there is no epoch"


@pytest.mark.parametrize(
    ("runs", "options", "error", "message"),
    [
        (cvkit.History(), {}, ArgumentError, "there is nothing to plot\n  got: 1 runs without a finished epoch"),
        ([], {}, ArgumentError, "there is nothing to plot\n  got: no run"),
        ("runs/a", {}, ArgumentError, "this is no run that can be plotted\n  got: str"),
        ({"a": 1}, {}, ArgumentError, "this is no run that can be plotted\n  got: int"),
        (cvkit.History(ROWS), {"charts": ["los"]}, UnknownNameError, "unknown chart 'los'"),
        (cvkit.History(ROWS), {"x": "time"}, UnknownNameError, "unknown x-axis 'time'"),
    ],
)
def test_what_cannot_be_plotted_is_refused(runs, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        plot_history(runs, **options)


def test_many_runs_have_their_legend_beside_the_curves():
    runs = {
        f"run {number}": History([{"epoch": 1, "val_loss": 1.0}, {"epoch": 2, "val_loss": 0.5}]) for number in range(8)
    }
    few, many = plot_history(dict(list(runs.items())[:3])), plot_history(runs)
    for figure, beside in ((few, False), (many, True)):
        figure.canvas.draw()
        (axes,) = figure.axes
        assert (axes.get_legend().get_window_extent().x0 > axes.get_window_extent().x1) == beside
        assert axes.get_legend().get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([0.5, 0.5 + 1e-9, 0.5], (0.4, 0.6)),
        ([0.6931471, 0.6931472, 0.6931470], (0.5545, 0.8318)),
        ([-2.0, -2.0, -2.0], (-2.4, -1.6)),
        ([1e-12, 5e-10, 0.0], (-0.05, 0.05)),
        ([0.0, 0.0, 0.0], (-0.05, 0.05)),
        ([1e-3, 1e-3, math.nan], (8e-4, 1.2e-3)),
    ],
)
def test_a_flat_curve_is_shown_as_flat(values, limits):
    rows = [{"epoch": place, "val_loss": value} for place, value in enumerate(values, 1)]
    figure = plot_history(History(rows))
    (axes,) = figure.axes
    assert axes.get_ylim() == pytest.approx(limits, rel=1e-3)
    figure.canvas.draw()
    assert axes.yaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize("values", [[0.5, 0.50001, 0.50002], [1e-5, 5e-6, 0.0], [2.0, 1.0, 0.5]])
def test_what_changes_fills_its_axis_and_has_no_offset(values):
    figure = plot_history(History([{"epoch": place, "lr": value} for place, value in enumerate(values, 1)]))
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert (max(values) - min(values)) / (high - low) > 0.8
    figure.canvas.draw()
    assert "+" not in axes.yaxis.get_offset_text().get_text()


def test_one_flat_phase_beside_another_that_is_not_leaves_the_axis_to_both():
    figure = plot_history(History([{"train_loss": 1.0 / place, "val_loss": 0.5} for place in range(1, 5)]))
    low, high = figure.axes[0].get_ylim()
    assert low < 0.25 < 1.0 < high
