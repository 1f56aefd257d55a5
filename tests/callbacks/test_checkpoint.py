"""Checkpoint: which files there are when, and what is best."""

import math
import os

import pytest
import torch
from torch import nn

from cvkit.callbacks import Checkpoint
from cvkit.errors import ArgumentError, CvkitWarning, UnknownNameError
from cvkit.training import load_checkpoint


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def saved(path):
    training = load_checkpoint(path)["training"]
    return training["epoch"], training["batch"], training["step"]


def test_the_newest_is_last_and_the_best_is_best(tiny, tmp_path):
    result = tiny.run(tiny.Logs("val_loss", [3, 1, 2]), Checkpoint(tmp_path), epochs=3)
    assert names(tmp_path) == ["best.pt", "last.pt"]
    assert saved(tmp_path / "last.pt") == (3, 0, 12)
    assert saved(tmp_path / "best.pt") == (2, 0, 8)
    assert (result.best_checkpoint, result.last_checkpoint) == (tmp_path / "best.pt", tmp_path / "last.pt")


def test_the_metric_says_which_way_is_better(tiny, tmp_path):
    checkpoint = Checkpoint(tmp_path, monitor="val_accuracy")
    tiny.run(tiny.Logs("val_accuracy", [0.2, 0.9, 0.5]), checkpoint, epochs=3)
    assert saved(tmp_path / "best.pt")[0] == 2
    tiny.run(
        tiny.Logs("val_accuracy", [0.2, 0.9, 0.5]),
        Checkpoint(tmp_path / "min", monitor="val_accuracy", mode="min"),
        epochs=3,
    )
    assert saved(tmp_path / "min" / "best.pt")[0] == 1


def test_no_monitor_keeps_no_best(tiny, tmp_path):
    result = tiny.run(Checkpoint(tmp_path, monitor=None), val=False)
    assert names(tmp_path) == ["last.pt"]
    assert result.best_checkpoint is None


def test_the_older_states_are_kept_as_many_as_asked_for(tiny, tmp_path):
    tiny.run(Checkpoint(tmp_path, monitor=None, keep_last=3), epochs=5)
    assert names(tmp_path) == ["last.pt", "step-00000012.pt", "step-00000016.pt", "step-00000020.pt"]
    assert [saved(path)[2] for path in Checkpoint(tmp_path).checkpoints()] == [20, 20, 16, 12]


def test_pruning_goes_on_over_a_resume(tiny, tmp_path):
    for epochs in (2, 4):
        tiny.run(Checkpoint(tmp_path, monitor=None, keep_last=2), epochs=epochs, resume=True)
    assert names(tmp_path) == ["last.pt", "step-00000012.pt", "step-00000016.pt"]


def test_nothing_is_removed_before_the_newer_is_there(tiny, tmp_path, monkeypatch):
    tiny.run(Checkpoint(tmp_path, monitor=None, keep_last=2), epochs=3)
    before = names(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Exception, match="No space left"):
        tiny.run(Checkpoint(tmp_path, monitor=None, keep_last=2), epochs=4, resume=True)
    assert names(tmp_path) == before


def test_every_epochs_and_the_last_epoch_are_saved(tiny, tmp_path):
    seen = []
    look = tiny.Do("on_epoch_start", lambda state, calls: seen.append((tmp_path / "last.pt").exists()))
    tiny.run(look, Checkpoint(tmp_path, monitor=None, every_epochs=2), epochs=3)
    assert seen == [False, False, True]
    assert saved(tmp_path / "last.pt")[0] == 3


def test_a_best_epoch_that_is_not_due_is_saved_as_best_all_the_same(tiny, tmp_path):
    tiny.run(tiny.Logs("val_loss", [3, 2, 1, 5]), Checkpoint(tmp_path, every_epochs=4), epochs=4)
    assert saved(tmp_path / "best.pt")[0] == 3
    assert saved(tmp_path / "last.pt")[0] == 4


def test_every_steps_saves_in_the_middle_of_an_epoch(tiny, tmp_path):
    seen = []

    def look(state, calls):
        path = tmp_path / "last.pt"
        seen.append(saved(path) if path.exists() else None)

    tiny.run(tiny.Do("on_batch_start", look), Checkpoint(tmp_path, monitor=None, every_steps=3), epochs=2)
    assert seen == [None, None, None, (0, 3, 3), (1, 0, 4), (1, 0, 4), (1, 2, 6), (1, 2, 6)]


def test_every_steps_counts_updates_not_batches(tiny, tmp_path):
    seen = []

    def look(state, calls):
        path = tmp_path / "last.pt"
        seen.append(saved(path)[1:] if path.exists() else None)

    checkpoint = Checkpoint(tmp_path, monitor=None, every_steps=1)
    tiny.run(tiny.Do("on_batch_start", look), checkpoint, epochs=1, accumulate=2)
    assert seen == [None, None, (2, 1), (2, 1)]


def test_a_run_stopped_in_an_epoch_is_saved_where_it_stands(tiny, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 6 else None)
    result = tiny.run(stop, Checkpoint(tmp_path), epochs=2)
    assert result.stop_reason == "enough"
    assert saved(tmp_path / "last.pt") == (1, 2, 6)


