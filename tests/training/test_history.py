"""``History``: rows, columns, the best row, a file, a table, a data frame; and that it survives a checkpoint."""

import csv
import importlib.util
import math
import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cvkit
from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.training import History
from cvkit.training.history import better
from cvkit.training.state import History as HistoryOfState

ROWS = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.25},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 0.5, "val_accuracy": 0.75},
    {"epoch": 3, "train_loss": 0.5, "val_loss": 0.75, "val_accuracy": 0.75, "lr": 0.1},
]


@pytest.fixture
def history():
    return History(ROWS)


def test_rows_columns_length_and_slices(history):
    assert len(history) == 3
    assert list(history) == ROWS
    assert history[0] == ROWS[0]
    assert history[-1]["lr"] == 0.1
    assert history[1:] == ROWS[1:]
    assert history["val_loss"] == [1.5, 0.5, 0.75]
    assert history.columns == ["epoch", "train_loss", "val_loss", "val_accuracy", "lr"]
    assert [math.isnan(value) for value in history["lr"]] == [True, True, False], "a row that lacks it"
    assert isinstance(history, Sequence)
    with pytest.raises(IndexError):
        history[3]


def test_the_rows_are_its_own():
    row = {"epoch": 1}
    history = History([row])
    row["epoch"] = 7
    assert history[0]["epoch"] == 1


def test_a_name_is_in_it_if_it_is_a_column_and_a_row_if_it_is_a_row(history):
    assert "val_loss" in history
    assert "val_los" not in history
    assert ROWS[1] in history
    assert {"epoch": 9} not in history


def test_a_wrong_column_is_answered_with_the_nearest(history):
    with pytest.raises(UnknownNameError) as caught:
        history["val_acuracy"]
    assert str(caught.value) == (
        "unknown history column 'val_acuracy'\n"
        "  expected: one of: epoch, lr, train_loss, val_accuracy, val_loss\n"
        "  fix: did you mean 'val_accuracy'?"
    )


def test_the_best_row_is_the_first_of_the_best_in_the_direction_that_the_name_tells(history):
    assert history.best("val_loss")["epoch"] == 2
    assert history.best("val_accuracy")["epoch"] == 2, "the first of two"
    assert history.best("val_accuracy", mode="min")["epoch"] == 1
    assert history.best("train_loss", mode="max")["epoch"] == 1
    assert history.best("lr", mode="max") == ROWS[2], "rows that lack it do not count"


def test_values_that_are_not_finite_are_never_the_best():
    history = History([{"loss": math.nan}, {"loss": -math.inf}, {"loss": 3.0}, {"loss": math.inf}])
    assert history.best("loss") == {"loss": 3.0}
    assert history.best("loss", mode="max") == {"loss": 3.0}


def test_no_finite_value_is_an_error_that_shows_them():
    with pytest.raises(ArgumentError) as caught:
        History([{"loss": math.nan}]).best("loss")
    assert str(caught.value).splitlines()[:2] == ["history column 'loss' holds no finite value", "  got: [nan]"]


def test_a_name_that_does_not_tell_which_way_is_better_needs_a_mode():
    history = History([{"val_beauty": 1.0}])
    with pytest.raises(ArgumentError) as caught:
        history.best("val_beauty")
    assert str(caught.value) == (
        "which way val_beauty is better is not known\n"
        "  got: mode=None, and a name that does not tell\n"
        '  expected: mode="min" or mode="max"\n'
        "  fix: history.best('val_beauty', mode=\"max\")"
    )
    assert history.best("val_beauty", mode="max") == {"val_beauty": 1.0}
    with pytest.raises(ArgumentError, match="got: mode='most'"):
        history.best("val_beauty", mode="most")


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("train_dice_loss", "min"),
        ("val_mae", "min"),
        ("val_accuracy", "max"),
        ("val_accuracy_top5", "max"),
        ("val_f1_macro", "max"),
        ("val_IoU", "max"),
        ("lr", None),
        ("epoch", None),
        ("val_lossless", None),
    ],
)
def test_which_way_is_better(name, mode):
    assert better(name) == mode


