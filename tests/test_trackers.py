"""The callbacks for experiment trackers, and their page: with stand-ins, and with the trackers themselves where they are installed."""

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
from cvkit.integrations.mlflow import MLflow as MLflowCallback
from cvkit.integrations.trackio import Trackio as TrackioCallback
from cvkit.integrations.wandb import WandB as WandBCallback

CALLBACKS = {"wandb": WandBCallback, "mlflow": MLflowCallback, "trackio": TrackioCallback}

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "trackers.rst"


def blocks():
    found = re.findall(r"^\.\. code:: python\n\n((?:(?: {3}.*)?\n)+)", PAGE.read_text("utf-8") + "\n", re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


class WandB:
    """As much of Weights & Biases as the callback uses: runs by id, whose steps only grow."""

    def __init__(self):
        self.runs = {}

    def init(self, *, project, id, resume, config, **options):
        assert resume == "allow"
        run = self.runs.setdefault(id or f"run{len(self.runs)}", WandBRun(id or f"run{len(self.runs)}"))
        run.project, run.config, run.code, run.options = project, config, None, options
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
    """As much of MLflow as the callback and the page use: every point is kept, also one that is there already."""

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


class Trackio:
    """As much of trackio as the callback uses: one run at a time, found by its name."""

    def __init__(self):
        self.runs, self.active = {}, None

    def init(self, *, project, name, resume, config):
        assert self.active is None, "a run is active already"
        assert resume == "allow"
        self.active = self.runs.setdefault(name, {"rows": [], "project": project, "config": config})
        return self.active

    def log(self, row, step):
        self.active["rows"].append((step, row))

    def finish(self):
        self.active = None


@pytest.fixture
def stand_ins(monkeypatch):
    """The three, importable by their names."""
    made = {"wandb": WandB(), "mlflow": MLflow(), "trackio": Trackio()}
    for name, one in made.items():
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
    tracked, logged, kept = stand_ins.values()
    found = page()
    assert found["result"].stop_reason == "finished"
    (run,) = tracked.runs.values()
    assert (run.code, run.summary, run.project) == (0, {"stop_reason": "finished"}, "shapes")
    assert list(run.rows) == [3, 6]
    assert {"train_loss", "val_accuracy", "gradient_norm", "lr"} < set(run.rows[6]), "what others log is in it"
    runs = list(logged.runs.values())
    assert [one["status"] for one in runs] == ["FINISHED", "FINISHED"]
    assert runs[0]["params"].keys() == {"lr", "epochs", "seed"}
    assert [step for name, step, _ in runs[0]["metrics"] if name == "train_loss"] == [3, 6]
    assert [Path(path).name for path in runs[1]["artifacts"]] == ["best.pt"]
    (held,) = kept.runs.values()
    assert [step for step, _ in held["rows"]] == [3, 6]
    assert kept.active is None
    assert found["points"] == [1, 2, 3, 4, 5], "the last one is still on its way"


def train(directory, callback, *extra, **more):
    torch.manual_seed(0)
    data = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(3)]
    return cvkit.fit(
        *(nn.Linear(3, 2), data, data),
        **{"epochs": 3, "resume": True, "device": "cpu", "progress": False, "preflight": False} | more,
        callbacks=[callback, Checkpoint(directory), *extra],
    )


class Fail:
    """Ends the run in an epoch's end, before its checkpoint or after it."""

    def __init__(self, epoch, order):
        self.epoch, self.order = epoch, order

    def on_epoch_end(self, state):
        if state.epoch == self.epoch:
            raise RuntimeError("power cut")


def points(name, tracker):
    """The steps and training losses of a tracker's only run, or of its last one."""
    run = list(tracker.runs.values())[-1]
    if name == "wandb":
        return [(step, row["train_loss"]) for step, row in run.rows.items()]
    if name == "trackio":
        return [(step, row["train_loss"]) for step, row in run["rows"]]
    return [(step, value) for key, step, value in run["metrics"] if key == "train_loss"]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_run_that_is_cut_short_and_resumed_goes_on_in_the_same_run(stand_ins, tmp_path, name, epoch, order):
    tracker = stand_ins[name]
    with pytest.raises(RuntimeError):
        train(tmp_path / "own", CALLBACKS[name]("a"), Fail(epoch, order))
    (first,) = tracker.runs.values()
    if name != "trackio":
        assert (first["status"] if name == "mlflow" else first.code) == ("FAILED" if name == "mlflow" else 1)
    result = train(tmp_path / "own", CALLBACKS[name]("a"))
    fresh = epoch == 0 and order == 1  # killed before its first checkpoint, it is a new run
    assert len(tracker.runs) == 1 + fresh
    found = points(name, tracker)
    twice = name == "trackio" and order == 1 and not fresh  # trackio cannot be asked what it holds
    assert [step for step, _ in found] == ([3, 6, 6, 9] if twice else [3, 6, 9])
    assert list(dict(found).values()) == result.history["train_loss"]


@pytest.mark.parametrize("name", CALLBACKS)
def test_the_end_without_a_start_does_no_harm(stand_ins, name):
    CALLBACKS[name]("a").on_fit_end(types.SimpleNamespace(exception=None, stop_reason=None))
    assert not stand_ins[name].runs


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_dry_run_logs_nothing(stand_ins, tmp_path, name):
    train(tmp_path / "own", CALLBACKS[name]("a"), dry_run=True, resume=False)
    assert not stand_ins[name].runs


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_that_is_used_for_another_training_starts_another_run(stand_ins, tmp_path, name):
    callback = CALLBACKS[name]("a")
    train(tmp_path / "one", callback)
    train(tmp_path / "two", callback)
    assert len(stand_ins[name].runs) == 2


def test_what_wandb_takes_beyond_that_is_passed_on(stand_ins, tmp_path):
    train(tmp_path / "own", WandBCallback("a", config={"lr": 1}, options={"tags": ["baseline"]}))
    (run,) = stand_ins["wandb"].runs.values()
    assert run.options == {"tags": ["baseline"]}
    assert run.config.keys() == {"lr", "epochs", "seed"}


@pytest.mark.parametrize("name", CALLBACKS)
def test_without_the_package_the_run_does_not_start_and_says_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(cvkit.errors.MissingDependencyError) as raised:
        train(tmp_path / "own", CALLBACKS[name]("a"))
    assert str(raised.value) == (
        f"{CALLBACKS[name].__name__} needs the package {name}\n"
        f"  got: import of {name} halted; None in sys.modules\n"
        f"  expected: {name} in this environment\n"
        f'  fix: pip install "cvkit[{name}]"'
    )
    assert not (tmp_path / "own" / "last.pt").exists()


@pytest.mark.parametrize(("name", "which"), [("wandb", [1]), ("mlflow", [1, 2]), ("trackio", [1, 3])])
def test_the_page_runs_with_the_tracker_itself(name, which, page, tmp_path, monkeypatch):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if name != "wandb":
        monkeypatch.setitem(sys.modules, "wandb", WandB())
    if name == "mlflow":
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert page(which)["result"].stop_reason == "finished"
    if name == "mlflow":
        assert set(mlflow.search_runs(experiment_names=["shapes"])["status"]) == {"FINISHED"}
    elif name == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*"))
    else:
        assert list((tmp_path / "trackio").rglob("shapes*"))
