"""The commands of ``python -m cvkit``: they call the public functions, and ``--show-code`` prints what they call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cvkit
from cvkit.command_line import main

TRAIN = ["--model", "cifar_quick", "--size", "32", "--batch-size", "8", "--workers", "0", "--device", "cpu"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cvkit.data.write_shapes("data/train", per_class=8, seed=0)
    cvkit.data.write_shapes("data/val", per_class=4, seed=1)
    return tmp_path


def python(*words):
    environment = {**os.environ, "PYTHONPATH": str(Path(cvkit.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=250, env=environment
    )


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "more", [[], ["--optimizer", "momentum", "--schedule", "cosine", "--warmup", "2", "--seed", "3"]]
)
def test_the_script_that_is_shown_trains_the_same_weights(images, capsys, more):
    words = ["train", "data", *TRAIN, "--epochs", "2", *more]
    assert main([*words, "--out", "runs/script", "--monitor", "val_accuracy", "--show-code"]) == 0
    Path("train.py").write_text(capsys.readouterr().out, "utf-8")
    assert not Path("runs").exists(), "--show-code trains nothing"
    done = python("train.py")
    assert done.returncode == 0, done.stderr
    assert main([*words, "--out", "runs/command", "--monitor", "val_accuracy"]) == 0
    one, other = (cvkit.load_checkpoint(f"runs/{name}/last.pt") for name in ("script", "command"))
    same(one["model"], other["model"])
    assert repr(one["training"]["history"]) == repr(other["training"]["history"])
    assert done.stdout.replace("runs/script", "runs/command") == capsys.readouterr().out


def test_an_option_that_is_not_given_is_not_in_the_script(images, capsys):
    main(["train", "data", "--model", "resnet18", "--epochs", "3", "--out", "runs/a", "--show-code"])
    assert (
        capsys.readouterr().out
        == """\
import torch

import cvkit
from cvkit.callbacks import Checkpoint


def main():
    torch.manual_seed(0)  # decides the first weights
    data = cvkit.data.from_folder('data', size=224, batch_size=64, seed=0)
    model = cvkit.models.create('resnet18', num_classes=len(data.classes))
    result = cvkit.fit(
        model,
        data.train,
        data.val,
        epochs=3,
        seed=0,
        callbacks=[Checkpoint('runs/a')],
    )
    print(result)


if __name__ == "__main__":
    main()
"""
    )


def test_a_run_is_continued_and_its_checkpoint_predicts_and_exports(images, capsys):
    words = ["train", "data", *TRAIN, "--out", "runs/a", "--tensorboard"]
    assert main([*words, "--epochs", "1"]) == 0
    assert list(Path("runs/a").glob("**/events.out.tfevents.*"))
    assert main([*words, "--epochs", "1"]) == 1
    assert "resume" in capsys.readouterr().err
    assert main([*words, "--epochs", "1", "--resume"]) == 0
    image = next(Path("data/val").rglob("*.png"))
    capsys.readouterr()
    assert main(["predict", "runs/a/best.pt", str(image), "--device", "cpu"]) == 0
    expected = cvkit.load("runs/a/best.pt", device="cpu").predict([image])[0]
    assert capsys.readouterr().out == f"{image}: {expected}\n"
    assert main(["predict", "runs/a/best.pt", "data/val", "--csv", "said.csv", "--tta", "flip"]) == 0
    assert len(Path("said.csv").read_text("utf-8").splitlines()) == 1 + len(list(Path("data/val").rglob("*.png")))
    capsys.readouterr()
    assert main(["export", "runs/a/best.pt", "model.pt2"]) == 0
    assert capsys.readouterr().out == "model.pt2\n"
    torch.export.load("model.pt2")


def test_an_error_is_plain_text_and_exit_code_1(tmp_path):
    done = python("-m", "cvkit", "predict", str(tmp_path / "missing.pt"), "image.png")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    with pytest.raises(cvkit.errors.CheckpointError) as raised:
        cvkit.load(tmp_path / "missing.pt")
    assert done.stderr == f"error: {raised.value}\n"


@pytest.mark.parametrize("words", [["-m", "cvkit", "report"], ["-m", "cvkit.report"]])
def test_the_report_is_the_same_by_both_names(words):
    done = python(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Python: ")
    assert "torch: " in done.stdout


def test_a_command_that_is_wrong_is_told_the_right_ones(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["fly"])
    assert raised.value.code == 2
    assert "train" in capsys.readouterr().err