def test_it_is_a_csv_file_in_which_a_cell_that_a_row_lacks_is_empty(history, tmp_path):
    text = history.to_csv(tmp_path / "history.csv")
    assert text == (
        "epoch,train_loss,val_loss,val_accuracy,lr\n1,2.0,1.5,0.25,\n2,1.0,0.5,0.75,\n3,0.5,0.75,0.75,0.1\n"
    )
    assert (tmp_path / "history.csv").read_text("utf-8") == text


values = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), values, min_size=1), min_size=1))
def test_every_number_comes_back_from_csv_as_it_was(rows):
    history = History(rows)
    read = list(csv.DictReader(history.to_csv().splitlines()))
    assert [{key: float(value) for key, value in row.items() if value != ""} for row in read] == [
        {key: float(value) for key, value in row.items()} for row in rows
    ]


def test_it_prints_as_a_table_aligned_on_the_right(history):
    assert str(history) == (
        "epoch  train_loss  val_loss  val_accuracy   lr\n"
        "    1           2       1.5          0.25    -\n"
        "    2           1       0.5          0.75    -\n"
        "    3         0.5      0.75          0.75  0.1"
    )
    assert repr(history) == "History(3 epochs: epoch, train_loss, val_loss, val_accuracy, lr)"
    assert repr(History(ROWS[:1])) == "History(1 epoch: epoch, train_loss, val_loss, val_accuracy)"


def test_the_middle_of_a_long_table_is_left_out():
    lines = str(History([{"epoch": epoch, "loss": 1 / epoch} for epoch in range(1, 101)])).splitlines()
    assert len(lines) == 1 + 10 + 1 + 10
    assert lines[10].split() == ["10", "0.1"]
    assert lines[11].split() == ["…", "…"]
    assert lines[12].split() == ["91", "0.01099"]
    assert lines[-1].split() == ["100", "0.01"]
    assert len({len(line) for line in lines}) == 1, "aligned"
    assert "…" not in str(History([{"epoch": epoch} for epoch in range(20)]))


def test_nothing_finished_yet_is_said():
    assert str(History()) == "(no epoch finished yet)"
    assert History().columns == []
    assert History().to_csv() == "\n"


def test_a_notebook_shows_the_table_and_nothing_in_it_is_taken_for_html():
    shown = History([{"<b>": 0.5, "loss": math.nan}])._repr_html_()
    assert shown == (
        "<table><thead><tr><th>&lt;b&gt;</th><th>loss</th></tr></thead>"
        "<tbody><tr><td>0.5</td><td>nan</td></tr></tbody></table>"
    )


def test_two_are_equal_if_their_rows_are_and_a_nan_equals_a_nan():
    nan = float("nan")
    assert History(ROWS) == History(ROWS)
    assert History([{"a": nan}]) == History([{"a": float("nan")}])
    assert History([{"a": nan}]) != History([{"a": 0.0}])
    assert History([{"a": 1}]) != History([{"b": 1}])
    assert History(ROWS) != History(ROWS[:2])
    assert History(ROWS) != ROWS
    with pytest.raises(TypeError, match="unhashable"):
        hash(History())


def test_it_is_one_class_under_every_name_and_travels(history):
    assert cvkit.History is History is HistoryOfState
    assert pickle.loads(pickle.dumps(history)) == history


def test_it_is_what_makes_a_data_frame():
    """pandas takes a sequence of dicts for one row each."""
    if importlib.util.find_spec("pandas") is None:
        assert isinstance(History(ROWS), Sequence)
        assert all(type(row) is dict for row in History(ROWS))
        return
    import pandas

    frame = pandas.DataFrame(History(ROWS))
    assert list(frame.columns) == History(ROWS).columns
    assert frame["epoch"].tolist() == [1, 2, 3]
    assert frame["epoch"].dtype.kind == "i"
    assert frame["val_loss"].tolist() == [1.5, 0.5, 0.75]
    assert frame["lr"].isna().tolist() == [True, True, False]
    assert pandas.DataFrame(History()).empty
