"""The callbacks for experiment trackers on their page: with the trackers themselves where they are installed, else with stand-ins."""

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
from cvkit.callbacks import Checkpoint

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "trackers.rst"


def blocks():
    found = re.findall(r"^\.\. code:: python\n\n((?:(?: {3}.*)?\n)+)", PAGE.read_text("utf-8") + "\n", re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


class WandB:
    """As much of Weights & Biases as the page uses: runs by id, whose steps only grow."""

    def __init__(self):
        self.runs = {}

    def init(self, *, project, id, resume, config):
        assert resume == "allow"
        run = self.runs.setdefault(id or f"run{len(self.runs)}", WandBRun(id or f"run{len(self.runs)}"))
        run.project, run.config, run.code = project, config, None
        run.step += bool(run.rows)  # a resumed run begins after its last step
        return run


class WandBRun:
    def __init__(self, id):
        self.id, self.rows, self.summary, self.code, self.step = id, {}, {}, None, 0

    def log(self, row, step):
        assert self.code is None, "the run is over"
        assert step >= self.step, "Weights & Biases would drop it"
        assert step not in self.rows, "a point twice"
        self.step = step
        self.rows[step] = row

    def finish(self, exit_code):
        self.code = exit_code


class MLflow:
    """As much of MLflow as the page uses: every point is kept, also one that is there already."""

    def __init__(self):
        self.runs, self.active, self.experiment = {}, None, None

    def set_experiment(self, name):
        self.experiment = name

    def start_run(self, run_id=None, run_name=None):
        assert self.active is None, "a run is active already"
        self.active = run_id or f"run{len(self.runs)}"
        self.runs.setdefault(self.active, {"metrics": [], "params": {}, "tags": {}, "artifacts": []})["status"] = None
        return MLflowRun(self, self.active)

    def log_params(self, params):
        held = self.runs[self.active]["params"]
        assert all(held.get(key, value) == value for key, value in params.items()), "MLflow changes no parameter"
        held.update(params)

    def log_metrics(self, values, step):
        for name, value in values.items():
            assert re.fullmatch(r"[\w\-. :/]+", name)
            self.runs[self.active]["metrics"].append((name, step, value))

    def set_tag(self, name, value):
        self.runs[self.active]["tags"][name] = value

    def log_artifact(self, path):
        assert Path(path).is_file()
        self.runs[self.active]["artifacts"].append(path)

    def end_run(self, status="FINISHED"):
        self.runs[self.active]["status"], self.active = status, None

    def MlflowClient(self):
        return self

    def get_metric_history(self, run_id, key):
        return [
            types.SimpleNamespace(step=step, value=value)
            for name, step, value in self.runs[run_id]["metrics"]
            if name == key
        ]


class MLflowRun:
    def __init__(self, tracker, id):
        self.tracker, self.info = tracker, types.SimpleNamespace(run_id=id)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.tracker.end_run()


@pytest.fixture
def stand_ins(monkeypatch):
    """The two, importable as the page imports them."""
    made = WandB(), MLflow()
    for name, one in zip(("wandb", "mlflow"), made, strict=True):
        monkeypatch.setitem(sys.modules, name, one)
    return made


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Runs the page's blocks in an empty directory; returns what they define."""

    def run(which=None):
        monkeypatch.chdir(tmp_path)
        namespace = {"__name__": "__main__"}
        for number, block in enumerate(blocks(), 1):
            if which is None or number in which:
                exec(compile(block, f"trackers.rst, block {number}", "exec"), namespace)
        return namespace

    return run


def test_the_page_runs_from_top_to_bottom(page, stand_ins):
    tracked, logged = stand_ins
    found = page()
    assert found["result"].stop_reason == "finished"
    (run,) = tracked.runs.values()
    assert (run.code, run.summary, run.project) == (0, {"stop_reason": "finished"}, "shapes")
    assert list(run.rows) == [3, 6]
    assert {"train_loss", "val_accuracy", "gradient_norm", "lr"} < set(run.rows[6]), "what others log is in it"
    runs = list(logged.runs.values())
    assert [one["status"] for one in runs] == ["FINISHED", "FINISHED"]
    assert runs[0]["params"].keys() == {"lr", "model", "epochs", "seed"}
    assert [step for name, step, _ in runs[0]["metrics"] if name == "train_loss"] == [3, 6]
    assert [Path(path).name for path in runs[1]["artifacts"]] == ["best.pt"]
    assert found["points"] == [1, 2, 3, 4, 5], "the last one is still on its way"


def test_each_is_about_thirty_lines():
    for block in blocks():
        if "(cvkit.Callback)" in block:
            assert len(block[block.index("class ") :].strip().splitlines()) <= 38


def train(directory, callback, *extra):
    torch.manual_seed(0)
    data = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(3)]
    return cvkit.fit(
        *(nn.Linear(3, 2), data, data),
        **{"epochs": 3, "resume": True, "device": "cpu", "progress": False, "preflight": False},
        callbacks=[callback, Checkpoint(directory), *extra],
    )


class Fail:
    """Ends the run in an epoch's end, before its checkpoint or after it."""

    def __init__(self, epoch, order):
        self.epoch, self.order = epoch, order

    def on_epoch_end(self, state):
        if state.epoch == self.epoch:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("which", ["WandB", "MLflow"])
def test_a_run_that_is_cut_short_and_resumed_has_each_point_once(page, stand_ins, tmp_path, which, epoch, order):
    make = page([1, 3])[which]
    with pytest.raises(RuntimeError):
        train(tmp_path / "own", make("a"), Fail(epoch, order))
    tracker = stand_ins[which == "MLflow"]
    (first,) = tracker.runs.values()
    assert (first["status"] if which == "MLflow" else first.code) == ("FAILED" if which == "MLflow" else 1)
    result = train(tmp_path / "own", make("a"))
    if epoch == 0 and order == 1:  # killed before its first checkpoint, it is a new run
        run = list(tracker.runs.values())[-1]
    else:
        (run,) = tracker.runs.values()
    steps = list(run.rows) if which == "WandB" else [step for name, step, _ in run["metrics"] if name == "train_loss"]
    assert steps == [3, 6, 9]
    losses = [run.rows[step]["train_loss"] for step in steps] if which == "WandB" else None
    losses = losses or [value for name, _, value in run["metrics"] if name == "train_loss"]
    assert losses == result.history["train_loss"]


def test_the_end_without_a_start_does_no_harm(page, stand_ins):
    found = page([1, 3])
    for name in ("WandB", "MLflow"):
        found[name]("a").on_fit_end(types.SimpleNamespace(exception=None, stop_reason=None))
    assert not stand_ins[0].runs
    assert not stand_ins[1].runs


@pytest.mark.slow
@pytest.mark.parametrize(("name", "which"), [("wandb", [1, 2]), ("mlflow", [1, 2, 3, 4])])
def test_the_page_runs_with_the_tracker_itself(name, which, page, tmp_path, monkeypatch):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    if name == "mlflow":
        monkeypatch.setitem(sys.modules, "wandb", WandB())
        import mlflow

        mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    assert page(which)["result"].stop_reason == "finished"
    if name == "mlflow":
        points = mlflow.search_runs(experiment_names=["shapes"])
        assert set(points["status"]) == {"FINISHED"}
    else:
        assert list(tmp_path.glob("wandb/offline-run-*"))
