"""CSVLogger: one line an epoch, none twice."""

import csv
import os
import signal
from pathlib import Path

import pytest

from cvkit.callbacks import Checkpoint, CSVLogger
from cvkit.errors import ArgumentError, CheckpointError, CvkitError


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_file_is_the_history(tiny, tmp_path):
    result = tiny.run(CSVLogger(tmp_path / "deep" / "log.csv"), epochs=3)
    read = [{name: float(value) for name, value in line.items()} for line in lines(tmp_path / "deep" / "log.csv")]
    assert read == [dict(row) for row in result.history]
    assert (tmp_path / "deep" / "log.csv").read_text() == result.history.to_csv()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["log.csv"]


def test_the_file_is_whole_after_each_epoch(tiny, tmp_path):
    path, seen = tmp_path / "log.csv", []
    look = tiny.Do("on_epoch_start", lambda state, calls: seen.append(len(lines(path)) if path.exists() else None))
    tiny.run(CSVLogger(path), look, epochs=3)
    assert seen == [None, 1, 2]


@pytest.mark.parametrize("batch", [2, 4, 6, 8, 10])
def test_after_a_resume_no_line_is_there_twice(tiny, tmp_path, batch):
    def fail(state, calls):
        if calls == batch:
            raise RuntimeError("power cut")

    def callbacks(where):
        return [CSVLogger(tmp_path / where / "log.csv"), Checkpoint(tmp_path / where, every_steps=3)]

    tiny.run(*callbacks("a"), epochs=3)
    with pytest.raises(RuntimeError):
        tiny.run(*callbacks("b"), tiny.Do("on_batch_end", fail), epochs=3, resume=True)
    tiny.run(*callbacks("b"), epochs=3, resume=True)
    assert (tmp_path / "b" / "log.csv").read_text() == (tmp_path / "a" / "log.csv").read_text()


def test_lines_that_the_killed_run_wrote_beyond_its_checkpoint_are_replaced(tiny, tmp_path):
    def callbacks():
        return [CSVLogger(tmp_path / "log.csv"), Checkpoint(tmp_path, every_epochs=2)]

    def fail(state, calls):
        if calls == 3:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        tiny.run(*callbacks(), tiny.Do("on_epoch_end", fail, order=1), epochs=4, resume=True)
    assert [line["epoch"] for line in lines(tmp_path / "log.csv")] == ["1", "2", "3"]
    tiny.run(*callbacks(), epochs=4, resume=True)
    assert [line["epoch"] for line in lines(tmp_path / "log.csv")] == ["1", "2", "3", "4"]


def test_a_path_that_cannot_be_written_is_refused_before_training(tiny, tmp_path):
    (tmp_path / "runs").write_text("a file")
    steps = []
    look = tiny.Do("on_batch_end", lambda state, n: steps.append(n))
    with pytest.raises(ArgumentError, match=r"cannot be written\n  got: a directory\n.*\n  fix: CSVLogger"):
        tiny.run(CSVLogger(tmp_path), look)
    with pytest.raises(ArgumentError, match=r"(?s)cannot be written.*got: (FileExists|NotADirectory)Error"):
        tiny.run(CSVLogger(tmp_path / "runs" / "log.csv"), look)
    assert steps == []


def test_another_runs_file_is_not_written_over(tiny, tmp_path):
    path = tmp_path / "log.csv"
    tiny.run(CSVLogger(path))
    before = path.read_text()
    with pytest.raises(ArgumentError) as caught:
        tiny.run(CSVLogger(path))
    assert str(caught.value) == (
        f"{path} already holds a run\n"
        "  got: 3 lines\n"
        "  expected: a new file, for a new run\n"
        "  fix: choose another path, or delete the file, or resume the run"
    )
    assert path.read_text() == before


@pytest.mark.parametrize("resume", ["", None])
def test_another_runs_file_is_not_written_over_by_an_empty_resume(tiny, tmp_path, resume):
    path = tmp_path / "log.csv"
    tiny.run(CSVLogger(path), epochs=3)
    before = path.read_text()
    with pytest.raises(CvkitError):
        tiny.run(CSVLogger(path), epochs=1, resume=resume)
    assert path.read_text() == before


def test_a_write_that_fails_leaves_the_old_file(tiny, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    path = tmp_path / "log.csv"
    tiny.run(CSVLogger(path), Checkpoint(tmp_path), epochs=1)
    before = path.read_text()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match=r"^cannot write the log (?s:.*)in callback CSVLogger\.on_epoch_end"):
        tiny.run(CSVLogger(path), Checkpoint(tmp_path), epochs=2, resume=True)
    assert path.read_text() == before


def test_what_other_callbacks_log_is_a_column(tiny, tmp_path):
    tiny.run(
        CSVLogger(tmp_path / "log.csv"), tiny.Do("on_validation_end", lambda state, n: state.logs.update(extra=7.5))
    )
    assert [line["extra"] for line in lines(tmp_path / "log.csv")] == ["7.5", "7.5"]


