"""CSVLogger: one line an epoch, none twice."""

import csv
from pathlib import Path

import pytest

from cvkit.callbacks import Checkpoint, CSVLogger
from cvkit.errors import ArgumentError, CvkitError


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
    with pytest.raises(OSError, match=r"in callback CSVLogger\.on_epoch_end"):
        tiny.run(CSVLogger(path), Checkpoint(tmp_path), epochs=2, resume=True)
    assert path.read_text() == before


def test_what_other_callbacks_log_is_a_column(tiny, tmp_path):
    tiny.run(
        CSVLogger(tmp_path / "log.csv"), tiny.Do("on_validation_end", lambda state, n: state.logs.update(extra=7.5))
    )
    assert [line["extra"] for line in lines(tmp_path / "log.csv")] == ["7.5", "7.5"]
