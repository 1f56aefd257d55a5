"""A full disk: whichever file of a run it meets, the error names it and says what to do."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from cvkit.callbacks import Checkpoint, CSVLogger, TensorBoard
from cvkit.callbacks.tensorboard import projector
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.serialization import directory_lock
from cvkit.serialization.directory_lock import NAME, locked_directory
from cvkit.training import Callback, fit, load_checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths and /dev/full of POSIX")

FULL = "  got: OSError: [Errno 28] No space left on device"
FIX = "  fix: see whether the disk is full or the directory is read-only, then run again with resume=True"
EXPECTED = "  expected: a disk that takes the run's files; the checkpoints that are there are whole"


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Fill(Callback):
    """Fills the disk at a hook of the run."""

    def __init__(self, hook, do, order=0):
        self.order = order
        setattr(self, hook, do)

    def on_fit_start(self, state):
        """Makes a callback of it."""


def train(*callbacks, **options):
    torch.manual_seed(0)
    batches = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(3)]
    return fit(
        nn.Linear(3, 2),
        batches,
        epochs=2,
        callbacks=callbacks,
        progress=False,
        preflight=False,
        device="cpu",
        **options,
    )


def checkpoint(directory):
    return Checkpoint(directory, monitor=None)


@pytest.mark.parametrize("where", ["directory", "file"])
def test_where_the_directory_or_its_lock_cannot_be_made(tmp_path, monkeypatch, where):
    monkeypatch.setattr(Path, "mkdir", full) if where == "directory" else monkeypatch.setattr(
        directory_lock, "open", full, raising=False
    )
    with pytest.raises(CheckpointError) as caught:
        train(checkpoint(tmp_path / "run"))
    assert str(caught.value).splitlines() == [
        f"cannot write to {tmp_path / 'run'}",
        FULL,
        f"  expected: a directory for the run's files, of which {tmp_path / 'run' / NAME} is the first",
        "  fix: choose another directory, or see whether the disk is full or read-only",
    ]


def test_where_the_lock_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CheckpointError) as caught:
        train(checkpoint(tmp_path))
    assert str(caught.value).splitlines()[:2] == [f"cannot write to {tmp_path}", FULL]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with locked_directory(tmp_path):
        assert (tmp_path / NAME).read_text().startswith(f"process {os.getpid()} on "), (
            "nobody is kept out by what failed"
        )


@pytest.mark.parametrize("background", [False, True])
def test_where_the_first_checkpoint_cannot_be_written(tmp_path, monkeypatch, background):
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as caught:
        train(Checkpoint(tmp_path, monitor=None, background=background))
    assert str(caught.value).splitlines() == [
        f"cannot write the checkpoint {tmp_path / 'last.pt'}",
        FULL,
        "  expected: a directory that takes it; the file before it is not there",
        "  fix: see whether the disk is full or the directory is read-only",
    ]
    assert list(tmp_path.iterdir()) == []


def test_where_an_earlier_state_cannot_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", full)
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: full() if Path(b).name.startswith("step") else replace(a, b))
    with pytest.raises(CheckpointError) as caught:
        train(Checkpoint(tmp_path, monitor=None, keep_last=2))
    said = str(caught.value).splitlines()
    assert said == [f"cannot write the checkpoint {tmp_path / 'step-00000003.pt'}", FULL, EXPECTED, FIX]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert load_checkpoint(tmp_path / "last.pt")["training"]["step"] == 3


def test_where_the_log_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    fill = Fill("on_epoch_end", lambda state: state.epoch == 1 and monkeypatch.setattr(os, "fsync", full))
    with pytest.raises(CheckpointError) as caught:
        train(fill, CSVLogger(path))
    assert str(caught.value).splitlines() == [f"cannot write the log {path}", FULL, EXPECTED, FIX]
    assert len(path.read_text().splitlines()) == 2, "the file before is whole"
    assert [one.name for one in tmp_path.iterdir()] == ["log.csv"]


def test_where_the_lines_of_the_steps_cannot_be_written_all_or_none_are_there(tmp_path, monkeypatch):
    """The disk takes them again later: none is there twice, and none is cut."""

    def fill(state):
        if state.step == 5:
            monkeypatch.setattr(os, "fsync", full)

    def empty(state):
        monkeypatch.undo()

    log, saves = CSVLogger(tmp_path / "log.csv", every_steps=1), Checkpoint(tmp_path, monitor=None, every_steps=5)
    with pytest.raises(CheckpointError) as caught:
        train(log, Fill("on_batch_end", fill), saves, Fill("on_exception", empty, order=2))
    steps = tmp_path / "log-steps.csv"
    assert str(caught.value).splitlines() == [f"cannot write the log {steps}", FULL, EXPECTED, FIX]
    assert [line.split(",")[1] for line in steps.read_text().splitlines()] == ["step", "1", "2", "3", "4", "5"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_where_the_device_itself_says_that_it_is_full(tmp_path):
    def swap(state):
        (tmp_path / "log-steps.csv").unlink()
        (tmp_path / "log-steps.csv").symlink_to("/dev/full")

    with pytest.raises(CheckpointError) as caught:
        train(CSVLogger(tmp_path / "log.csv", every_steps=1), Fill("on_epoch_start", swap))
    assert str(caught.value).splitlines() == [f"cannot write the log {tmp_path / 'log-steps.csv'}", FULL, EXPECTED, FIX]


@pytest.mark.parametrize("call", ["_describe", "write_event", "flush", "close"])
def test_where_tensorboards_events_cannot_be_written(tmp_path, monkeypatch, call):
    from tensorboardX.event_file_writer import EventsWriter

    board = TensorBoard(tmp_path / "events", every_steps=1)
    if call == "_describe":  # as it starts
        monkeypatch.setattr(EventsWriter, "flush", full)
        fill = []
    else:
        fill = [Fill("on_epoch_start", lambda state: monkeypatch.setattr(EventsWriter, call, full))]
    with pytest.raises(CheckpointError) as caught:
        train(board, *fill)
    assert str(caught.value).splitlines() == [
        f"cannot write TensorBoard's events in {tmp_path / 'events' / 'train'}",
        FULL,
        EXPECTED,
        FIX,
    ]


def test_where_tensorboards_events_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(ArgumentError) as caught:
        train(TensorBoard(tmp_path / "events"))
    assert str(caught.value).splitlines()[:2] == [
        f"TensorBoard's events cannot be written to {tmp_path / 'events'}",
        FULL,
    ]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^cannot write TensorBoard's events in runs/"):
        train(TensorBoard())


def test_a_full_disk_is_no_image_that_could_not_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(projector, "write", full)
    torch.manual_seed(0)
    batches = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(3)]
    with pytest.raises(CheckpointError) as caught:
        fit(
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), batches, batches, epochs=1, progress=False,
            preflight=False, device="cpu", callbacks=[TensorBoard(tmp_path, embeddings=4)],
        )  # fmt: skip
    assert str(caught.value).splitlines()[:2] == [f"cannot write TensorBoard's embedding in {tmp_path / 'val'}", FULL]
