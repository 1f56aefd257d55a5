"""Progress: a bar in a terminal, lines elsewhere, never more than ten refreshes a second, a table at the end."""

import contextlib
import errno
import fcntl
import io
import itertools
import math
import os
import pty
import re
import struct
import sys
import termios
import threading

import pytest
import torch
from torch import nn

from cvkit.callbacks import Checkpoint, EarlyStopping, Progress
from cvkit.callbacks import progress as progress_
from cvkit.errors import CvkitWarning
from cvkit.metrics.async_scalars import WeightedSum
from cvkit.training import evaluate


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it, and when."""

    def __init__(self, tty=True, clock=None, encoding=None):
        super().__init__()
        self.tty, self.clock, self.shown, self._encoding = tty, clock, [], encoding

    encoding = property(lambda self: self._encoding)

    def isatty(self):
        return self.tty

    def write(self, text):
        if "%|" in text:  # a bar, not its removal
            self.shown.append((self.clock.now if self.clock else None, text.strip("\r")))
        return super().write(text)


class Clock:
    """A clock that goes on by itself, a given time each look."""

    def __init__(self, tick):
        self.now, self.tick = 100.0, tick

    def perf_counter(self):
        self.now += self.tick
        return self.now


@pytest.fixture
def clock(monkeypatch):
    def install(tick):
        made = Clock(tick)
        monkeypatch.setattr(progress_, "time", made)
        return made

    return install


VALUES = r"train_loss [\d.]+  train_accuracy [\d.]+  val_loss [\d.]+  val_accuracy [\d.]+  lr 0.001"
LINE = rf"epoch {{}}/2  {VALUES}  \d+\.\d s  [\d.,]+ samples/s"


def lines_of(out):
    return out.getvalue().splitlines()


def test_elsewhere_there_is_one_line_an_epoch(tiny):
    out = Terminal(False)
    tiny.run(Progress(file=out, table=False))
    first, second = lines_of(out)
    assert re.fullmatch(LINE.format(1) + r"  0:0\d left", first), first
    assert re.fullmatch(LINE.format(2), second), second
    assert "\r" not in out.getvalue()


def test_in_a_terminal_there_is_a_bar_that_goes_and_a_line_that_stays(tiny, clock):
    clock(0.06)
    out = Terminal()
    tiny.run(Progress(file=out, table=False))
    text = out.getvalue()
    assert "epoch 1/2:" in text
    stays = [part for part in re.split(r"[\r\n]", text) if re.match(r"epoch \d/2  train_loss", part)]
    assert len(stays) == 2
    # what is under the line is blanks: the bar was taken away first
    assert re.search(r"\r +\repoch 1/2  train_loss", text)


@pytest.mark.parametrize(("tty", "bar"), [(True, False), (False, True)])
def test_the_bar_can_be_asked_for_and_sent_away(tiny, tty, bar):
    out = Terminal(tty)
    tiny.run(Progress(file=out, bar=bar))
    assert ("\r" in out.getvalue()) == bar


@pytest.mark.parametrize("every", [0.1, 0.0, 0.001, 0.5])
@pytest.mark.parametrize("tick", [0.0003, 0.004, 0.03])
def test_the_bar_is_refreshed_at_most_ten_times_a_second(tiny, clock, every, tick):
    """Also over many short epochs, and in validations."""
    out = Terminal(clock=clock(tick))
    begun = out.clock.now
    tiny.run(Progress(file=out, every=every), epochs=20)
    times = [time for time, _ in out.shown]
    assert times, "the first is shown at once"
    # one look at the clock lies between the decision to show and the showing
    assert all(b - a >= max(every, 0.1) - 2 * tick - 1e-9 for a, b in itertools.pairwise(times))
    assert len(times) <= (out.clock.now - begun) * 10 + 1
    assert len(times) >= (out.clock.now - begun) / max(every, 0.1) / 3


def test_what_stands_beside_the_bar(tiny, clock):
    clock(0.5)
    out = Terminal()
    tiny.run(Progress(file=out), epochs=3)
    bars = [text for _, text in out.shown]
    assert re.fullmatch(r"epoch 1/3: +0%\|.*\| 0/4", bars[0]), "nothing is known yet"
    known = r"epoch 1/3: +50%\|.*\| 2/4, 0:0\d left, loss [\d.]+, run 0:\d\d, [\d.,]+ samples/s, accuracy [\d.]+"
    assert any(re.fullmatch(known, text) for text in bars), bars
    validating = r"epoch 2/3: +100%\|.*\| 4/4, validating 2/4, 0:0\d left, loss .*, run 0:\d\d, .*"
    assert any(re.fullmatch(validating, text) for text in bars), bars
    assert not any("run" in text for text in bars if text.startswith("epoch 3/3")), "the epoch is all that is left"


def _at(progress, tiny, clock, tick, epochs=4):
    """Runs with a clock that goes on only in the hooks of the bar; returns (position, text) of every refresh."""
    out = Terminal(clock=clock(tick))
    progress.file = out
    tiny.run(progress, epochs=epochs, val=False)
    return out


def test_the_time_left_is_right_where_every_batch_takes_the_same(tiny, clock):
    out = _at(Progress(), tiny, clock, 1.0)
    # each batch is one look at the clock, and so one second; an epoch has two more, at its end and its start
    shown = {re.search(r"epoch (\d)/4: .* (\d)/4,", t).groups(): t for _, t in out.shown if re.search(r" \d/4,", t)}
    left = {at: re.search(r"(\d:\d\d) left", text)[1] for at, text in shown.items() if "left" in text}
    run = {at: re.search(r"run (\d:\d\d)", text)[1] for at, text in shown.items() if "run" in text}
    assert left["1", "1"] == "0:03"
    assert left["1", "3"] == "0:01"
    assert run["1", "2"] == "0:14", "two batches, and three epochs of four"
    # from the second epoch on, what lies between two epochs counts
    assert (left["3", "2"], run["3", "2"]) == ("0:04", "0:10")


def test_the_time_left_is_told_in_lines_too(tiny, clock):
    clock(1.0)
    out = Terminal(False)
    tiny.run(Progress(file=out, table=False), epochs=3, val=False)
    assert [re.search(r"(\d:\d\d) left|$", line)[1] for line in lines_of(out)] == ["0:10", "0:05", None]
    assert all("  5.0 s  2 samples/s" in line for line in lines_of(out)), lines_of(out)


def test_few_samples_a_second_are_told_more_exactly(tiny, clock):
    clock(3.0)
    out = Terminal(False)
    tiny.run(Progress(file=out), epochs=1)
    assert lines_of(out)[0].endswith("  15.0 s  0.67 samples/s")


def test_waiting_for_data_is_told_where_it_matters(tiny, clock):
    clock(1.0)
    out = Terminal(False)
    slow = tiny.Do("on_batch_end", lambda state, calls: setattr(state, "data_seconds", 2.0 if state.epoch else 1.0))
    tiny.run(slow, Progress(file=out, table=False), val=False)
    first, second = lines_of(out)
    assert "data" not in first
    assert "40% of it waiting for data" in second


def test_the_bar_never_waits_for_the_device(tiny, clock, monkeypatch):
    waited, shipped = [], []
    clock(1.0)
    send = WeightedSum.send
    monkeypatch.setattr(WeightedSum, "wait_for_all", lambda self: waited.append(self))
    monkeypatch.setattr(WeightedSum, "send", lambda self: (shipped.append(self), send(self)))
    look = tiny.Do("on_batch_end", lambda state, calls: waited and pytest.fail("it waited"), order=2)
    tiny.run(look, Progress(file=Terminal()), epochs=1, val=False)
    assert len(shipped) >= 8


def test_metrics_that_cannot_be_told_without_waiting_are_left_to_the_line(tiny, clock):
    class Slow:
        name = "slow"

        def update(self, outputs, targets):
            pass

        def compute(self):
            return 7.0

        def reset(self):
            pass

    clock(1.0)
    out = Terminal()
    tiny.run(Progress(file=out), epochs=1, metrics=[Slow()])
    assert not any("slow" in text for _, text in out.shown)
    assert "train_slow 7" in out.getvalue()


def test_nothing_is_shown_without_progress(tiny, capfd):
    tiny.run(progress=False)
    assert capfd.readouterr() == ("", "")


def test_evaluate_shows_nothing(capfd):
    evaluate(nn.Linear(3, 2), [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))], device="cpu")
    assert capfd.readouterr() == ("", "")


def test_fit_shows_progress_by_itself_once(tiny, capfd):
    for callbacks in [], [Progress()]:
        tiny.run(*callbacks, progress=True)
        out, err = capfd.readouterr()
        assert out == ""
        assert len(re.findall(r"^epoch \d/2", err, re.MULTILINE)) == 2


def test_details_of_other_values_stay_in_the_history(tiny):
    out = Terminal(False)
    log = tiny.Do("on_validation_end", lambda state, calls: state.logs.update({"norm": 1.5, "norm/layer1": 2.5}))
    result = tiny.run(log, Progress(file=out))
    assert "norm 1.5" in out.getvalue()
    assert "layer1" not in out.getvalue()
    assert result.history["norm/layer1"] == [2.5, 2.5]


# --- the end


def test_the_table_marks_the_best_epoch_and_says_where_the_files_are(tiny, tmp_path):
    out = Terminal(False)
    values = tiny.Logs("val_accuracy", [0.25, 0.75, 0.5])
    tiny.run(values, Checkpoint(tmp_path, monitor="val_accuracy"), Progress(file=out), epochs=3)
    head, *rows = lines_of(out)[3:7]
    assert head.split() == ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    assert [row[0] for row in rows] == [" ", "*", " "]
    assert [row.lstrip("*").split()[0] for row in rows] == ["1", "2", "3"]
    assert len({len(line) for line in (head, *rows)}) == 1
    total, *where = lines_of(out)[7:]
    assert re.fullmatch(r"3 epochs, 12 steps, 0:0\d; \* best val_accuracy", total)
    assert where == [f"best: {tmp_path / 'best.pt'}", f"last: {tmp_path / 'last.pt'}"]


@pytest.mark.parametrize(("val", "watched"), [(True, "val_loss"), (False, "train_loss")])
def test_without_anything_that_watches_the_best_loss_is_marked(tiny, val, watched):
    out = Terminal(False)
    result = tiny.run(Progress(file=out), val=val, epochs=3)
    marked = [line for line in lines_of(out) if line.startswith("*")]
    assert [line.split()[1] for line in marked] == [str(result.history.best(watched)["epoch"])]
    assert lines_of(out)[-1].endswith(f"* best {watched}")


def test_nothing_is_marked_where_nothing_is_finite(tiny):
    out = Terminal(False)
    tiny.run(tiny.Logs("val_loss", [math.nan] * 2), Progress(file=out))
    assert "*" not in out.getvalue()
    assert re.search(r"^2 epochs, 8 steps, 0:0\d$", out.getvalue(), re.MULTILINE)


def test_a_long_run_has_a_short_table(tiny):
    out = Terminal(False)
    losses = [1.0] * 40
    losses[17] = 0.5
    tiny.run(tiny.Logs("val_loss", losses), EarlyStopping(patience=99), Progress(file=out), epochs=40)
    table = lines_of(out)[40:-1]
    assert [line.lstrip("* ").split()[0] for line in table] == [
        *("epoch", "1", "...", "18", "..."),
        *map(str, range(31, 41)),
    ]
    assert [line for line in table if line.startswith("*")] == [table[3]]


def test_one_epoch_needs_no_table(tiny):
    out = Terminal()
    tiny.run(Progress(file=out), epochs=1)
    assert re.search(r"samples/s\n$", out.getvalue())


def test_the_table_can_be_sent_away(tiny):
    out = Terminal(False)
    tiny.run(Progress(file=out, table=False))
    assert len(lines_of(out)) == 2


def test_the_end_of_a_run_that_was_stopped_in_an_epoch_is_told(tiny):
    out = Terminal(False)
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 6 else None)
    tiny.run(stop, Progress(file=out))
    assert lines_of(out)[-1] == "stopped in epoch 2 at step 6: enough"


def test_the_end_of_a_run_that_was_stopped_after_an_epoch_is_told(tiny):
    out = Terminal(False)
    tiny.run(tiny.Logs("val_loss", [1, 2, 3, 4]), EarlyStopping(patience=0), Progress(file=out), epochs=4)
    assert lines_of(out)[2] == "stopped after epoch 2 at step 8: early_stopping"
    assert "left" not in lines_of(out)[1], "the run was to end"


def test_a_resumed_run_says_where_it_goes_on_and_how_much_of_it_was_now(tiny, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 6 else None)
    tiny.run(stop, Checkpoint(tmp_path))
    out = Terminal(False)
    tiny.run(Checkpoint(tmp_path), Progress(file=out), resume=True)
    lines = lines_of(out)
    assert lines[0] == "continuing in epoch 2 of 2, at step 6"
    assert re.match(r"epoch 2/2  train_loss", lines[1])
    assert any(re.fullmatch(r"2 epochs \(1 of them now\), 8 steps, 0:0\d; \* best val_loss", line) for line in lines)
    out = Terminal(False)
    tiny.run(Checkpoint(tmp_path), Progress(file=out), resume=True)
    assert out.getvalue() == "nothing left to do: 2 of 2 epochs are finished\n"


def test_a_resumed_bar_begins_where_the_run_does(tiny, tmp_path, clock):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 2 else None)
    tiny.run(stop, Checkpoint(tmp_path))
    clock(1.0)
    out = Terminal()
    tiny.run(Checkpoint(tmp_path), Progress(file=out), resume=True)
    assert re.fullmatch(r"epoch 1/2: +50%\|.*\| 2/4.*", out.shown[0][1])
    third = next(text for _, text in out.shown if "3/4" in text)
    assert ", 2 samples/s" in third, "the two batches before were not done in this time"
    line = next(part for part in re.split(r"[\r\n]", out.getvalue()) if part.startswith("epoch 1/2  "))
    assert "  2 samples/s  " in line


def test_one_and_the_same_serves_several_fits(tiny, clock):
    clock(1.0)
    out, progress = Terminal(), Progress()
    progress.file = out
    tiny.run(progress)
    first = out.getvalue()
    tiny.run(progress)
    assert out.getvalue() == first + first


# --- terminals as they are


def test_an_error_leaves_no_open_bar(tiny, clock):
    clock(1.0)

    def fail(state, calls):
        raise ValueError("no")

    out = Terminal()
    progress = Progress(file=out)
    with pytest.raises(ValueError, match="no"):
        tiny.run(progress, tiny.Do("on_batch_end", fail))
    assert progress._bar is None
    assert re.search(r"\r +\r$", out.getvalue()), "and no table"


def screen(tiny, width, encoding):
    """Returns what a run writes to a real terminal of a width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    blocks = []

    def read():
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while block := os.read(master, 65536):
                blocks.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding=encoding) as out:
        tiny.run(Progress(file=out))
    reader.join()
    os.close(master)
    return b"".join(blocks).decode()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_nothing_is_wider_than_the_terminal(tiny, clock, width):
    clock(0.06)
    text = screen(tiny, width, "utf-8")
    bars = [part for part in re.split(r"[\r\n]", text) if "%|" in part]
    assert len(bars) > 4
    assert all(len(bar) <= width for bar in bars)
    head, *rows = [line for line in text.splitlines() if re.match(r"[ *] *(epoch|\d)", line)][:3]
    assert all(len(line) <= width for line in (head, *rows))
    names = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    kept = {20: [0, 3], 40: [0, 3, 4], 60: [0, 1, 2, 3, 4]}.get(width, range(6))
    assert head.split() == [names[i] for i in kept], "what matters most stays longest"