def test_a_run_that_an_error_ended_keeps_the_state_before_it(tiny, tmp_path):
    def fail(state, calls):
        if calls == 6:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        tiny.run(tiny.Do("on_batch_end", fail), Checkpoint(tmp_path), epochs=2)
    assert saved(tmp_path / "last.pt") == (1, 0, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_monitored_value_that_is_not_finite_is_never_best(tiny, tmp_path, value):
    tiny.run(tiny.Logs("val_loss", [2.0, value, 3.0]), Checkpoint(tmp_path), epochs=3)
    assert saved(tmp_path / "best.pt")[0] == 1


@pytest.mark.parametrize("batch", [5, 8])
def test_an_epoch_with_a_loss_that_is_not_finite_is_never_best(tiny, tmp_path, batch):
    batches = []

    def step(model, batch_, state):
        inputs, targets = batch_
        batches.extend([state.step] if state.training else [])
        loss = nn.functional.cross_entropy(model(inputs), targets)
        # the weights stay finite, and the watched value is the best of all
        return loss + math.inf if state.training and len(batches) == batch else loss

    with pytest.warns(CvkitWarning, match=rf"not finite in epoch 2, batch {batch - 4} \(step {batch}\)"):
        tiny.run(tiny.Logs("val_loss", [3, 1, 2]), Checkpoint(tmp_path), epochs=3, step=step, metrics=[])
    assert saved(tmp_path / "best.pt")[0] == 3


@pytest.mark.parametrize("name", ["every_epochs", "every_steps", "keep_last"])
def test_numbers_below_one_are_refused(tmp_path, name):
    with pytest.raises(ArgumentError) as caught:
        Checkpoint(tmp_path, **{name: 0})
    assert str(caught.value) == (
        f"{name} cannot be used\n  got: 0\n  expected: at least 1\n  fix: pass {name}=1 or more"
    )


def test_a_monitor_that_is_never_logged_is_refused_before_training(tiny, tmp_path):
    trained = tiny.Do("on_batch_start", lambda state, calls: None)
    with pytest.raises(UnknownNameError) as caught:
        tiny.run(trained, Checkpoint(tmp_path, monitor="val_acc"))
    assert str(caught.value) == (
        "unknown logged value for monitor 'val_acc'\n"
        "  expected: one of: lr, train_accuracy, train_loss, val_accuracy, val_loss\n"
        "  fix: did you mean 'val_accuracy' or 'val_loss'?"
    )
    with pytest.raises(ArgumentError) as caught:
        tiny.run(trained, Checkpoint(tmp_path, monitor="val_accuracy"), val=False)
    assert str(caught.value) == (
        "monitor='val_accuracy' will never be logged\n"
        "  got: fit without val\n"
        "  expected: one of: train_loss, train_accuracy, lr\n"
        "  fix: pass val to fit, or monitor='train_accuracy', or monitor=None"
    )
    assert trained.calls == 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_hard_links_gets_a_copy(tiny, tmp_path, monkeypatch):
    def no_links(*args, **kwargs):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    tiny.run(tiny.Logs("val_loss", [1, 2]), Checkpoint(tmp_path, keep_last=2))
    assert names(tmp_path) == ["best.pt", "last.pt", "step-00000004.pt", "step-00000008.pt"]
    assert saved(tmp_path / "best.pt")[0] == 1


def test_the_best_file_does_not_follow_the_newest(tiny, tmp_path):
    tiny.run(tiny.Logs("val_loss", [1, 2, 3]), Checkpoint(tmp_path), epochs=3)
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert not torch.equal(best["model"]["weight"], last["model"]["weight"])


def test_a_file_describes_itself(tiny, tmp_path):
    tiny.run(Checkpoint(tmp_path))
    content = load_checkpoint(tmp_path / "last.pt")
    assert sorted(content) == ["cvkit", "description", "format", "model", "torch", "training"]
    images = {"batch_size": 2, "kind": None, "whole": True, "background": None, "max_pixels": None, "colour": None}
    layers = content["description"].pop("layers")
    assert list(layers.values())[-1].startswith("Linear(in_features=")
    assert content["torch"] == torch.__version__
    described = {"model": None, "classes": None, "transform": None, "loss": "cross_entropy", "images": images}
    assert content["description"] == described
    assert list(content["model"]) == ["weight", "bias"]


def test_a_callback_whose_state_cannot_be_saved_is_named_by_its_key(tiny, tmp_path):
    class Odd(tiny.Do):
        def state_dict(self):
            return {"when": object()}

    with pytest.raises(Exception, match=r"training\['callbacks'\]\['Odd'\]\['when'\] cannot go into a checkpoint"):
        tiny.run(Odd("on_batch_end", lambda state, calls: None), Checkpoint(tmp_path))


def test_used_again_in_a_new_run_it_begins_anew(tiny, tmp_path):
    checkpoint = Checkpoint(tmp_path)
    tiny.run(tiny.Logs("val_loss", [1.0, 2.0]), checkpoint)
    for path in tmp_path.iterdir():
        path.unlink()
    result = tiny.run(tiny.Logs("val_loss", [6.0, 5.0]), checkpoint)
    assert result.best_checkpoint is not None
    assert saved(tmp_path / "best.pt")[0] == 2


def test_two_directories_keep_their_own_best(tiny, tmp_path):
    loss, accuracy = Checkpoint(tmp_path / "a"), Checkpoint(tmp_path / "b", monitor="val_accuracy")
    logs = tiny.Logs("val_loss", [1, 2, 3]), tiny.Logs("val_accuracy", [0.1, 0.2, 0.3])
    tiny.run(*logs, loss, accuracy, epochs=3)
    assert saved(tmp_path / "a" / "best.pt")[0] == 1
    assert saved(tmp_path / "b" / "best.pt")[0] == 3


def test_used_again_it_saves_at_a_step_that_it_has_saved_at_before(tiny, tmp_path):
    checkpoint = Checkpoint(tmp_path)
    for _ in range(2):
        stops = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 3 else None)
        result = tiny.run(checkpoint, stops)
        assert result.last_checkpoint is not None
        result.last_checkpoint.unlink()
