import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def data(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("data")
    sys.modules.pop("data", None)


def test_both_sides_walk_the_same_number_of_samples_of_one_shape(data, tmp_path):
    root = data.write_small(tmp_path, 20)
    ours = data.Loader(data.FolderDataset(root), 8, transform=data.small_image_train(32), shuffle=True)
    theirs = data.standard(root, data.SMALL, 0, 8)
    assert data.walk(ours) == data.walk(theirs) == 20
    (x, y), (u, v) = next(iter(ours)), next(iter(theirs))
    assert (x.shape, x.dtype, y.shape) == (u.shape, u.dtype, v.shape) == ((8, 3, 32, 32), torch.float32, (8,))


def test_both_sides_normalise_alike(data, tmp_path):
    root = data.write_photos(tmp_path, 4, 60, 48)
    ours = data.Loader(data.FolderDataset(root), 4, transform=data.classification_train(32), workers=0)
    theirs = data.standard(root, data.PHOTOS, 0, 4)
    (x, _), (u, _) = next(iter(ours)), next(iter(theirs))
    assert abs(float(x.mean() - u.mean())) < 0.5
    assert 0.5 < float(x.std() / u.std()) < 2


def test_a_round_measures_every_contender_and_the_first_does_not_count(data):
    calls = []
    seconds = data.rounds({"a": lambda: calls.append("a") or 2, "b": lambda: calls.append("b") or 1}, 3)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert calls.count("a") == calls.count("b") == 4


def test_torchvision_reads_the_generated_digits(data, tmp_path):
    root = data.write_mnist(tmp_path, 30)
    dataset = data.torchvision.datasets.MNIST(str(root), train=True)
    assert len(dataset) == 30
    assert dataset.data.shape == (30, 28, 28)


@pytest.mark.slow
def test_the_whole_benchmark_runs(data, capsys):
    data.main(["--quick"])
    said = capsys.readouterr().out
    for title in (
        "second epoch on",
        "Photos of about",
        "MNIST",
        "What a run waits for",
        "first batch of a later epoch",
    ):
        assert title in said
