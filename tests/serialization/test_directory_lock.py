import errno
import os
import shutil
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
from cvkit.serialization import directory_lock
from cvkit.serialization.directory_lock import NAME, locked_directory
from cvkit.training import Callback

HOLD = """
import sys, time
from pathlib import Path
from cvkit.serialization.directory_lock import locked_directory
with locked_directory(Path(sys.argv[1])):
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
    with pytest.raises(ValueError, match="inside"), locked_directory(tmp_path / "a"), locked_directory(tmp_path / "b"):
        raise ValueError("inside")
    with locked_directory(tmp_path / "a"), locked_directory(tmp_path / "b"):
        assert (tmp_path / "a" / NAME).read_text().startswith(f"process {os.getpid()} on ")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_that_outlives_a_killed_run_keeps_nobody_out(tmp_path):
    code = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from cvkit.serialization.directory_lock import locked_directory
        with locked_directory(Path(sys.argv[1])):
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
        with locked_directory(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def refused(directory):
    """Tells whether a process of its own is kept out."""
    code = "import sys; from pathlib import Path; from cvkit.serialization.directory_lock import locked_directory\nwith locked_directory(Path(sys.argv[1])): pass"
    ended = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True)
    assert ended.returncode == 0 or "another run is at work" in ended.stderr, ended.stderr
    return ended.returncode != 0


def copied(directory):
    shutil.copytree(directory, directory.with_name("copy"))


def opened_and_closed(directory):
    (directory / NAME).read_text()


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
@pytest.mark.parametrize("use", [copied, opened_and_closed])
def test_it_is_kept_when_the_directory_is_copied_during_the_run(tmp_path, use):
    run = tmp_path / "run"

    class Uses(Callback):
        def on_batch_end(self, state):
            if state.step == 1:
                use(run)
                assert refused(run)

    train(run, Uses())
    assert not refused(run)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("leave", ["at once", "through the end of the run"])
def test_it_is_kept_when_a_forked_child_ends(tmp_path, leave):
    code = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from cvkit.serialization.directory_lock import locked_directory
        child = 0
        with locked_directory(Path(sys.argv[1])) as claim:
            child = os.fork()
            if child == 0 and sys.argv[2] == "at once":
                sys.exit()
            if child:
                os.waitpid(child, 0)
                claim.check()
                print("held", flush=True)
                sys.stdin.read()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), leave], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert refused(tmp_path)
    finally:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_kept_out_by_its_parent_as_any_process_is(tmp_path):
    with locked_directory(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                with locked_directory(tmp_path):
                    os._exit(0)
            except CheckpointError as error:
                os._exit(7 if f"process {os.getppid()} on " in str(error) else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def removed(directory):
    shutil.rmtree(directory)


def made_again(directory):
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / NAME).write_text("another run's")


def unlocked(directory):
    (directory / NAME).unlink()


@pytest.mark.skipif(os.name == "nt", reason="an open file stays there")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("change", "there"), [(removed, "no"), (made_again, "another"), (unlocked, "no")])
def test_a_directory_that_is_not_the_runs_any_more_is_noticed_at_the_next_save(tmp_path, change, there, background):
    run = tmp_path / "run"

    class Changes(Callback):
        def on_batch_end(self, state):
            if state.step == 1:
                change(run)

    with pytest.raises(CheckpointError) as caught:
        cvkit.fit(
            nn.Linear(3, 2), batches(), epochs=1, progress=False,
            callbacks=[Changes(), Checkpoint(run, monitor="train_loss", background=background)],
        )  # fmt: skip
    assert str(caught.value) == (
        f"{run} is not this run's directory any more\n"
        f"  got: {there} .lock in it\n"
        "  expected: the .lock that this run made as it began, so that no other run writes there\n"
        "  fix: leave the directory of a run alone while it trains; run it again, with resume=True, to go on from its last "
        "checkpoint, or in another directory"
    )
    assert not (run / "last.pt").exists()
    if change is made_again:
        assert (run / NAME).read_text() == "another run's", "what is another's is not removed"


def test_a_file_system_without_locks_is_told_and_the_run_goes_on(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(directory_lock, "_take", refuse)
    with pytest.warns(
        CvkitWarning, match="has no locks .Operation not supported.: see to it that no other run writes there"
    ):
        train(tmp_path)


def test_a_lock_that_is_removed_while_another_waits_is_not_held_by_both(tmp_path, monkeypatch):
    """The holder removes its file as it leaves: whoever has opened that file must not take it for the lock."""
    opened, times = directory_lock._opened, []

    def late(directory):
        file = opened(directory)
        if not times:
            (directory / NAME).unlink()
        times.append(time.monotonic())
        return file

    monkeypatch.setattr(directory_lock, "_opened", late)
    with locked_directory(tmp_path):
        assert len(times) == 2
        assert (tmp_path / NAME).exists()


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_takes_no_file_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=f"^cannot write to {tmp_path}"), locked_directory(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match=r"^cannot write to .*file/run\n  got: NotADirectoryError"),
        locked_directory(tmp_path / "file" / "run"),
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

    monkeypatch.setattr(directory_lock, "_take", taken)
    with pytest.raises(CheckpointError) as caught:
        directory_lock._lock(Locked(), tmp_path)
    assert "  got: a lock of another process\n" in str(caught.value)
