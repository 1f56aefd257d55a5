"""Profile: where the time goes, adding up to all of it, in a run that is none the wiser."""

import gzip
import json
import re
import threading

import pytest
import torch
from torch import nn

from cvkit import streams
from cvkit.callbacks import Profile
from cvkit.callbacks import profile as profile_
from cvkit.errors import ArgumentError
from cvkit.training import engine, fit, loaders


class Clock:
    """A clock that stands still unless somebody does something that takes time."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Slow:
    """Everything in a step takes a time of its own, in seconds."""

    def __init__(self, clock, **seconds):
        self.clock, self.seconds = clock, seconds

    def spend(self, what):
        self.clock.now += self.seconds.get(what, 0.0)

    def batches(self, count):
        slow = self

        class Data:
            def __len__(self):
                return count

            def __iter__(self):
                for _ in range(count):
                    slow.spend("data")
                    yield torch.ones(4, 3), torch.zeros(4, 2)

        return Data()

    def model(self):
        slow = self

        class Both(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                slow.spend("forward" if torch.is_grad_enabled() or x.requires_grad else "validation")
                return x * 1

            @staticmethod
            def backward(ctx, gradient):
                slow.spend("backward")
                return gradient

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(3, 2)

            def forward(self, x):
                return Both.apply(self.layer(x))

        return Model()

    def optimizer(self, parameters):
        slow = self

        class SGD(torch.optim.SGD):
            def step(self, closure=None):
                slow.spend("update")
                return super().step(closure)

        return SGD(parameters, lr=0.1)

    def callback(self):
        slow = self

        class Callback:
            def on_batch_start(self, state):
                slow.spend("callbacks")

            on_gradients_ready = on_batch_end = on_batch_start

        return Callback()


@pytest.fixture
def slow(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(streams, "time", clock)
    return lambda **seconds: Slow(clock, **seconds)


def run(slow, profile, *callbacks, batches=40, epochs=1, val=None, **options):
    model = slow.model()
    given = {"device": "cpu", "progress": False, "preflight": False, "loss": "mse", "optimizer": slow.optimizer}
    return fit(
        model,
        slow.batches(batches),
        slow.batches(val) if val else None,
        epochs=epochs,
        callbacks=[slow.callback(), profile, *callbacks],
        **(given | options),
    )


def table(page):
    """The table's numbers: milliseconds and percent by phase."""
    return {
        name: (float(ms), float(percent))
        for name, ms, percent in re.findall(r"^(\w+) +([\d.]+) +([\d.]+)%", page.split("operator")[0], re.MULTILINE)
    }


def test_each_phase_gets_its_time_and_all_of_them_all_of_it(slow, tmp_path):
    spent = slow(data=0.004, forward=0.002, backward=0.003, update=0.001, callbacks=0.0005)
    profile = Profile(tmp_path, wait=3, batches=20, trace=0)
    run(spent, profile)
    assert table(profile.summary) == {
        "data": (4.0, 34.8),
        "transfer": (0.0, 0.0),
        "transform": (0.0, 0.0),
        "forward": (2.0, 17.4),
        "backward": (3.0, 26.1),
        "update": (1.0, 8.7),
        "callbacks": (1.5, 13.0),
        "loop": (0.0, 0.0),
        "all": (11.5, 100.0),
    }
    head = profile.summary.splitlines()[:3]
    assert head[0] == "20 batches of 4 samples, from step 3 on"
    assert head[1] == "Model, 8 parameters, fp32 on cpu, 1 threads"
    assert head[2] == "11.50 ms a batch, 348 samples/s"
    assert (tmp_path / "step-00000003.txt").read_text() == profile.summary
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003.txt"]


def test_only_the_batches_asked_for_are_timed(slow, tmp_path):
    spent = slow()

    class Waits:
        def on_batch_end(self, state):
            spent.seconds["data"] = 0.001 if 3 <= state.step <= 12 else 1.0

    profile = Profile(tmp_path, wait=2, batches=10, trace=0)
    run(spent, profile, Waits())
    assert table(profile.summary)["data"] == (1.0, 100.0)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_updates_are_spread_over_the_batches(slow, tmp_path, accumulate):
    profile = Profile(tmp_path, wait=3, batches=12, trace=0)
    run(slow(update=0.003), profile, accumulate=accumulate)
    assert table(profile.summary)["update"] == (3.0 / accumulate, 100.0)


