"""``Prune``: an Optuna trial is told each epoch's value, and a pruned one ends."""

import importlib.util
import re
import sys
import textwrap
import types
from pathlib import Path

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


# --- the how-to


PAGE = Path(__file__).parents[2] / "docs" / "howto" / "search.rst"


class FullTrial(Trial):
    """A trial with settings, as the page uses it."""

    def __init__(self, number, params, user_attrs):
        super().__init__()
        self.number, self.params, self.user_attrs = number, dict(params), dict(user_attrs)
        self.state, self.value = "RUNNING", None

    def set_user_attr(self, name, value):
        self.user_attrs[name] = value

    def suggest_float(self, name, low, high, *, log):
        return self.params.setdefault(name, low * (high / low) ** (self.number % 4 / 3))

    def suggest_categorical(self, name, choices):
        return self.params.setdefault(name, choices[self.number % len(choices)])


class Study:
    """As much of a study as the page uses; the third set of settings is pruned."""

    def __init__(self):
        self.trials, self.queue = [], []

    def get_trials(self, *, states):
        return [one for one in self.trials if one.state in states]

    def tell(self, number, *, state):
        self.trials[number].state = state

    def enqueue_trial(self, params, *, user_attrs):
        self.queue.append((params, user_attrs))

    def optimize(self, objective, *, n_trials):
        for _ in range(n_trials):
            params, attributes = self.queue.pop(0) if self.queue else ({}, {})
            trial = FullTrial(len(self.trials), params, attributes)
            trial.prune_at = 0 if not params and trial.number == 2 else None
            self.trials.append(trial)
            try:
                trial.value, trial.state = objective(trial), "COMPLETE"
            except TrialPruned:
                trial.state = "PRUNED"

    @property
    def best(self):
        return min((one for one in self.trials if one.state == "COMPLETE"), key=lambda one: one.value)

    best_value = property(lambda self: self.best.value)
    best_params = property(lambda self: self.best.params)


def standing_in(study):
    """The package, with one study."""
    states = types.SimpleNamespace(RUNNING="RUNNING", COMPLETE="COMPLETE", PRUNED="PRUNED", FAIL="FAIL")
    return types.SimpleNamespace(
        TrialPruned=TrialPruned,
        create_study=lambda **options: study,
        pruners=types.SimpleNamespace(MedianPruner=lambda **options: None),
        trial=types.SimpleNamespace(TrialState=states),
    )


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cvkit.data.write_shapes("data/train", per_class=8, seed=0)
    cvkit.data.write_shapes("data/val", per_class=4, seed=1)
    blocks = re.findall(r"^\.\. code:: python\n\n((?:(?: {3}.*)?\n)+)", PAGE.read_text("utf-8"), re.MULTILINE)

    def run(**replaced):
        namespace = {"__name__": "__main__"}
        for block in blocks:
            exec(compile(textwrap.dedent(block), "search.rst", "exec"), namespace)
            namespace |= {name: make(namespace[name]) for name, make in replaced.items() if name in namespace}
        return namespace

    return run


def test_the_page_runs_and_a_killed_study_goes_on(page, monkeypatch):
    whole, cut = Study(), Study()
    monkeypatch.setitem(sys.modules, "optuna", standing_in(whole))
    found = page()
    assert [one.state for one in whole.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert set(found["scores"]) == {1e-3, 1e-2}
    Path("runs").rename("whole")

    def killed(objective):
        def objective_of_a_killed_process(trial):
            if trial.number == 1:
                monkeypatch.setattr(trial, "report", lambda value, step: (_ for _ in ()).throw(KeyboardInterrupt))
            return objective(trial)

        return objective_of_a_killed_process

    monkeypatch.setitem(sys.modules, "optuna", standing_in(cut))
    with pytest.raises(KeyboardInterrupt):
        page(objective=killed)
    assert [one.state for one in cut.trials] == ["COMPLETE", "RUNNING"]
    page()
    assert [one.state for one in cut.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    again = cut.trials[2]
    assert again.user_attrs == {"directory": "runs/trial-1"}
    assert again.params == whole.trials[1].params
    assert again.values == whole.trials[1].values


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
def test_the_page_runs_with_optuna_itself(page):
    found = page()
    assert len(found["study"].trials) == 4
    assert len(page()["study"].trials) == 4, "nothing is left to do"
