"""EarlyStopping: patience, improvements, and a run that stays stopped."""

import math

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint, EarlyStopping
from cvkit.errors import ArgumentError, UnknownNameError


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([3, 2, 1, 0.5, 0.4, 0.3], 0, 6),
        ([3, 2, 2, 1, 1, 1], 0, 3),
        ([3, 2, 2.5, 2.5, 1, 1], 1, 4),
        ([3, 2, 2.5, 1, 1.5, 0.5], 1, 6),
        ([3, 4, 5, 6, 7, 8], 3, 5),
        ([3, math.nan, math.nan, math.nan, 1, 1], 1, 3),
    ],
)
def test_patience_is_the_number_of_epochs_that_are_borne(tiny, values, patience, epochs):
    result = tiny.run(tiny.Logs("val_loss", values), EarlyStopping(patience=patience), epochs=len(values))
    assert result.epochs == epochs
    assert result.stop_reason == ("finished" if epochs == len(values) else "early_stopping")


def test_an_improvement_must_be_larger_than_min_delta(tiny):
    values = [1.0, 0.95, 0.9, 0.85, 0.5, 0.45]
    result = tiny.run(tiny.Logs("val_loss", values), EarlyStopping(patience=1, min_delta=0.2), epochs=6)
    assert result.epochs == 3


def test_the_metric_says_which_way_is_better(tiny):
    up = [0.1, 0.2, 0.3, 0.4]
    assert tiny.run(tiny.Logs("val_accuracy", up), EarlyStopping("val_accuracy", patience=0), epochs=4).epochs == 4
    stopping = EarlyStopping("val_accuracy", patience=0, mode="min")
    assert tiny.run(tiny.Logs("val_accuracy", up), stopping, epochs=4).epochs == 2


def test_a_resumed_run_that_was_stopped_stays_stopped(tiny, tmp_path):
    values = [1, 2, 2, 0, 0, 0]

    def again(epochs=6):
        stopping = EarlyStopping(patience=1)
        trained = tiny.Do("on_batch_start", lambda state, calls: None)
        result = tiny.run(
            tiny.Logs("val_loss", values), stopping, trained, Checkpoint(tmp_path), epochs=epochs, resume=True
        )
        return result, trained.calls

    first, _ = again()
    assert (first.epochs, first.stop_reason) == (3, "early_stopping")
    for epochs in (6, 9):
        second, batches = again(epochs)
        assert (second.epochs, second.stop_reason, batches) == (3, "early_stopping", 0)
        assert second.history == first.history


def test_the_epochs_waited_survive_a_resume(tiny, tmp_path):
    values = [1, 2, 2, 2, 2, 2]
    for epochs in (2, 3, 6):
        result = tiny.run(
            tiny.Logs("val_loss", values), EarlyStopping(patience=3), Checkpoint(tmp_path), epochs=epochs, resume=True
        )
    assert (result.epochs, result.stop_reason) == (5, "early_stopping")


def test_used_again_in_a_new_run_it_begins_anew(tiny):
    stopping = EarlyStopping(patience=1)
    first = tiny.run(tiny.Logs("val_loss", [1, 2, 3, 4]), stopping, epochs=4)
    second = tiny.run(tiny.Logs("val_loss", [5, 4, 3, 2]), stopping, epochs=4)
    assert (first.epochs, second.epochs) == (3, 4)


@pytest.mark.parametrize(("name", "value"), [("patience", -1), ("min_delta", -0.5), ("patience", math.nan)])
def test_numbers_below_nought_are_refused(name, value):
    with pytest.raises(ArgumentError) as caught:
        EarlyStopping(**{name: value})
    assert str(caught.value) == (
        f"{name} cannot be used\n  got: {value}\n  expected: at least 0\n  fix: pass {name}=0 or more"
    )


def test_another_mode_is_refused():
    with pytest.raises(ArgumentError, match=r"^mode cannot be used\n  got: 'up'"):
        EarlyStopping(mode="up")


