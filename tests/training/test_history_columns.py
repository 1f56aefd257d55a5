"""The history as tensors: the same rows again, whatever has happened to them between two checkpoints."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError
from cvkit.training import Callback, History, fit, load_checkpoint, save_checkpoint
from cvkit.training.history_columns import Columns, rows_of

NUMBERS = (
    st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=2) | st.lists(st.integers(), max_size=2)
)
ROWS = st.lists(st.dictionaries(st.sampled_from("abcd"), NUMBERS), max_size=6)


def exact(rows):
    """Tells rows apart by the bits and types of their values and the order of their names."""
    return [
        [(name, type(value), value.hex() if type(value) is float else value) for name, value in row.items()]
        for row in rows
    ]


def content(state):
    return {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_rows_come_back_as_they_were(rows):
    assert exact(rows_of(Columns().state(rows))) == exact(rows)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_done_to_the_rows_between_two_checkpoints_is_in_the_second(data):
    rows, columns = data.draw(ROWS), Columns()
    for _ in range(3):
        columns.state(rows)
        for _ in range(data.draw(st.integers(0, 3))):
            what = data.draw(st.sampled_from(["append", "change", "remove", "insert"]))
            if what == "append" or not rows:
                rows.append(data.draw(st.dictionaries(st.sampled_from("abcde"), NUMBERS)))
            elif what == "change":
                rows[data.draw(st.integers(0, len(rows) - 1))]["a"] = data.draw(
                    st.integers(10**6) | st.text(min_size=3)
                )
            elif what == "remove":
                del rows[data.draw(st.integers(0, len(rows) - 1))]
            else:
                rows.insert(data.draw(st.integers(0, len(rows))), {"b": 10**7})
        state = columns.state(rows)
        assert exact(rows_of(state)) == exact(rows)
        # nothing tells how often it was saved before: a continued run's file is the undisturbed one's
        assert str(content(state)) == str(content(Columns().state(copy.deepcopy(rows))))


def test_a_list_or_tensor_that_is_changed_in_its_place_is_seen():
    rows = [{"a": [1], "t": torch.zeros(2)}, {"a": [2], "t": torch.zeros(2)}, {"a": 3}]
    columns = Columns()
    columns.state(rows)
    rows[0]["a"].append(5)
    rows[0]["t"] += 1
    rows[1]["t"] = torch.full((2,), 7.0)
    found = rows_of(columns.state(rows))
    assert [row["a"] for row in found] == [[1, 5], [2], 3]
    assert [row["t"].tolist() for row in found[:2]] == [[1, 1], [7, 7]]


def test_a_file_holds_a_few_tensors_however_many_rows_there_are(tmp_path):
    history = History([{"epoch": i, "loss": 1 / (i + 1)} for i in range(500)])
    assert [key for key, value in history.state_dict().items() if isinstance(value, torch.Tensor)] == [
        "layout",
        "values",
        "kinds",
    ]
    path = save_checkpoint(tmp_path / "a.pt", {"history": history.state_dict()})
    again = History()
    again.load_state_dict(load_checkpoint(path)["history"])
    assert again == history
    assert exact(again.rows) == exact(history.rows)
    assert exact(pickle.loads(pickle.dumps(history)).rows) == exact(history.rows)
    assert exact(rows_of(copy.deepcopy(history).state_dict())) == exact(history.rows)


def test_a_save_does_not_convert_again_what_it_has_converted(monkeypatch):
    taken, append = [], Columns._append
    monkeypatch.setattr(Columns, "_append", lambda self, row: (taken.append(row), append(self, row)))
    rows = [{"epoch": i, "loss": math.nan} for i in range(1000)]
    columns = Columns()
    columns.state(rows)
    assert len(taken) == 1000
    for count in range(10):
        rows.append({"epoch": 1000 + count, "loss": math.nan})
        del taken[:]
        columns.state(rows)
        assert len(taken) == 2, "the new one, and the one before, which a callback may have added to since"


def batches():
    return [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(2)]


def train(directory, *callbacks, epochs=3):
    torch.manual_seed(0)
    checkpoint = Checkpoint(directory, monitor="train_loss")
    return fit(
        nn.Linear(3, 2), batches(), epochs=epochs, callbacks=[*callbacks, checkpoint], resume=True, progress=False,
        preflight=False, device="cpu",
    )  # fmt: skip


class Late(Callback):
    """Adds to a row before the checkpoint of its epoch is saved, and after."""

    def __init__(self, name, order):
        self.name, self.order = name, order

    def on_epoch_end(self, state):
        state.logs[self.name] = float(state.epoch)


def late():
    return [Late("before", 0), Late("after", 3)]


def test_what_a_callback_adds_to_the_row_of_an_epoch_that_has_ended_is_in_the_next_file(tmp_path):
    result = train(tmp_path, *late())
    assert result.history["before"] == result.history["after"] == [0.0, 1.0, 2.0]
    rows = rows_of(load_checkpoint(tmp_path / "last.pt")["training"]["history"])
    assert [(row.get("before"), row.get("after")) for row in rows] == [(0.0, 0.0), (1.0, 1.0), (2.0, None)]


def test_a_file_whose_history_is_a_list_of_rows_is_continued(tmp_path):
    whole = train(tmp_path / "a")
    train(tmp_path / "b", epochs=2)
    old = load_checkpoint(tmp_path / "b" / "last.pt")
    old["training"]["history"] = rows_of(old["training"]["history"])
    save_checkpoint(tmp_path / "b" / "last.pt", old)
    assert exact(train(tmp_path / "b").history.rows) == exact(whole.history.rows)


def test_a_logged_value_that_no_file_takes_is_named(tmp_path):
    class Logs(Callback):
        def on_epoch_end(self, state):
            state.logs["mine"] = {1, 2}

    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, Logs())
    assert str(caught.value).splitlines()[:2] == [
        "training['history']['others']['mine'][0] cannot go into a checkpoint",
        "  got: builtins.set",
    ]
