"""Progress: a bar in a terminal, lines elsewhere, never more than ten refreshes a second."""

import io
import itertools
import re

import pytest

from cvkit.callbacks import Checkpoint, EarlyStopping, Progress
from cvkit.callbacks import progress as progress_


class Terminal(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


class Clock:
    """A clock that goes on by itself, a given time each look."""

    def __init__(self, tick):
        self.now, self.tick = 100.0, tick

    def perf_counter(self):
        self.now += self.tick
        return self.now

    monotonic = perf_counter


LINE = (
    r"epoch {}/2  train_loss [\d.]+  train_accuracy [\d.]+  val_loss [\d.]+  val_accuracy [\d.]+  lr 0.001  \d+\.\d s"
)


def test_elsewhere_there_is_one_line_an_epoch(tiny):
    out = Terminal(False)
    tiny.run(Progress(file=out))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    for epoch, line in enumerate(lines, 1):
        assert re.fullmatch(LINE.format(epoch), line), line
    assert "\r" not in out.getvalue()


def test_in_a_terminal_there_is_a_bar_that_goes_and_a_line_that_stays(tiny):
    out = Terminal(True)
    tiny.run(Progress(file=out))
    text = out.getvalue()
    assert "\r" in text
    assert "epoch 1/2:" in text
    stays = [part for part in re.split(r"[\r\n]", text) if re.fullmatch(LINE.format(r"\d"), part.strip())]
    assert len(stays) == 2


@pytest.mark.parametrize(("tty", "bar"), [(True, False), (False, True)])
def test_the_bar_can_be_asked_for_and_sent_away(tiny, tty, bar):
    out = Terminal(tty)
    tiny.run(Progress(file=out, bar=bar))
    assert ("\r" in out.getvalue()) == bar


@pytest.mark.parametrize("every", [0.1, 0.0, 0.001])
def test_the_bar_is_refreshed_at_most_ten_times_a_second(tiny, monkeypatch, every):
    clock, refreshes = Clock(0.03), []
    monkeypatch.setattr(progress_, "time", clock)
    progress = Progress(file=Terminal(True), every=every)

    def look(state, calls):
        bar = progress._bar
        if calls == 1:
            update = bar.update
            monkeypatch.setattr(bar, "update", lambda n: (refreshes.append(clock.now), update(n)))

    tiny.run(tiny.Do("on_batch_start", look), progress, epochs=1, val=False)
    assert len(refreshes) == 1, "four batches in 0.12 s"

    refreshes.clear()
    progress.on_epoch_start(state := _state(200))
    monkeypatch.setattr(progress._bar, "update", lambda n: refreshes.append(clock.now))
    begun = clock.now
    for batch in range(200):
        state.batch_index = batch + 1
        progress.on_batch_end(state)
    progress._close()
    assert len(refreshes) >= 40
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(refreshes))
    assert len(refreshes) <= (clock.now - begun) * 10


def _state(batches):
    """As much of a state as the bar looks at."""

    class Losses:
        weight, mean = 1.0, 0.5

        def ship(self):
            pass

    class Anything:
        pass

    state = Anything()
    state.train, state.batch_index, state.epoch, state.epochs = range(batches), 0, 0, 1
    state.train_meters = Anything()
    state.train_meters.losses = Losses()
    return state


def test_the_bar_never_waits_for_the_device(tiny, monkeypatch):
    from cvkit.training.metrics import Tally

    progress, waited = Progress(file=Terminal(True)), []
    monkeypatch.setattr(progress_, "time", Clock(1.0))
    monkeypatch.setattr(Tally, "drain", lambda self: waited.append(self))
    shipped = []
    ship = Tally.ship
    monkeypatch.setattr(Tally, "ship", lambda self: (shipped.append(self), ship(self)))

    def look(state, calls):
        assert waited == []

    tiny.run(tiny.Do("on_batch_end", look, order=2), progress, epochs=1, val=False)
    assert len(shipped) >= 4


def test_nothing_is_shown_without_progress(tiny, capfd):
    tiny.run(progress=False)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_fit_shows_progress_by_itself_once(tiny, capfd):
    tiny.run(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    tiny.run(Progress(), progress=True)
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_the_end_of_a_run_that_was_stopped_in_an_epoch_is_told(tiny):
    out = Terminal(False)
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 6 else None)
    tiny.run(stop, Progress(file=out))
    assert out.getvalue().splitlines()[-1] == "stopped in epoch 2 at step 6: enough"


def test_the_end_of_a_run_that_was_stopped_after_an_epoch_is_told(tiny):
    out = Terminal(False)
    tiny.run(tiny.Logs("val_loss", [1, 2, 3, 4]), EarlyStopping(patience=0), Progress(file=out), epochs=4)
    assert out.getvalue().splitlines()[-1] == "stopped after epoch 2 at step 8: early_stopping"


def test_a_resumed_run_says_where_it_goes_on(tiny, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 6 else None)
    tiny.run(stop, Checkpoint(tmp_path))
    out = Terminal(False)
    tiny.run(Checkpoint(tmp_path), Progress(file=out), resume=True)
    lines = out.getvalue().splitlines()
    assert lines[0] == "continuing in epoch 2 of 2, at step 6"
    assert len(lines) == 2
    out = Terminal(False)
    tiny.run(Checkpoint(tmp_path), Progress(file=out), resume=True)
    assert out.getvalue() == "nothing left to do: 2 of 2 epochs are finished\n"


def test_a_resumed_bar_begins_where_the_run_does(tiny, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 2 else None)
    tiny.run(stop, Checkpoint(tmp_path))
    out = Terminal(True)
    tiny.run(Checkpoint(tmp_path), Progress(file=out), resume=True)
    assert "2/4" in out.getvalue()
    assert "0/4" not in out.getvalue().split("epoch 2/2")[0]


def test_an_error_leaves_no_open_bar(tiny):
    def fail(state, calls):
        raise ValueError("no")

    progress = Progress(file=Terminal(True))
    with pytest.raises(ValueError, match="no"):
        tiny.run(progress, tiny.Do("on_batch_end", fail))
    assert progress._bar is None


def test_the_last_line_ends_the_output(tiny):
    out = Terminal(True)
    tiny.run(Progress(file=out), epochs=1)
    assert out.getvalue().endswith(" s\n")
