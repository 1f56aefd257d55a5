"""Files of earlier versions load, predict what they predicted, and continue to where their own version continued them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cvkit

HERE = Path(__file__).parent / "checkpoints"
VERSIONS = ["caf2833"]

_spec = importlib.util.spec_from_file_location("make_checkpoints", HERE / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

each_version = pytest.mark.parametrize("version", VERSIONS)
each_run = pytest.mark.parametrize("kind", make.RUNS)

CLOSE = {"rel": 1e-5, "abs": 1e-6}


@pytest.fixture
def recorded(version):
    return json.loads((HERE / f"{version}.json").read_text("utf-8"))


def same_environment(recorded):
    return recorded["environment"] == make.environment()


@each_version
@each_run
def test_an_old_checkpoint_loads_and_gives_the_recorded_outputs(version, kind, recorded, tmp_path):
    path = HERE / f"{version}-{kind}.pt"
    content = cvkit.load_checkpoint(path)
    assert {"model", "description", "training"} <= set(content)
    model = make.RUNS[kind][0](tmp_path)["model"]
    assert make.outputs(model, path) == pytest.approx(recorded["runs"][kind]["outputs"], **CLOSE)


@each_version
@pytest.mark.parametrize("kind", make.INPUTS)
def test_an_old_checkpoint_predicts_from_the_file_alone(version, kind, recorded):
    then = recorded["runs"][kind]["predicted"]
    now = make.predicted(HERE / f"{version}-{kind}.pt", make.INPUTS[kind])
    assert now.keys() == then.keys()
    for name, value in then.items():
        if name == "image":
            assert np.abs(np.subtract(now[name], value)).max() <= 1  # levels from 0 to 255, rounded
        else:
            assert now[name] == (value if isinstance(value, str) else pytest.approx(value, **CLOSE))


@each_version
def test_a_module_that_is_not_known_is_given_to_load(version, recorded):
    predictor = cvkit.load(HERE / f"{version}-own.pt", model=make.Own(), transform=lambda inputs: inputs, device="cpu")
    outputs = predictor.model(torch.linspace(-1, 1, 6)[None]).flatten().tolist()
    assert outputs == pytest.approx(recorded["runs"]["own"]["outputs"], **CLOSE)


LOGGED_OTHERWISE = {"caf2833": {"own": ("lr", "train_loss"), "masks": ("lr", "train_loss")}}
"""What has been logged otherwise since: the rate that an update used instead of the next one's, and the mean of the
loss in an epoch that the old version began: by class weights, or by pixels, where it was by samples."""


@each_version
@each_run
def test_an_old_run_continues_to_where_its_own_version_continued_it(version, kind, recorded, tmp_path):
    then = recorded["runs"][kind]
    path = HERE / f"{version}-{kind}.pt"
    result = make.start(make.RUNS[kind][0], tmp_path / "data", tmp_path / "out", resume=path)
    assert result.steps == then["steps"][1]
    assert result.stop_reason == "finished"
    assert [list(row) for row in result.history.rows] == [list(row) for row in then["history"]]
    for now, row in zip(result.history.rows, then["history"], strict=True):
        kept = [name for name in row if name not in LOGGED_OTHERWISE[version].get(kind, ("lr",))]
        assert [now[name] for name in kept] == [pytest.approx(row[name], **CLOSE) for name in kept]
    end = make.reached(result)
    if same_environment(recorded):
        assert {name: make.digest(weights) for name, weights in end.items()} == then["sha256"]
    expected = torch.load(HERE / f"{version}-{kind}-end.pt", weights_only=True)
    assert end.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(dict(end[name]), dict(weights), rtol=CLOSE["rel"], atol=CLOSE["abs"])


@each_version
@each_run
def test_an_old_run_was_stopped_before_its_end(version, kind, recorded):
    first, last = recorded["runs"][kind]["steps"]
    assert 0 < first < last
    training = cvkit.load_checkpoint(HERE / f"{version}-{kind}.pt")["training"]
    assert training["step"] == first
    assert (training["batch"] > 0) == (kind != "folder")


@each_version
def test_old_weights_load_into_a_model(version, recorded):
    assert make.outputs(make.Own(), HERE / f"{version}-weights.pt") == pytest.approx(recorded["weights"], **CLOSE)


@each_version
def test_old_content_comes_back_as_it_was(version):
    content = cvkit.load_checkpoint(HERE / f"{version}-content.pt")
    assert content.keys() == make.CONTENT.keys()
    assert content["notes"] == make.CONTENT["notes"]
    for key in ("model", 7):
        for name, tensor in make.CONTENT[key].items():
            assert content[key][name].dtype == tensor.dtype
            assert torch.equal(content[key][name], tensor)


def test_the_files_are_small_and_each_belongs_to_a_version():
    files = sorted(HERE.glob("*.pt"))
    assert files
    assert all(path.stat().st_size < 60_000 for path in files)
    assert {path.name.split("-")[0] for path in files} == set(VERSIONS)