def test_a_terminal_that_does_not_say_how_wide_it_is_gets_a_bar_and_the_whole_table(tiny, clock):
    text = screen(tiny, 0, "utf-8")
    assert "epoch 1/2: " in text
    assert "train_loss" in text.split("epoch 2/2")[-1]


def test_a_terminal_that_knows_only_ascii_gets_that(tiny, clock):
    clock(0.06)
    text = screen(tiny, 80, "ascii")
    assert text.isascii()
    assert "%|##" in text


def test_letters_that_the_file_does_not_know_become_question_marks(tiny):
    out = Terminal(False, encoding="ascii")
    tiny.run(tiny.Do("on_validation_end", lambda state, calls: state.logs.update(größe=1.0)), Progress(file=out))
    assert "gr??e 1" in out.getvalue()
    assert out.getvalue().isascii()


@pytest.mark.parametrize("tty", [True, False])
def test_a_terminal_that_goes_away_does_not_end_the_run(tiny, clock, tty):
    clock(1.0)

    class Gone(Terminal):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.warns(
        CvkitWarning, match=r"progress is no longer shown, the run goes on: .*Input/output error"
    ) as said:
        result = tiny.run(Progress(file=Gone(tty)), epochs=3)
    assert result.stop_reason == "finished"
    assert len(said) == 1


@pytest.mark.parametrize("tty", [True, False])
def test_a_file_that_was_closed_does_not_end_the_run(tiny, clock, tty):
    clock(1.0)
    out = Terminal(tty)
    close = tiny.Do("on_batch_end", lambda state, calls: out.close() if calls == 2 else None)
    with pytest.warns(CvkitWarning, match="progress is no longer shown"):
        assert tiny.run(close, Progress(file=out)).stop_reason == "finished"


def test_without_a_standard_error_nothing_is_shown(tiny, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", None)
    assert tiny.run(progress=True).stop_reason == "finished"
    assert capfd.readouterr().out == ""


def test_a_notebook_gets_its_lines_on_standard_output(tiny, monkeypatch, capfd):
    """What is on standard error is shown there as if something were wrong."""
    monkeypatch.setattr(progress_, "_in_notebook", lambda: True)
    tiny.run(Progress(bar=False))
    out, err = capfd.readouterr()
    assert out.startswith("epoch 1/2")
    assert err == ""
