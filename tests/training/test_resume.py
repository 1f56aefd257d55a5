"""Exact resume: whatever ended a run, the same command again ends where an undisturbed run does, bit by bit."""

import os
import random
import re
import runpy
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cvkit import seeding
from cvkit.callbacks import Checkpoint, EarlyStopping
from cvkit.errors import ArgumentError, CheckpointError, CvkitWarning, UnknownNameError
from cvkit.training import Callback, fit, load_checkpoint, save_checkpoint

SAMPLES, BATCH, ACCUMULATE = 18, 4, 2  # 5 batches an epoch, the last one short: 3 updates, the last group short


def data(batch_size=BATCH, shuffle=True, generator=None, seed=3):
    made = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(SAMPLES, 4, generator=made), torch.randint(0, 3, (SAMPLES,), generator=made)
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=shuffle, generator=generator)


def network(dropout=0.3):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


class Keeps(Callback):
    """Keeps hold of the state, and does something at a given point of a run."""

    def __init__(self, hook=None, do=None):
        self.calls = 0
        if hook is not None:
            setattr(self, hook, lambda state: self._count(state, do))

    def _count(self, state, do):
        self.calls += 1
        do(state, self.calls)

    def on_fit_start(self, state):
        self.state = state


class Drawing(Callback):
    """Draws random numbers whenever something starts, as a callback that shows a random image does."""

    def on_fit_start(self, state):
        torch.rand(3), random.random(), np.random.rand()

    def on_epoch_start(self, state):
        torch.rand(2), random.random(), np.random.rand()


def train(directory, *extra, epochs=2, resume=True, train=None, val=None, checkpoint=None, seed=0, **kwargs):
    """Runs the same command again; returns the result and everything that has to be the same."""
    options = {
        "schedule": "cosine",
        "accumulate": ACCUMULATE,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
        "device": "cpu",
        "progress": False,
        "preflight": False,
    }
    torch.manual_seed(1)
    model, keeps = network(), Keeps()
    torch.manual_seed(seed)
    stopping = EarlyStopping("val_loss", patience=5)
    result = fit(
        model,
        train or data(),
        val or data(shuffle=False, seed=4),
        epochs=epochs,
        seed=seed,
        resume=resume,
        callbacks=[*extra, keeps, stopping, checkpoint or Checkpoint(directory)],
        **(options | kwargs),
    )
    scaler = keeps.state.runtime.scaler
    everything = {
        "model": model.state_dict(),
        "optimizers": [one.state_dict() for one in keeps.state.optimizers],
        "schedules": [one.state_dict() for one in keeps.state.schedules],
        "scaler": scaler.state_dict() if scaler is not None else None,
        "history": result.history.rows,
        "stopping": stopping.state_dict(),
        "rng": seeding.capture(),
        "steps": result.steps,
    }
    return result, everything


