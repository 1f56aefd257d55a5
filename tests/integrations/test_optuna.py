"""``Prune``: an Optuna trial is told each epoch's value, and a pruned one ends."""

import importlib.util
import sys
import types

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint, Prune


class TrialPruned(Exception):
    """As Optuna's own."""


class Trial:
    """As much of a trial as the callback uses."""

    def __init__(self, prune_at=None):
        self.values, self.prune_at = {}, prune_at

    def report(self, value, step):
        assert step not in self.values, "Optuna keeps the first value of a step, and warns"
        self.values[step] = value

    def should_prune(self):
        return self.prune_at is not None and max(self.values) >= self.prune_at


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", types.SimpleNamespace(TrialPruned=TrialPruned))


def train(directory, *callbacks, epochs=4, val=True, **more):
    torch.manual_seed(0)
    data = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(3)]
    options = {"epochs": epochs, "resume": True, "device": "cpu", "progress": False, "preflight": False} | more
    return cvkit.fit(
        nn.Linear(3, 2),
        data,
        data if val else None,
        **options,
        callbacks=[*callbacks, Checkpoint(directory, monitor=None)],
    )


def test_each_epoch_is_reported_once(tmp_path):
    trial = Trial()
    result = train(tmp_path, Prune(trial, "val_accuracy"))
    assert list(trial.values) == [0, 1, 2, 3]
    assert list(trial.values.values()) == result.history["val_accuracy"]


def test_a_pruned_trial_ends_with_what_optuna_understands(tmp_path, stand_in):
    trial = Trial(prune_at=1)
    with pytest.raises(TrialPruned, match=r"^val_loss was \S+ after epoch 2\n"):
        train(tmp_path, Prune(trial))
    assert list(trial.values) == [0, 1]


def test_a_trial_of_a_study_that_was_killed_gets_the_epochs_before_too(tmp_path):
    whole = Trial()
    train(tmp_path / "whole", Prune(whole))
    train(tmp_path / "cut", Prune(Trial()), epochs=4, max_steps=6)
    again = Trial()
    train(tmp_path / "cut", Prune(again))
    assert again.values == whole.values


def test_a_value_that_is_never_logged_is_refused_before_training(tmp_path):
    with pytest.raises(cvkit.errors.ArgumentError, match="will never be logged"):
        train(tmp_path, Prune(Trial()), val=False)


def test_a_dry_run_reports_nothing(tmp_path):
    trial = Trial(prune_at=0)
    train(tmp_path, Prune(trial), dry_run=True, resume=False)
    assert trial.values == {}
    with pytest.raises(cvkit.errors.UnknownNameError):
        train(tmp_path, Prune(trial, "val_acuracy"), dry_run=True, resume=False)


def test_without_optuna_a_pruned_trial_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(cvkit.errors.MissingDependencyError, match=r'pip install "cvkit\[optuna\]"'):
        train(tmp_path, Prune(Trial(prune_at=0)))


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
def test_a_study_prunes(tmp_path):
    import optuna

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        result = train(tmp_path / str(trial.number), Prune(trial), lr=lr)
        return result.history["val_loss"][-1]

    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0),
    )
    study.optimize(objective, n_trials=6)
    assert {one.state.name for one in study.trials} == {"COMPLETE", "PRUNED"}
