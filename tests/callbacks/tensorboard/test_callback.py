"""TensorBoard: what is written is read back by TensorBoard's own reader, each step once."""

import socket
import time

import pytest

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cvkit.callbacks import Checkpoint, TensorBoard
from cvkit.errors import ArgumentError

STEP = {f"step/{name}" for name in ("loss", "lr", "gradient_norm", "images_per_second")} | {"memory/process_MiB"}


def read(directory):
    """Returns {tag: [(step, value), …]} as TensorBoard shows it."""
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def close(points, wanted):
    assert [step for step, _ in points] == [step for step, _ in wanted]
    assert [value for _, value in points] == pytest.approx([value for _, value in wanted], rel=1e-6)


def test_training_and_validation_are_two_runs_that_share_their_tags(tiny, tmp_path):
    losses = []
    keep = tiny.Do("on_batch_end", lambda state, calls: losses.append((state.step, state.loss.item())))
    result = tiny.run(keep, TensorBoard(tmp_path, every_steps=2), epochs=2)
    train, val = read(tmp_path / "train"), read(tmp_path / "val")
    assert set(train) == {"loss", "accuracy", "lr", "step/epoch", *STEP}
    assert set(val) == {"loss", "accuracy"}
    steps = result.history["step"]
    for phase, name in ((train, "train"), (val, "val")):
        for tag in ("loss", "accuracy"):
            close(phase[tag], list(zip(steps, result.history[f"{name}_{tag}"], strict=True)))
    close(train["lr"], [(4, 1e-3), (8, 1e-3)])
    close(train["step/epoch"], [(4, 1), (8, 2)])
    close(train["step/loss"], [one for one in losses if one[0] % 2 == 0])
    close(train["step/lr"], [(step, 1e-3) for step in (2, 4, 6, 8)])


def test_without_validation_there_is_one_run(tiny, tmp_path):
    tiny.run(TensorBoard(tmp_path), val=False)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_points_are_counted_in_updates(tiny, tmp_path):
    tiny.run(TensorBoard(tmp_path, every_steps=1), epochs=1, accumulate=2)
    assert [step for step, _ in read(tmp_path / "train")["step/loss"]] == [1, 2]


def test_what_other_callbacks_log_is_written(tiny, tmp_path):
    extra = tiny.Do("on_validation_end", lambda state, calls: state.logs.update(val_dice=0.5, ema=0.25))
    tiny.run(extra, TensorBoard(tmp_path), epochs=1)
    assert read(tmp_path / "val")["dice"] == [(4, 0.5)]
    assert read(tmp_path / "train")["ema"] == [(4, 0.25)]


class Seconds:
    """A clock for the names of event files, which count in seconds; each run gets a later one."""

    def __init__(self, monkeypatch):
        from tensorboardX import event_file_writer

        class Time:
            now = 1_700_000_000.0

            def time(self):
                self.now += 1e-4
                return self.now

        self.time = Time()
        monkeypatch.setattr(event_file_writer, "time", self.time)

    def pass_(self):
        self.time.now += 5


def resumed(tiny, directory, batch, hook="on_batch_end", seconds=None, **kwargs):
    """Runs until an error at some batch, and then again to the end."""

    def fail(state, calls):
        if calls == batch:
            raise RuntimeError("power cut")

    def callbacks():
        return [TensorBoard(directory / "tb", every_steps=1), Checkpoint(directory, **kwargs)]

    with pytest.raises(RuntimeError):
        tiny.run(*callbacks(), tiny.Do(hook, fail, order=1), epochs=3, resume=True)
    if seconds is not None:
        seconds.pass_()
    return tiny.run(*callbacks(), epochs=3, resume=True)


@pytest.mark.parametrize(
    ("batch", "every_steps"), [(1, None), (3, None), (5, None), (7, None), (11, None), (7, 3), (8, 3), (2, 1)]
)
def test_after_a_resume_every_step_is_there_once(tiny, tmp_path, monkeypatch, batch, every_steps):
    seconds = Seconds(monkeypatch)
    result = resumed(tiny, tmp_path, batch, seconds=seconds, every_steps=every_steps)
    train, val = read(tmp_path / "tb" / "train"), read(tmp_path / "tb" / "val")
    assert [step for step, _ in train["step/loss"]] == list(range(1, 13))
    assert [step for step, _ in train["loss"]] == [4, 8, 12]
    close(val["loss"], list(zip(result.history["step"], result.history["val_loss"], strict=True)))