def assert_same(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert a.numpy().tobytes() == b.numpy().tobytes(), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    elif not callable(a):
        assert a == b, where


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, with its directory."""
    directory = tmp_path_factory.mktemp("whole")
    _, everything = train(directory)
    return everything, directory


def stop_at(call, reason="stop"):
    def do(state, calls):
        if calls == call:
            state.request_stop(reason)

    return do


@pytest.mark.parametrize("batch", range(1, 11))
def test_a_run_stopped_at_any_batch_goes_on_bit_by_bit(tmp_path, whole, batch):
    first, _ = train(tmp_path, Keeps("on_batch_end", stop_at(batch)))
    assert first.stop_reason == "stop"
    update = min(-(-((batch - 1) % 5 + 1) // ACCUMULATE), 3) + 3 * ((batch - 1) // 5)
    assert first.steps == update, "a stop waits for the end of a group of accumulate"
    second, everything = train(tmp_path)
    assert second.stop_reason == "finished"
    assert_same(everything, whole[0])


def test_the_best_file_of_a_stopped_run_is_that_of_an_undisturbed_one(tmp_path, whole):
    train(tmp_path, Keeps("on_batch_end", stop_at(7)))
    train(tmp_path)
    for name in ("best.pt", "last.pt"):
        a, b = load_checkpoint(tmp_path / name), load_checkpoint(whole[1] / name)
        assert_same(a, b, name)


def test_a_run_stopped_again_and_again_goes_on_bit_by_bit(tmp_path, whole):
    for _ in range(8):
        result, everything = train(tmp_path, Keeps("on_batch_end", stop_at(1)))
        if result.stop_reason == "finished":
            break
    else:
        pytest.fail("the run never ended")
    assert_same(everything, whole[0])


def test_a_run_in_fp16_goes_on_with_its_loss_scale(tmp_path):
    options = {"precision": "fp16", "accumulate": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch must not blame the user for a step that the loss scaler left out
        _, undisturbed = train(tmp_path / "whole", **options)
    assert undisturbed["scaler"]["_growth_tracker"] > 5
    train(tmp_path / "stopped", Keeps("on_batch_end", stop_at(7)), **options)
    _, everything = train(tmp_path / "stopped", **options)
    assert_same(everything, undisturbed)


@pytest.mark.parametrize("hook", ["on_batch_start", "on_gradients_ready", "on_batch_end", "on_validation_batch_end"])
def test_a_run_that_an_exception_ended_goes_on_from_its_last_save(tmp_path, whole, hook):
    def fail(state, calls):
        if calls == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path, Keeps(hook, fail), checkpoint=Checkpoint(tmp_path, every_steps=1))
    assert [p.name for p in tmp_path.glob("*.pt")], "nothing was saved"
    _, everything = train(tmp_path)
    assert_same(everything, whole[0])


@pytest.mark.parametrize("call", [1, 5, 6, 10])
def test_an_interrupted_validation_is_done_again(tmp_path, whole, call):
    def interrupt(state, calls):
        if calls == call:
            signal.raise_signal(signal.SIGINT)

    first, _ = train(tmp_path, Keeps("on_validation_batch_end", interrupt))
    assert first.stop_reason == "interrupted"
    assert first.epochs == (call - 1) // 5
    _, everything = train(tmp_path)
    assert_same(everything, whole[0])


@pytest.mark.parametrize("hook", ["on_fit_start", "on_epoch_start", "on_validation_end", "on_epoch_end"])
def test_a_stop_asked_for_between_steps_loses_nothing(tmp_path, whole, hook):
    train(tmp_path, Keeps(hook, stop_at(1, "interrupted")))
    _, everything = train(tmp_path)
    assert_same(everything, whole[0])


@pytest.mark.parametrize("batch", [3, 5, 8])
def test_callbacks_that_draw_random_numbers_do_not_shift_a_resume(tmp_path, batch):
    _, undisturbed = train(tmp_path / "a", Drawing())
    train(tmp_path / "b", Drawing(), Keeps("on_batch_end", stop_at(batch)))
    _, everything = train(tmp_path / "b", Drawing())
    assert_same(everything, undisturbed)


def test_the_seed_need_not_be_given_again(tmp_path, whole):
    train(tmp_path, Keeps("on_batch_end", stop_at(4)))
    torch.manual_seed(1)
    model = network()
    torch.manual_seed(12345)
    stopping = EarlyStopping("val_loss", patience=5)
    fit(
        model,
        data(),
        data(shuffle=False, seed=4),
        epochs=2,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
        schedule="cosine",
        accumulate=ACCUMULATE,
        device="cpu",
        progress=False,
        resume=True,
        callbacks=[stopping, Checkpoint(tmp_path)],
    )
    assert_same(model.state_dict(), whole[0]["model"])


@pytest.mark.parametrize("batch", [3, 5, 6, 9])
@pytest.mark.parametrize("which", ["train", "val"])
def test_a_loader_with_a_generator_of_its_own_goes_on_bit_by_bit(tmp_path, which, batch):
    def loaders():
        return {which: data(generator=torch.Generator().manual_seed(5), seed=3 if which == "train" else 4)}

    _, undisturbed = train(tmp_path / "a", **loaders())
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(batch)), **loaders())
    _, everything = train(tmp_path / "b", **loaders())
    assert_same(everything, undisturbed)


class Noisy(Dataset):
    """Draws a random number for each sample, as augmentations do."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.full((4,), index / SAMPLES) + torch.rand(4) + random.random() + np.random.rand(), index % 3


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch", [3, 8])
def test_samples_that_are_drawn_at_random_go_on_bit_by_bit(tmp_path, batch, workers):
    def loader():
        # a fork is quick; numpy's generator is seeded in a worker by torch, as is Python's
        context = "fork" if workers else None
        return DataLoader(Noisy(), batch_size=BATCH, shuffle=True, num_workers=workers, multiprocessing_context=context)

    _, undisturbed = train(tmp_path / "a", train=loader())
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(batch)), train=loader())
    _, everything = train(tmp_path / "b", train=loader())
    assert_same(everything, undisturbed)