def test_a_monitor_that_is_never_logged_is_refused_before_training(tiny):
    trained = tiny.Do("on_batch_start", lambda state, calls: None)
    with pytest.raises(UnknownNameError, match="did you mean 'val_loss'"):
        tiny.run(EarlyStopping("val_los"), trained)
    with pytest.raises(ArgumentError) as caught:
        tiny.run(EarlyStopping("val_loss"), trained, val=False)
    assert trained.calls == 0
    assert (
        str(caught.value).splitlines()
        == [
            "monitor='val_loss' will never be logged",
            "  got: fit without val",
            "  expected: one of: train_loss, train_accuracy, lr",
            "  fix: pass val to fit, or monitor='train_loss', or monitor=None",
            "in callback EarlyStopping.on_fit_start (epoch 1, step 0)",
        ][:4]
    )


def test_a_value_without_a_better_way_asks_for_the_mode(tiny):
    with pytest.raises(ArgumentError, match="which way lr is better is not known"):
        tiny.run(EarlyStopping("lr"))
    assert tiny.run(EarlyStopping("lr", mode="min", patience=0), epochs=3).epochs == 2


@pytest.mark.filterwarnings("ignore:.*holds the state of a callback 'Checkpoint'")
def test_used_again_in_a_run_continued_from_one_without_it_it_begins_anew(tiny, tmp_path):
    tiny.run(tiny.Logs("val_loss", [9]), Checkpoint(tmp_path), epochs=1)
    stopping = EarlyStopping(patience=1)
    tiny.run(tiny.Logs("val_loss", [1, 2, 3, 4]), stopping, epochs=4)
    values = tiny.Logs("val_loss", [9, 8, 7, 6])
    meant = {"resume": tmp_path / "last.pt", "override": ("callbacks",)}
    assert tiny.run(values, stopping, epochs=4, **meant).epochs == 4


class Own(cvkit.Callback):
    logs = ("own",)

    def __init__(self, values=(3.0, 2.0, 2.5, 2.6, 2.7)):
        self.values = values

    def on_epoch_end(self, state):
        state.logs["own"] = self.values[state.epoch]


BATCHES = [(torch.zeros(2, 3), torch.tensor([0, 1]))]


def test_what_a_callback_logs_can_be_monitored_once_it_says_so(tmp_path):
    watching = [Own(), EarlyStopping("own", mode="min", patience=2), Checkpoint(tmp_path, monitor="own", mode="min")]
    result = cvkit.fit(nn.Linear(3, 2), BATCHES, epochs=5, callbacks=watching, progress=False)
    assert (result.epochs, result.stop_reason) == (5, "early_stopping")
    assert cvkit.load_checkpoint(tmp_path / "best.pt")["training"]["epoch"] == 2
    with pytest.raises(ArgumentError, match="which way own is better is not known"):
        cvkit.fit(nn.Linear(3, 2), BATCHES, epochs=1, callbacks=[Own(), EarlyStopping("own")], progress=False)


def test_a_callback_that_logs_too_late_is_named_instead_of_a_stop():
    with pytest.raises(ArgumentError) as caught:
        cvkit.fit(
            nn.Linear(3, 2), BATCHES, epochs=5, callbacks=[EarlyStopping("own", mode="min"), Own()], progress=False
        )
    assert str(caught.value) == (
        "monitor='own' is not in the epoch's row\n  got: epoch, step, train_loss, train_accuracy, lr\n"
        "  expected: a value that is logged before it is looked at\n"
        "  fix: list the callback that logs it before this one, and have it log in every epoch"
    )


def test_who_does_not_say_what_it_logs_is_told_how():
    silent = Own()
    silent.logs = ()
    with pytest.raises(UnknownNameError) as caught:
        cvkit.fit(nn.Linear(3, 2), BATCHES, epochs=1, callbacks=[silent, EarlyStopping("own")], progress=False)
    assert 'logs = ("name",)' in caught.value.__notes__[0]
    silent.logs = "own"
    with pytest.raises(ArgumentError, match=r"Own.logs cannot be used\n  got: 'own'\n.*\n  fix: logs = \('own',\)"):
        cvkit.fit(nn.Linear(3, 2), BATCHES, epochs=1, callbacks=[silent], progress=False)