def test_what_is_logged_later_is_a_column_that_is_empty_before(tiny, tmp_path):
    def callbacks():
        return [CSVLogger(tmp_path / "log.csv"), Checkpoint(tmp_path / "own")]

    late = tiny.Do("on_validation_end", lambda state, n: state.logs.update(extra=7.5))
    tiny.run(*callbacks(), epochs=1, resume=True)
    tiny.run(*callbacks(), late, epochs=3, resume=True)
    tiny.run(*callbacks(), epochs=4, resume=True)
    found = lines(tmp_path / "log.csv")
    assert [line["epoch"] for line in found] == ["1", "2", "3", "4"]
    assert [line["extra"] for line in found] == ["", "7.5", "7.5", ""]


def test_what_was_written_has_reached_the_disk(tiny, tmp_path, monkeypatch):
    """The content before the file gets its name, and the name after it."""
    done, fsync, replace = [], os.fsync, Path.replace

    def sync(descriptor):
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("replace"), replace(self, target)))
    tiny.run(CSVLogger(tmp_path / "log.csv"), epochs=1)
    assert done == ["sync .log.csv.tmp", "replace", f"sync {tmp_path.name}"]


def killed(run):
    """Runs a function in a process that is killed by it."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("hook", ["on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("order", [0, 3])
@pytest.mark.parametrize("call", [1, 3])
def test_a_run_that_is_killed_and_run_again_has_the_files_of_one_that_was_not(tiny, tmp_path, hook, order, call):
    def callbacks(where):
        log = CSVLogger(tmp_path / where / "log.csv", every_steps=1)
        return [log, Checkpoint(tmp_path / where / "own", every_steps=3)]

    def kill(state, calls):
        if calls == call * (3 if hook == "on_batch_end" else 1):
            os.kill(os.getpid(), signal.SIGKILL)

    killed(lambda: tiny.run(*callbacks("b"), tiny.Do(hook, kill, order=order), epochs=3, resume=True))
    for where in "ab":
        tiny.run(*callbacks(where), epochs=3, resume=True)
    for name in ("log.csv", "log-steps.csv"):
        assert (tmp_path / "b" / name).read_text() == (tmp_path / "a" / name).read_text()
    assert len(lines(tmp_path / "a" / "log-steps.csv")) == 12


# --- the steps


@pytest.mark.parametrize(("every", "accumulate", "steps"), [(1, 1, range(1, 9)), (3, 1, [3, 6]), (2, 2, [2, 4])])
def test_the_steps_have_a_file_of_their_own(tiny, tmp_path, every, accumulate, steps):
    seen = {}
    look = tiny.Do("on_batch_end", lambda state, calls: seen.update({state.step: (float(state.loss), state.lr)}))
    logger = CSVLogger(tmp_path / "log.csv", every_steps=every)
    tiny.run(look, logger, accumulate=accumulate, schedule="cosine")
    found = lines(logger.steps_path)
    assert logger.steps_path.name == "log-steps.csv"
    assert [int(line["step"]) for line in found] == list(steps)
    assert list(found[0]) == ["epoch", "step", "train_loss", "lr"]
    for line in found:
        assert int(line["epoch"]) == (int(line["step"]) - 1) // (4 // accumulate) + 1
        if accumulate == 1:
            assert (float(line["train_loss"]), float(line["lr"])) == seen[int(line["step"])]
    assert not (tmp_path / "other-steps.csv").exists()


def test_without_them_there_is_no_such_file(tiny, tmp_path):
    tiny.run(CSVLogger(tmp_path / "log.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("torn", ["", "1,4", "1,4,0.5,0.0", '1,4,"', "\n"])
def test_a_line_that_was_cut_off_is_taken_out(tiny, tmp_path, torn):
    def command(**options):
        logger = CSVLogger(tmp_path / "log.csv", every_steps=1)
        return tiny.run(logger, Checkpoint(tmp_path / "own"), resume=True, **options)

    command(epochs=1)
    path = tmp_path / "log-steps.csv"
    before = path.read_text()
    path.write_text(before.removesuffix("\n") if torn == "\n" else before + torn)
    command(epochs=2)
    assert [line["step"] for line in lines(path)] == [str(step) for step in range(1, 9) if step != 4 or torn != "\n"]


def test_another_runs_steps_are_not_written_over(tiny, tmp_path):
    (tmp_path / "log-steps.csv").write_text("epoch,step,train_loss,lr\n")
    with pytest.raises(ArgumentError, match=r"log-steps\.csv already holds a run"):
        tiny.run(CSVLogger(tmp_path / "log.csv", every_steps=1))
    tiny.run(CSVLogger(tmp_path / "log.csv"))


@pytest.mark.parametrize("value", [0, -1, True])
def test_a_number_of_steps_that_cannot_work_is_refused(tmp_path, value):
    with pytest.raises(ArgumentError) as caught:
        CSVLogger(tmp_path / "log.csv", every_steps=value)
    assert str(caught.value) == (
        "every_steps cannot be used\n"
        f"  got: {value!r}\n"
        "  expected: an integer of at least 1, or None\n"
        "  fix: CSVLogger(path, every_steps=50)"
    )
