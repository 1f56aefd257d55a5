"""The one command for a GPU runs here, on the CPU and in tiny, so that it does not fail for a silly reason on the day."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments, directory, isolated=()):
    command = [sys.executable, *isolated, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=directory)


def test_every_part_runs_on_a_cpu(tmp_path):
    done = run("--device", "cpu", "--tiny", directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        line.strip("| ").split(" | ")
        for line in done.stdout.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    found = {row[0]: row[1] for row in rows if len(row) == 2}
    assert found["exact resume after a kill, deterministic kernels"] == "killed at step 6, continued: the same bits"
    assert found["synchronisations in a step"].startswith("0 in ")
    assert len(found) == 10
    assert ", 0 failed" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_is_a_row_and_an_exit_status(tmp_path):
    done = run(
        "--device", "cpu", "--tiny", "--parts", "quick", "--cifar10", str(tmp_path / "nowhere"), directory=tmp_path
    )
    assert done.returncode == 1
    assert "| cifar_quick, batches of 16 | **failed**: " in done.stdout
    assert "1 failed" in done.stdout


def test_what_it_cannot_do_is_said(tmp_path):
    done = run("--device", "cpu", "--parts", "fats", directory=tmp_path)
    assert "--parts got fats; expected some of agreement,resume," in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_device_it_says_how_to_try_it(tmp_path):
    done = run(directory=tmp_path)
    assert done.returncode == 1
    assert "sees no CUDA device; --device cpu --tiny tries the script itself" in done.stderr
