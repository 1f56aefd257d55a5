"""A run whose process was killed goes on by the same command, bit by bit."""

import os
import runpy
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from resumed_runs import assert_same, train

from cvkit.training import load_checkpoint

SCRIPT = """
import os, random, signal, sys
import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from cvkit.callbacks import CSVLogger, Checkpoint
from cvkit.training import Callback, fit
from cvkit.serialization import checkpoint

directory, kill, hook = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Kill(Callback):
    order = 0
    def tell(self, state):
        if state.step == kill:
            os.kill(os.getpid(), signal.SIGKILL)

if hook == "saving":
    save = torch.save
    def torn(content, file):
        if content["training"]["step"] == kill:
            file.write(b"PK half of a file")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(content, file)
    torch.save = torn
else:
    setattr(Kill, hook, Kill.tell)

random.seed(0)
numpy.random.seed(0)
torch.manual_seed(0)
inputs, targets = torch.randn(18, 4), torch.randint(0, 3, (18,))
train = DataLoader(TensorDataset(inputs, targets), batch_size=4, shuffle=True)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
result = fit(model, train, train, epochs=2, lr=0.05, schedule="cosine", accumulate=2, device="cpu", progress=False,
             resume=True, callbacks=[Kill(), CSVLogger(directory + "/log.csv"), Checkpoint(directory, every_steps=1)])
torch.save({"model": model.state_dict(), "history": result.history.rows, "rng": torch.get_rng_state()},
           directory + "/result")
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Runs the script; returns the exit code."""
    directory = tmp_path_factory.mktemp("script")
    file = directory / "train.py"
    file.write_text(textwrap.dedent(SCRIPT))

    def run(where, kill=-1, hook="on_batch_start"):
        where.mkdir(exist_ok=True)
        command = [sys.executable, "-W", "error::cvkit.errors.CvkitWarning", str(file), str(where), str(kill), hook]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    whole = directory / "whole"
    whole.mkdir()
    with pytest.MonkeyPatch.context() as patch:  # the undisturbed run, without the seconds that a process takes
        patch.setattr(sys, "argv", [str(file), str(whole), "-1", "on_batch_start"])
        runpy.run_path(str(file))
    return run, torch.load(whole / "result"), whole


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("kill", "hook"), [(4, "on_batch_start"), (5, "saving")])
def test_a_killed_process_goes_on_by_the_same_command_bit_by_bit(tmp_path, script, kill, hook):
    run, undisturbed, whole = script
    assert run(tmp_path, kill, hook).returncode == -signal.SIGKILL
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert_same(torch.load(tmp_path / "result"), undisturbed)
    assert (tmp_path / "log.csv").read_text() == (whole / "log.csv").read_text()
    assert_same(load_checkpoint(tmp_path / "best.pt"), load_checkpoint(whole / "best.pt"))


def killed(callback, content, step):
    """Stands for a kill between best.pt and last.pt: nothing after it runs."""
    raise KeyboardInterrupt


def test_a_kill_between_the_newest_and_the_best_file_loses_no_best(tmp_path, monkeypatch):
    from cvkit.callbacks import checkpoint

    train(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "_write_last", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "b")
    train(tmp_path / "b")
    a, b = load_checkpoint(tmp_path / "a" / "best.pt"), load_checkpoint(tmp_path / "b" / "best.pt")
    assert a["training"]["step"] == b["training"]["step"]
    assert_same(b["model"], a["model"])


def test_a_kill_between_the_newest_and_the_best_file_of_the_last_epoch_loses_no_best(tmp_path, monkeypatch):
    from cvkit.callbacks import checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "_write_last", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, epochs=1)
    result, _ = train(tmp_path, epochs=1)
    assert result.best_checkpoint == tmp_path / "best.pt"