def test_rows_beyond_the_checkpoint_are_purged(tiny, tmp_path, monkeypatch):
    result = resumed(tiny, tmp_path, 3, "on_epoch_end", seconds=Seconds(monkeypatch), every_epochs=2)
    close(read(tmp_path / "tb" / "val")["loss"], list(zip([4, 8, 12], result.history["val_loss"], strict=True)))


def test_a_resume_within_the_same_second_loses_no_point(tiny, tmp_path, monkeypatch):
    Seconds(monkeypatch)  # stands still: the event files' names count in seconds
    resumed(tiny, tmp_path, 6)
    assert [step for step, _ in read(tmp_path / "tb" / "train")["step/loss"]] == list(range(1, 13))
    assert [step for step, _ in read(tmp_path / "tb" / "val")["loss"]] == [4, 8, 12]


def test_more_epochs_go_on_in_the_same_curves(tiny, tmp_path, monkeypatch):
    seconds = Seconds(monkeypatch)
    for epochs in (1, 2, 2, 3):
        tiny.run(TensorBoard(tmp_path / "tb"), Checkpoint(tmp_path), epochs=epochs, resume=True)
        seconds.pass_()
    assert [step for step, _ in read(tmp_path / "tb" / "train")["loss"]] == [4, 8, 12]


def test_the_points_are_on_disk_before_the_checkpoint(tiny, tmp_path, monkeypatch):
    from tensorboardX.event_file_writer import EventsWriter

    counts, write = [], EventsWriter.write_event

    def slow(self, event):  # events are written by a thread of their own; here it is always late
        time.sleep(0.01)
        return write(self, event)

    monkeypatch.setattr(EventsWriter, "write_event", slow)

    def look(state, calls):
        if (tmp_path / "last.pt").exists():
            counts.append((calls, len(read(tmp_path / "tb" / "train").get("step/loss", []))))

    tiny.run(
        TensorBoard(tmp_path / "tb", every_steps=1),
        Checkpoint(tmp_path, every_steps=2),
        tiny.Do("on_batch_start", look),
        epochs=1,
    )
    assert counts == [(3, 2), (4, 2)]


def test_another_runs_events_are_refused(tiny, tmp_path):
    tiny.run(TensorBoard(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*")}
    with pytest.raises(ArgumentError) as caught:
        tiny.run(TensorBoard(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} already holds a run's TensorBoard events\n"
        f"  got: 2 event files, e.g. {min(before).name}\n"
        "  expected: a directory of its own for each run, or the curves overlap\n"
        "  fix: choose another directory, or delete this one, or resume the run"
    )
    assert socket.gethostname() in min(before).name
    assert {path: path.read_bytes() for path in tmp_path.glob("*/*")} == before


def test_the_run_and_its_events_may_share_a_directory(tiny, tmp_path):
    result = tiny.run(TensorBoard(tmp_path), Checkpoint(tmp_path), epochs=1)
    assert result.last_checkpoint == tmp_path / "last.pt"


def test_the_files_are_closed_after_an_error(tiny, tmp_path):
    def fail(state, calls):
        if calls == 3:
            raise RuntimeError("no")

    board = TensorBoard(tmp_path, every_steps=1)
    with pytest.raises(RuntimeError):
        tiny.run(board, tiny.Do("on_batch_end", fail, order=1))
    assert board._sink is None
    assert [step for step, _ in read(tmp_path / "train")["step/loss"]] == [1, 2, 3]


def test_every_steps_below_one_is_refused(tmp_path):
    with pytest.raises(ArgumentError) as caught:
        TensorBoard(tmp_path, every_steps=0)
    assert str(caught.value) == "every_steps cannot be used\n  got: 0\n  expected: at least 1\n  fix: every_steps=50"