class Drifting(nn.Module):
    """A loss that remembers: its weight follows the batches."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, outputs, targets):
        if torch.is_grad_enabled():
            self.seen += 1
        return nn.functional.cross_entropy(outputs, targets) * (1 + self.seen / 10)


def test_a_loss_that_remembers_goes_on_bit_by_bit(tmp_path):
    _, undisturbed = train(tmp_path / "a", loss=Drifting(), metrics="accuracy")
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(6)), loss=Drifting(), metrics="accuracy")
    _, everything = train(tmp_path / "b", loss=Drifting(), metrics="accuracy")
    assert_same(everything, undisturbed)


@pytest.mark.parametrize("schedule", ["onecycle", "poly", "step", "linear"])
def test_every_schedule_goes_on_bit_by_bit(tmp_path, schedule):
    _, undisturbed = train(tmp_path / "a", schedule=schedule)
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(4)), schedule=schedule)
    _, everything = train(tmp_path / "b", schedule=schedule)
    assert_same(everything, undisturbed)


@pytest.mark.parametrize(
    "factory",
    [
        lambda o, total: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4]),
        lambda o, total: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (step + 1)),
        lambda o, total: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2),
                torch.optim.lr_scheduler.MultiStepLR(o, [1, 2]),
            ],
            milestones=[2],
        ),
        lambda o, total: torch.optim.lr_scheduler.ChainedScheduler(
            [torch.optim.lr_scheduler.ExponentialLR(o, 0.9), torch.optim.lr_scheduler.MultiStepLR(o, [3])]
        ),
    ],
    ids=["multistep", "lambda", "sequential", "chained"],
)
def test_schedules_of_a_factory_go_on_bit_by_bit(tmp_path, factory):
    result, undisturbed = train(tmp_path / "a", schedule=factory)
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(4)), schedule=factory)
    again, everything = train(tmp_path / "b", schedule=factory)
    del undisturbed["schedules"], everything["schedules"]
    assert_same(everything, undisturbed)
    assert again.history["lr"] == result.history["lr"]


def test_two_optimizers_go_on_bit_by_bit(tmp_path):
    def pair(parameters):
        return [torch.optim.SGD(parameters[:2], lr=0.1, momentum=0.9), torch.optim.Adam(parameters[2:], lr=0.01)]

    _, undisturbed = train(tmp_path / "a", optimizer=pair)
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(6)), optimizer=pair)
    _, everything = train(tmp_path / "b", optimizer=pair)
    assert_same(everything, undisturbed)


def test_a_run_that_is_complete_does_nothing(tmp_path, whole):
    train(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    batches = Keeps("on_batch_start", lambda state, calls: pytest.fail("trained"))
    result, everything = train(tmp_path, batches)
    assert (result.stop_reason, result.epochs, result.steps) == ("finished", 2, 6)
    assert result.best_checkpoint == tmp_path / "best.pt"
    assert result.last_checkpoint == tmp_path / "last.pt"
    assert_same(everything, whole[0])
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_more_epochs_continue_and_the_schedule_is_told_to_be_another(tmp_path):
    train(tmp_path)
    with pytest.warns(CvkitWarning) as caught:
        result, everything = train(tmp_path, epochs=4)
    assert [str(one.message) for one in caught] == [
        f"the run continued from {tmp_path / 'last.pt'} was planned for 2 epochs and is now "
        "to have 4: its learning-rate schedule is recomputed for the new length"
    ]
    assert (result.epochs, result.steps, result.history["epoch"]) == (4, 12, [1, 2, 3, 4])
    planned = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.05), 12)
    lrs = []
    for _ in range(12):
        lrs.append(planned.get_last_lr()[0])
        planned.optimizer.step()
        planned.step()
    assert result.history["lr"][2:] == pytest.approx([lrs[8], lrs[11]], abs=1e-12)
    assert everything["optimizers"][0]["state"][0]["step"] == 12


def test_more_epochs_without_a_schedule_are_the_longer_run(tmp_path):
    _, undisturbed = train(tmp_path / "a", epochs=3, schedule=None)
    train(tmp_path / "b", epochs=1, schedule=None)
    _, everything = train(tmp_path / "b", epochs=3, schedule=None)
    assert_same(everything, undisturbed)


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


def test_a_new_run_in_a_directory_that_holds_one_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, resume=False)
    assert str(caught.value) == (
        f"{tmp_path} already holds a run\n"
        "  got: last.pt, best.pt\n"
        "  expected: a directory without checkpoints, for a new run\n"
        "  fix: pass resume=True to continue it, or choose another directory, or delete this one"
    )


def test_resume_without_a_checkpoint_callback_is_refused():
    with pytest.raises(ArgumentError) as caught:
        fit(network(), data(), epochs=1, resume=True, progress=False, callbacks=[EarlyStopping("train_loss")])
    assert str(caught.value) == (
        "resume=True does not know where to continue from\n"
        "  got: callbacks=['EarlyStopping']\n"
        "  expected: a Checkpoint callback among them\n"
        '  fix: add Checkpoint("runs/a"), or pass the file: resume="runs/a/last.pt"'
    )


def test_resume_in_an_empty_directory_is_a_new_run(tmp_path, whole):
    result, everything = train(tmp_path / "new")
    assert result.epochs == 2
    assert_same(everything, whole[0])


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_to_resume_from_continues_into_another_directory(tmp_path, whole, kind):
    train(tmp_path / "a", Keeps("on_batch_end", stop_at(3)))
    _, everything = train(tmp_path / "b", resume=kind(tmp_path / "a" / "last.pt"))
    assert_same(everything, whole[0])
    assert (tmp_path / "b" / "best.pt").exists()


def test_a_path_to_resume_from_needs_no_checkpoint_callback(tmp_path):
    train(tmp_path, epochs=1, schedule=None)
    with pytest.warns(CvkitWarning, match="holds the state of a callback 'Checkpoint' that this run does not have"):
        result = fit(
            network(),
            data(),
            data(shuffle=False, seed=4),
            epochs=2,
            accumulate=ACCUMULATE,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
            callbacks=[EarlyStopping("val_loss", patience=5)],
            progress=False,
            resume=tmp_path / "last.pt",
            device="cpu",
        )
    assert result.history["epoch"] == [1, 2]


def test_a_directory_to_resume_from_is_answered_with_its_file(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, resume=tmp_path)
    assert "got: a directory" in str(caught.value)
    assert f"pass resume={str(tmp_path / 'last.pt')!r}" in str(caught.value)


def test_what_is_said_of_other_data_names_no_hash(tmp_path):
    class Told(list):
        fingerprint = "1f2e"

    batches = [(torch.randn(4, 4), torch.randint(0, 3, (4,))) for _ in range(5)]
    one, other = Told(batches), Told(batches)
    other.fingerprint = "3d4c"
    train(tmp_path, train=one, epochs=1)
    with pytest.raises(
        CheckpointError, match="got: data: other files, labels or classes, or another shuffle, drop_last"
    ):
        train(tmp_path, train=other)
    one.batch_size, other.batch_size = 4, 5
    again = tmp_path / "again"
    train(again, train=one, epochs=1)
    with pytest.raises(CheckpointError, match="got: batch size: 4 then, 5 now\n"):
        train(again, train=other)


def test_a_path_to_resume_from_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, resume=tmp_path / "lost.pt")
    assert str(caught.value) == (
        f"there is no checkpoint {tmp_path / 'lost.pt'}\n"
        "  got: no such file\n"
        "  expected: a file that a Checkpoint callback wrote\n"
        "  fix: check the path"
    )


def test_a_path_to_resume_from_does_not_open_a_directory_with_another_run(tmp_path):
    train(tmp_path / "a", epochs=1)
    train(tmp_path / "b", epochs=1)
    with pytest.raises(CheckpointError, match=f"^{tmp_path / 'b'} already holds a run"):
        train(tmp_path / "b", resume=tmp_path / "a" / "last.pt")


def damage(path):
    """Flips a bit in a new file of the same name, as a bad copy or disk does; hard links keep theirs."""
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 4
    path.unlink()
    path.write_bytes(changed)


def test_a_damaged_newest_file_falls_back_to_the_newest_sound_one(tmp_path):
    kept = {"schedule": None, "checkpoint": Checkpoint(tmp_path / "b", keep_last=3)}
    _, undisturbed = train(tmp_path / "a", epochs=3, schedule=None)
    train(tmp_path / "b", epochs=2, **kept)
    for name in ("last.pt", "step-00000006.pt"):
        damage(tmp_path / "b" / name)
    with pytest.warns(CvkitWarning) as caught:
        result, everything = train(tmp_path / "b", epochs=3, **kept)
    sound = tmp_path / "b" / "step-00000003.pt"
    assert [str(one.message) for one in caught] == [
        f"the checkpoint {tmp_path / 'b' / name} is damaged: {tmp_path / 'b' / name} is left out, "
        f"the run continues from {sound}"
        for name in ("last.pt", "step-00000006.pt")
    ]
    assert result.epochs == 3
    assert_same(everything, undisturbed)


def test_a_damaged_newest_file_falls_back_to_the_best_when_there_is_no_other(tmp_path):
    train(tmp_path, epochs=2, schedule=None)
    damage(tmp_path / "last.pt")
    with pytest.warns(CvkitWarning, match=f"the run continues from {tmp_path / 'best.pt'}"):
        result, _ = train(tmp_path, epochs=3, schedule=None)
    assert result.epochs == 3


def test_damage_in_place_of_the_newest_leaves_an_older_state_to_fall_back_to(tmp_path):
    def checkpoint():
        return Checkpoint(tmp_path, keep_last=2)

    train(tmp_path, epochs=2, schedule=None, checkpoint=checkpoint())
    with open(tmp_path / "last.pt", "r+b") as file:  # in place: every hard link of it is damaged too
        file.seek(500)
        file.write(b"\0\1\2\3")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result, _ = train(tmp_path, epochs=2, schedule=None, checkpoint=checkpoint())
    assert any("is left out, the run continues from" in str(one.message) for one in caught)
    assert result.epochs == 2


def test_a_directory_with_nothing_sound_is_refused_by_name(tmp_path):
    train(tmp_path)
    for path in list(tmp_path.glob("*.pt")):
        damage(path)
    with pytest.raises(CheckpointError, match=f"no checkpoint of the run is sound: {tmp_path / 'last.pt'}, "):
        train(tmp_path)


def test_a_damaged_file_that_was_asked_for_by_name_is_refused(tmp_path):
    train(tmp_path)
    damage(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=f"the checkpoint {tmp_path / 'last.pt'} is damaged"):
        train(tmp_path, resume=tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("change", "said", "part"),
    [
        ({"train": 3}, "batches: 5 then, 6 now; batch size: 4 then, 3 now", "data"),
        ({"accumulate": 1}, "accumulate: 2 then, 1 now", "accumulate"),
    ],
)
def test_other_data_in_the_middle_of_an_epoch_are_refused(tmp_path, change, said, part):
    train(tmp_path, Keeps("on_batch_end", stop_at(2)))
    change = {key: data(value) if key == "train" else value for key, value in change.items()}
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, **change)
    assert str(caught.value) == (
        f"the run in {tmp_path / 'last.pt'} is another one than this\n"
        f"  got: {said}\n"
        "  expected: the same data, transform, model, loss, optimizer, schedule and whatever else decides the run; the number of "
        "epochs, of workers, the device and the cache may change\n"
        "  fix: undo the change; or, if it is meant, let the epoch end first by the script as it was, for "
        f"{part} cannot change 2 batches into one; then pass override=({part!r},); "
        "or start a new run in another directory from these weights: "
        f"cvkit.load_weights(model, {str(tmp_path / 'last.pt')!r})"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": data(3)}, "batches: 5 then, 6 now; batch size: 4 then, 3 now"),
        ({"accumulate": 1}, "accumulate: 2 then, 1 now"),
        ({"clip_norm": 1.0}, "clip_norm: None then, 1.0 now"),
        ({"loss": nn.functional.multi_margin_loss}, "loss: cross_entropy then, multi_margin_loss now"),
        ({"optimizer": lambda p: torch.optim.AdamW(p, lr=0.5)}, "AdamW's lr: 0.05 then, 0.5 now"),
        ({"optimizer": "momentum"}, "optimizer: AdamW then, SGD now"),
        ({"schedule": None}, "schedule: CosineAnnealingLR then, none now"),
    ],
)
def test_another_run_is_refused_between_epochs_too_and_told_by_its_difference(tmp_path, change, said):
    train(tmp_path, epochs=1)
    with pytest.raises(
        CheckpointError, match=re.escape(f"the run in {tmp_path / 'last.pt'} is another one than this\n  got: {said}\n")
    ):
        train(tmp_path, epochs=1, **change)


def test_another_seed_is_refused(tmp_path):
    train(tmp_path, epochs=1, seed=5)
    with pytest.raises(CheckpointError, match=r"has another seed\n  got: seed=6\n  expected: seed=5, or none"):
        train(tmp_path, epochs=1, seed=6)
    assert train(tmp_path, epochs=1, seed=5)[0].epochs == 1


def test_another_model_is_refused_by_name(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=f"the weights in {tmp_path / 'last.pt'} do not fit the model"):
        fit(nn.Linear(4, 3), data(), epochs=2, accumulate=2, resume=tmp_path / "last.pt", progress=False)


def test_another_optimizer_is_refused_by_name(tmp_path):
    train(tmp_path, epochs=1)

    def pair(parameters):
        return [torch.optim.SGD(parameters[:2]), torch.optim.SGD(parameters[2:])]

    with pytest.raises(CheckpointError, match="optimizer: AdamW then, SGD, SGD now"):
        train(tmp_path, optimizer=pair)


def test_a_newer_format_and_plain_weights_are_refused_by_name(tmp_path):
    from cvkit.training import save_checkpoint

    train(tmp_path / "a", epochs=1)
    content = load_checkpoint(tmp_path / "a" / "last.pt")
    newer = save_checkpoint(tmp_path / "newer.pt", content | {"format": 99})
    with pytest.raises(CheckpointError, match=f"^{newer} is of another format\n  got: format 99"):
        train(tmp_path / "b", resume=newer)
    weights = save_checkpoint(tmp_path / "weights.pt", {"model": content["model"]})
    with pytest.raises(CheckpointError, match=f"^{weights} holds no training state"):
        train(tmp_path / "b", resume=weights)


class Script(Callback):
    """Logs values that were written beforehand."""

    def __init__(self, values):
        self.values = values

    def on_validation_end(self, state):
        state.logs["val_loss"] = self.values[state.epoch]


def test_the_best_survives_a_resume(tmp_path):
    values = [3.0, 1.0, 2.0, 1.5, 0.5]
    result, _ = train(tmp_path, Script(values), epochs=2, schedule=None)
    assert load_checkpoint(result.best_checkpoint)["training"]["epoch"] == 2
    train(tmp_path, Script(values), epochs=4, schedule=None)
    assert load_checkpoint(tmp_path / "best.pt")["training"]["epoch"] == 2, "a worse epoch wrote over the best"
    train(tmp_path, Script(values), epochs=5, schedule=None)
    assert load_checkpoint(tmp_path / "best.pt")["training"]["epoch"] == 5


def test_random_numbers_of_every_kind_are_those_of_the_undisturbed_run(tmp_path):
    class Draws(Callback):
        def __init__(self):
            self.drawn = []

        def on_batch_start(self, state):
            self.drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))

        def state_dict(self):
            return {"drawn": [list(one) for one in self.drawn]}

        def load_state_dict(self, state):
            self.drawn = [tuple(one) for one in state["drawn"]]

    undisturbed, one, two = Draws(), Draws(), Draws()
    train(tmp_path / "a", undisturbed)
    train(tmp_path / "b", one, Keeps("on_batch_end", stop_at(4)))
    train(tmp_path / "b", two)
    assert one.drawn == undisturbed.drawn[:4]
    assert two.drawn == undisturbed.drawn


def test_a_monitor_that_is_never_logged_is_refused_before_training(tmp_path):
    batches = Keeps("on_batch_start", lambda state, calls: pytest.fail("trained"))
    with pytest.raises(UnknownNameError, match="did you mean 'val_accuracy'") as caught:
        train(tmp_path, batches, checkpoint=Checkpoint(tmp_path, monitor="val_acuracy"))
    assert str(caught.value).startswith("unknown logged value for monitor 'val_acuracy'\n")


def test_a_batch_that_is_left_out_whole_does_not_shift_the_place_to_go_on_from(tmp_path):
    from cvkit.data import FolderDataset, Loader, write_shapes
    from cvkit.transforms import small_image_train

    root = write_shapes(tmp_path / "data", 6, 16)
    for number in (2, 3):
        (root / "circle" / f"{number:04d}.png").write_bytes(b"no image")

    class Stop:
        def on_batch_end(self, state):
            if state.step == 3:
                state.request_stop("enough")

    def run(where, *more):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
        loader = Loader(FolderDataset(root, on_error="skip"), 2, transform=small_image_train(16), workers=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CvkitWarning)
            callbacks = [Checkpoint(where, monitor=None), *more]
            return fit(model, loader, epochs=1, resume=True, progress=False, callbacks=callbacks)

    whole = run(tmp_path / "a")
    run(tmp_path / "b", Stop())
    resumed = run(tmp_path / "b")
    assert (whole.steps, resumed.steps) == (8, 8)
    assert_same(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))


class Holes:
    """A loader of batches of which some samples cannot be read, as one with ``on_error="skip"`` tells of it."""

    def __init__(self, holes):
        self.holes, self.skipped = holes, {}

    def __len__(self):
        return 4

    def __iter__(self):
        for place in range(4):
            if place in self.holes:
                self.skipped[place] = f"image {place}.png cannot be decoded\n  got: 3 bytes"
            yield torch.ones(2, 4) * place, torch.tensor([0, 1])


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_samples_that_were_left_out_are_counted_over_the_whole_run(tmp_path, stop, same):
    def run(directory, stop=None):
        loader = Holes({0, 3})
        torch.manual_seed(0)
        ends = Keeps("on_batch_end", lambda state, calls: state.request_stop("enough") if state.step == stop else None)
        return fit(
            network(), loader, loader if same else Holes({2}), epochs=2, resume=True, progress=False, preflight=False,
            device="cpu", callbacks=[ends, Checkpoint(directory)],
        )  # fmt: skip

    message = r"samples were left out because they cannot be read, e.g. image \d.png cannot be decoded$"
    with pytest.warns(CvkitWarning, match=f"^{2 if same else 3} {message}"):
        assert run(tmp_path / "a").skipped == (2 if same else 3)
    with pytest.warns(CvkitWarning, match=message):
        run(tmp_path / "b", stop)
    with pytest.warns(CvkitWarning, match=f"^{2 if same else 3} {message}"):
        assert run(tmp_path / "b").skipped == (2 if same else 3)


def test_a_run_that_was_over_when_it_is_resumed_still_tells_what_was_left_out(tmp_path):
    def run():
        return fit(
            network(), Holes({1}), epochs=1, resume=True, progress=False, preflight=False, device="cpu",
            callbacks=[Checkpoint(tmp_path, monitor=None)],
        ).skipped  # fmt: skip

    for _ in range(2):
        with pytest.warns(CvkitWarning, match="^1 samples were left out"):
            assert run() == 1


def test_a_file_that_does_not_tell_what_was_left_out_is_continued(tmp_path):
    def run(epochs, holes):
        return fit(
            network(), Holes(holes), epochs=epochs, resume=True, progress=False, preflight=False, device="cpu",
            callbacks=[Checkpoint(tmp_path, monitor=None)],
        ).skipped  # fmt: skip

    run(1, ())
    content = load_checkpoint(tmp_path / "last.pt")
    del content["training"]["skipped"]
    save_checkpoint(tmp_path / "last.pt", content)
    assert run(2, ()) == 0