def test_what_lies_between_epochs_is_told_apart(slow, tmp_path):
    spent = slow(data=0.001, forward=0.001, validation=0.5)
    profile = Profile(tmp_path, wait=2, batches=8, trace=0)
    run(spent, profile, batches=4, epochs=4, val=3)
    # two epochs end in the eight batches, each with three batches of validation, whose data takes time, too
    assert "not in it: 3,006 ms between epochs (validation, logging, saving)" in profile.summary
    found = table(profile.summary)
    assert (found["data"], found["forward"]) == ((1.0, 50.0), (1.0, 50.0))


def test_bringing_the_batch_and_its_transform_are_told_apart(slow, tmp_path, monkeypatch):
    from cvkit.training import runtime as runtime_

    spent = slow(transfer=0.002, transform=0.003, data=0.001)

    def place(self, batch):
        if isinstance(batch, tuple):
            return tuple(self.place(one) for one in batch)
        spent.clock.now += 0.001
        return batch

    def finish(self, batch, runtime=None):
        batch = runtime.place(batch)
        spent.spend("transform")
        return batch

    monkeypatch.setattr(runtime_.Runtime, "place", place)
    monkeypatch.setattr(loaders.Adapter, "finish", finish)
    monkeypatch.setattr(loaders.Adapter, "on_place", lambda self, device: False)
    profile = Profile(tmp_path, wait=3, batches=20, trace=0)
    run(spent, profile)
    found = table(profile.summary)
    assert (found["data"][0], found["transfer"][0], found["transform"][0]) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("seconds", "advice"),
    [
        ({"data": 0.074, "forward": 0.026}, "74% of the time the model waits for data. Let more workers load it"),
        ({"update": 0.04, "forward": 0.06}, "40% goes into updates. A larger batch or accumulate makes fewer"),
        ({"callbacks": 0.01, "forward": 0.07}, "30% goes into callbacks: let them look less often (every_steps=…)"),
        ({"forward": 0.06, "backward": 0.03, "data": 0.01}, "90% goes into the model itself, as it should. Faster"),
    ],
)
def test_the_page_says_what_to_do(slow, tmp_path, seconds, advice):
    profile = Profile(tmp_path, trace=0)
    run(slow(**seconds), profile)
    last = profile.summary.strip().splitlines()[-1]
    assert last.startswith(advice)


def test_two_things_to_do_are_two_lines(slow, tmp_path):
    profile = Profile(tmp_path, trace=0)
    run(slow(data=0.05, update=0.05), profile)
    assert [line.split()[0] for line in profile.summary.strip().splitlines()[-2:]] == ["50%", "50%"]


# --- the trace


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def traced(tmp_path):
    (path,) = tmp_path.glob("*.pt.trace.json.gz")
    with gzip.open(path, "rt") as file:
        return json.load(file)["traceEvents"]


def test_the_trace_holds_the_phases_of_each_recorded_batch(tiny, tmp_path):
    profile = Profile(tmp_path, wait=2, batches=2, trace=3)
    tiny.run(profile, model=net(), epochs=5)
    events = [one for one in traced(tmp_path) if one.get("ph") == "X"]
    names = [one["name"] for one in events if one.get("cat") == "user_annotation"]
    # an update is finishing the gradients, and the optimizers
    assert [names.count(f"cvkit: {phase}") for phase in ("forward", "backward", "update")] == [3, 3, 6]
    assert len([name for name in names if name.startswith("ProfilerStep")]) == 3
    assert names.count("cvkit: between epochs") >= 1, "the second epoch ends in it"
    assert any(one["name"] == "aten::addmm" for one in events)
    # the page has the dearest operators, and says where the trace is
    assert re.search(r"^operator +calls +ms a batch +share +\(3 batches, recorded\)$", profile.summary, re.MULTILINE)
    assert re.search(r"^aten::\w+ .* +[\d.]+%$", profile.summary, re.MULTILINE)
    assert profile.summary.endswith(f"trace: {tmp_path / 'step-00000002.pt.trace.json.gz'}\n")
    assert (tmp_path / "step-00000002.txt").read_text() == profile.summary


