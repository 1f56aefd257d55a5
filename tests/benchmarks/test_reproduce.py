import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def reproduce(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("reproduce")
    sys.modules.pop("reproduce", None)


def rows(said):
    table = [line for line in said.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table if "---" not in line][1:]


def test_the_line_through_fifteen_points_is_that_of_the_closed_form(reproduce, capsys):
    reproduce.main(["--only", "linear_regression"])
    (_, found, exact, _), (_, difference, _, _) = rows(capsys.readouterr().out)
    assert exact == f"closed form {found}"
    assert float(difference) < 1e-5


def test_what_has_no_data_is_left_out_and_said(reproduce, capsys):
    reproduce.main(["--only", "unet,mnist_cnn"])
    said = capsys.readouterr().out
    assert "unet is left out: it needs --membrane" in said
    assert "mnist_cnn is left out: it needs --mnist" in said
    with pytest.raises(SystemExit):
        reproduce.main(["--only", "unnet"])


def test_dice_is_twice_the_overlap_over_the_sum(reproduce):
    said, truth = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    assert reproduce.dice(said, truth) == 0.5
    assert reproduce.dice(said, said) == 1.0


@pytest.mark.filterwarnings("ignore:CV502")
def test_a_unet_goes_through_on_membranes_of_the_same_layout(reproduce, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for index in range(6):
        for kind, values in (("image", rng.integers(0, 256, (32, 32))), ("label", 255 * rng.integers(0, 2, (32, 32)))):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / kind / f"{index}.png")
    reproduce.main(["--only", "unet", "--membrane", str(tmp_path), "--epochs", "1", "--width", "2", "--size", "16"])
    table = rows(capsys.readouterr().out)
    assert [row[0].rpartition(": ")[2] for row in table] == ["pixel accuracy", "Dice of cells", "Dice of membranes"]
    assert all("2 of 6 membranes held out" in row[0] for row in table)


@pytest.mark.slow
def test_digits_and_small_images_go_through(reproduce, tmp_path, capsys):
    data = importlib.import_module("data")
    data.write_mnist(tmp_path / "mnist", 200)
    for part in ("train", "test"):
        data.write_small(tmp_path / "cifar10" / part, 200)
    only = ["--only", "mnist_cnn,cifar_quick,autoencoders", "--epochs", "1"]
    reproduce.main([*only, "--mnist", str(tmp_path / "mnist"), "--cifar10", str(tmp_path / "cifar10")])
    assert len(rows(capsys.readouterr().out)) == 4
