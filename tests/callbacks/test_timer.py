"""Timer: a run ends when its time is up, and a resumed one goes on counting."""

import pytest

from cvkit.callbacks import Checkpoint, Timer
from cvkit.callbacks import timer as timer_
from cvkit.errors import ArgumentError


class Clock:
    """A clock that stands still unless moved."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(timer_, "time", made)
    return made


@pytest.fixture
def slow(tiny, clock):
    """Makes a callback under which each batch takes so many seconds, and each end of an epoch."""

    def make(batch, end=0.0):
        def go(state, calls):
            clock.now += batch

        def end_epoch(state, calls):
            clock.now += end

        return tiny.Do("on_batch_start", go), tiny.Do("on_validation_end", end_epoch)

    return make


def test_the_run_ends_at_the_update_at_which_its_time_is_up(tiny, slow):
    result = tiny.run(*slow(60), Timer(minutes=6), epochs=9)
    assert (result.stop_reason, result.steps, result.epochs) == ("time_limit", 6, 1)


def test_a_run_that_is_fast_enough_does_not_notice(tiny, slow):
    timer = Timer(minutes=9)
    result = tiny.run(*slow(60), timer)
    assert (result.stop_reason, result.steps) == ("finished", 8)
    assert (timer.elapsed, timer.remaining) == (480, 60)


def test_time_that_is_up_with_the_last_epoch_stops_nothing(tiny, slow):
    assert tiny.run(*slow(0, end=100), Timer(seconds=200)).stop_reason == "finished"


def test_hours_minutes_and_seconds_are_added(clock):
    timer = Timer(hours=1.5, minutes=2, seconds=3)
    assert timer.limit == 5523
    assert (timer.elapsed, timer.remaining) == (0, 5523)


def test_the_update_under_way_is_finished(tiny, slow):
    assert tiny.run(*slow(60), Timer(minutes=5), accumulate=4, epochs=9).steps == 2


def test_a_validation_counts_and_is_not_broken_off(tiny, slow):
    result = tiny.run(*slow(1, end=100), Timer(seconds=50), epochs=9)
    assert (result.stop_reason, result.epochs, len(result.history)) == ("time_limit", 1, 1)


@pytest.mark.parametrize(("limit", "epochs"), [(29, 2), (30, 2), (31, 3), (39, 3), (41, 4)])
def test_whole_epochs_are_trained_as_long_as_another_fits(tiny, slow, limit, epochs):
    result = tiny.run(*slow(2, end=2), Timer(seconds=limit, whole_epochs=True), epochs=9)
    assert (result.stop_reason, result.epochs) == ("time_limit", epochs)
    assert len(result.history) == epochs


def test_the_longest_epoch_so_far_is_reckoned_with(tiny, clock):
    def go(state, calls):
        clock.now += 10 if calls == 1 else 2

    result = tiny.run(tiny.Do("on_validation_end", go), Timer(seconds=21, whole_epochs=True), epochs=9)
    assert result.epochs == 2


def command(tiny, tmp_path, *callbacks, **kwargs):
    return tiny.run(*callbacks, Checkpoint(tmp_path), epochs=9, resume=True, **kwargs)


def test_a_resumed_run_goes_on_counting(tiny, slow, clock, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("stop") if calls == 3 else None)
    command(tiny, tmp_path, *slow(60), Timer(minutes=6), stop)
    clock.now += 10_000
    result = command(tiny, tmp_path, *slow(60), timer := Timer(minutes=6))
    assert (result.stop_reason, result.steps) == ("time_limit", 6)
    assert timer.elapsed == 360
    clock.now += 10_000
    assert timer.elapsed == 360, "the clock was stopped"


def test_a_run_whose_time_was_up_stays_so_until_it_is_given_more(tiny, slow, tmp_path):
    for minutes, steps in ((6, 6), (6, 6), (10, 10)):
        result = command(tiny, tmp_path, *slow(60), Timer(minutes=minutes))
        assert (result.stop_reason, result.steps) == ("time_limit", steps)


def test_each_process_may_have_the_whole_time(tiny, slow, tmp_path):
    for steps in (6, 12, 18):
        result = command(tiny, tmp_path, *slow(60), Timer(minutes=6, total=False))
        assert (result.stop_reason, result.steps) == ("time_limit", steps)


def test_a_timer_that_is_used_again_begins_anew(tiny, slow):
    timer = Timer(minutes=6)
    assert [tiny.run(*slow(60), timer, epochs=9).steps for _ in range(2)] == [6, 6]


def test_no_time_is_in_the_history(tiny, slow):
    assert tiny.run(*slow(60), Timer(hours=9)).history == tiny.run().history


def test_no_time_at_all_is_refused():
    with pytest.raises(ArgumentError) as caught:
        Timer()
    assert str(caught.value) == (
        "Timer has no time\n  expected: hours, minutes or seconds above 0\n  fix: Timer(hours=1.5)"
    )


@pytest.mark.parametrize("name", ["hours", "minutes", "seconds"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), "1:30", True])
def test_what_is_no_time_is_refused(name, value):
    with pytest.raises(ArgumentError) as caught:
        Timer(**{name: value})
    assert str(caught.value) == (
        f"{name} cannot be used\n  got: {value!r}\n  expected: a number of at least 0\n  fix: Timer(hours=1.5)"
    )


@pytest.mark.filterwarnings("ignore:.*holds the state of a callback 'Checkpoint'")
def test_used_again_in_a_run_continued_from_one_without_it_it_begins_anew(tiny, slow, tmp_path):
    tiny.run(Checkpoint(tmp_path), epochs=1)
    timer = Timer(seconds=5)
    assert tiny.run(*slow(1), timer, epochs=3).stop_reason == "time_limit"
    assert tiny.run(*slow(1), timer, epochs=2, resume=tmp_path / "last.pt").stop_reason == "finished"