def test_ranges_lie_inside_of_one_another(tiny, tmp_path):
    """Or else a viewer shows nonsense."""
    tiny.run(Profile(tmp_path, wait=1, batches=1, trace=3), model=net(), epochs=4)
    ranges = sorted(
        (one["ts"], -one["dur"])
        for one in traced(tmp_path)
        if one.get("ph") == "X" and one.get("cat") == "user_annotation" and one["dur"] > 0
    )
    open_until = []
    for begun, negative in ranges:
        ended = begun - negative
        while open_until and open_until[-1] <= begun + 1e-3:
            open_until.pop()
        assert not open_until or ended <= open_until[-1] + 1.0, "in microseconds"
        open_until.append(ended)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_the_run_is_the_same_bit_for_bit(tiny, tmp_path, epochs):
    with_it, without = net(), net()
    history = tiny.run(Profile(tmp_path, wait=1, batches=3, trace=2), model=with_it, epochs=epochs).history
    drawn = torch.get_rng_state()
    assert tiny.run(model=without, epochs=epochs).history == history
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(with_it.parameters(), without.parameters(), strict=True))


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("wait", [0, 10])
@pytest.mark.parametrize("trace", [0, 5])
def test_a_short_run_is_looked_at_as_far_as_it_goes(tiny, tmp_path, epochs, wait, trace):
    profile = Profile(tmp_path, wait=wait, trace=trace)
    tiny.run(profile, epochs=epochs)
    batches, step = re.match(r"(\d+) batches of 2 samples, from step (\d+) on", profile.summary).groups()
    assert int(step) == min(wait, epochs)
    recorded = re.search(r"\((\d+) batches, recorded\)", profile.summary)
    assert int(batches) + int(step) + (int(recorded[1]) + 1 if recorded else 0) <= 4 * epochs
    assert bool(recorded) == bool(trace)
    assert len(list(tmp_path.glob("*.gz"))) == bool(trace)


def instrumented(state):
    own = [(engine, "forward"), (engine, "update")]
    wrapped = [name for module, name in own if vars(module)[name].__module__ == profile_.__name__]
    wrapped += [name for name in ("finish",) if name in vars(state.engine.train)]
    return wrapped + [name for name in ("place",) if name in vars(state.runtime)]


@pytest.mark.parametrize("batch", [2, 4, 6, 8])
def test_an_error_takes_its_hands_off_the_run(tiny, tmp_path, batch):
    kept, seen = [], []

    def fail(state, calls):
        kept.append(state)
        seen.append(len(instrumented(state)))
        if calls == batch:
            raise RuntimeError("no")

    profile = Profile(tmp_path, wait=1, batches=3, trace=3)
    with pytest.raises(RuntimeError, match="no"):
        tiny.run(profile, tiny.Do("on_batch_end", fail), epochs=4)
    assert seen[0] == 0
    assert seen[-1] == 4
    assert instrumented(kept[0]) == []
    assert len(list(tmp_path.glob("*.gz"))) == 0
    assert torch.autograd._profiler_enabled() is False
    again = Profile(tmp_path / "again", wait=1, batches=3, trace=2)
    tiny.run(again, epochs=4)
    assert "trace:" in again.summary


def test_outside_of_its_window_nothing_stands_around_the_loop(tiny, tmp_path):
    seen, before = [], []

    def look(state, calls):
        before.append(dict(vars(state.engine.hooks))) if calls == 1 else None
        seen.append(bool(instrumented(state)))
        if not seen[-1]:
            assert dict(vars(state.engine.hooks)) == before[0]

    tiny.run(Profile(tmp_path, wait=4, batches=4, trace=0), tiny.Do("on_batch_end", look), epochs=4)
    assert seen == [False] * 4 + [True] * 4 + [False] * 8


def test_a_run_that_is_stopped_in_the_window_is_told_of_as_far_as_it_went(tiny, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough") if calls == 5 else None)
    profile = Profile(tmp_path, wait=2, batches=50, trace=0)
    tiny.run(profile, stop, epochs=9)
    assert profile.summary.startswith("3 batches of 2 samples, from step 2 on")


def test_a_run_that_ends_before_the_window_has_no_page(tiny, tmp_path):
    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("enough"))
    profile = Profile(tmp_path, wait=2)
    tiny.run(profile, stop, epochs=9)
    assert profile.summary is None
    assert list(tmp_path.iterdir()) == []


def test_one_and_the_same_serves_several_fits(tiny, tmp_path):
    profile = Profile(tmp_path, wait=1, batches=2, trace=1)
    for _ in range(2):
        tiny.run(profile)
        assert profile.summary.startswith("2 batches of 2 samples, from step 1 on")


def test_other_threads_are_left_alone(tiny, tmp_path):
    before = threading.active_count()
    tiny.run(Profile(tmp_path, wait=1, batches=2, trace=1))
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize(("name", "value", "least"), [("wait", -1, 0), ("batches", 0, 1), ("trace", 1.5, 0)])
def test_numbers_that_cannot_work_are_refused(name, value, least, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        Profile(tmp_path, **{name: value})
    assert str(caught.value) == (
        f"{name} cannot be used\n"
        f"  got: {value!r}\n"
        f"  expected: an integer of at least {least}\n"
        f"  fix: Profile(directory, {name}=10)"
    )
