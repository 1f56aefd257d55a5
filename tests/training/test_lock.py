import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError, CvkitWarning
from cvkit.training import Callback, lock
from cvkit.training.lock import NAME, claimed

HOLD = """
import sys, time
from pathlib import Path
from cvkit.training.lock import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(directory):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def batches():
    return [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(2)]


def train(directory, *extra, **options):
    return cvkit.fit(
        nn.Linear(3, 2), batches(), epochs=1, progress=False,
        callbacks=[*extra, Checkpoint(directory, monitor="train_loss")], **options,
    )  # fmt: skip


def test_another_process_is_kept_out_and_told_of_and_let_in_once_the_holder_is_killed(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(CheckpointError) as caught:
            train(tmp_path, resume=True)
        said = str(caught.value)
        assert said.startswith(f"another run is at work in {tmp_path}\n  got: a lock of process {process.pid} on ")
        assert said.endswith("fix: wait for it, stop it, or choose another directory")
        assert not (tmp_path / "last.pt").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert (tmp_path / NAME).exists()
    train(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_two_runs_of_one_process_are_kept_apart(tmp_path):
    class Again(Callback):
        def on_batch_end(self, state):
            train(tmp_path)

    with pytest.raises(CheckpointError, match="got: a lock of this process"):
        train(tmp_path, Again())
    train(tmp_path, resume=True)


def test_it_is_given_back_after_an_error_and_other_directories_are_free(tmp_path):
    with pytest.raises(ValueError, match="inside"), claimed(tmp_path / "a"), claimed(tmp_path / "b"):
        raise ValueError("inside")
    with claimed(tmp_path / "a"), claimed(tmp_path / "b"):
        assert (tmp_path / "a" / NAME).read_text().startswith(f"process {os.getpid()} on ")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_that_outlives_a_killed_run_keeps_nobody_out(tmp_path):
    code = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from cvkit.training.lock import claimed
        with claimed(Path(sys.argv[1])):
            if os.fork() == 0:
                time.sleep(60)
            print("held", flush=True)
            time.sleep(60)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with claimed(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_a_file_system_without_locks_is_told_and_the_run_goes_on(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(lock, "_take", refuse)
    with pytest.warns(
        CvkitWarning, match="has no locks .Operation not supported.: see to it that no other run writes there"
    ):
        train(tmp_path)


def test_a_lock_that_is_removed_while_another_waits_is_not_held_by_both(tmp_path, monkeypatch):
    """The holder removes its file as it leaves: whoever has opened that file must not take it for the lock."""
    opened, times = lock._opened, []

    def late(directory):
        file = opened(directory)
        if not times:
            (directory / NAME).unlink()
        times.append(time.monotonic())
        return file

    monkeypatch.setattr(lock, "_opened", late)
    with claimed(tmp_path):
        assert len(times) == 2
        assert (tmp_path / NAME).exists()


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_takes_no_file_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=f"^cannot write to {tmp_path}"), claimed(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match=r"^cannot write to .*file/run\n  got: NotADirectoryError"),
        claimed(tmp_path / "file" / "run"),
    ):
        pass


def test_a_holder_whose_name_cannot_be_read_is_another_process(tmp_path, monkeypatch):
    class Locked:  # as on Windows, where the locked part of a file cannot be read
        def seek(self, place):
            return place

        def read(self):
            raise PermissionError(errno.EACCES, "Permission denied")

    def taken(file):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(lock, "_take", taken)
    with pytest.raises(CheckpointError) as caught:
        lock._lock(Locked(), tmp_path)
    assert "  got: a lock of another process\n" in str(caught.value)
