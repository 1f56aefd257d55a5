"""What holds for every callback of ``cvkit.callbacks``; a new one needs an entry here."""

import gc
import inspect
import io
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import cvkit.callbacks
from cvkit.callbacks import (
    EMA,
    SWA,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    GradientNorm,
    GradualUnfreezing,
    LRSchedule,
    Profile,
    Progress,
    Prune,
    StopOnNaN,
    TensorBoard,
    Timer,
    Watch,
)
from cvkit.training import HOOKS, Callback, load_checkpoint, save_checkpoint
from cvkit.training.callback import CHANGER, LAST, OBSERVER


class Trial:
    """A trial of a study that prunes none."""

    def report(self, value, step):
        """Takes the value."""

    def should_prune(self):
        return False


# each is built with as little as it needs, from a directory and the run's optimizer
BUILT = {
    "CSVLogger": lambda directory, optimizer: CSVLogger(directory / "log.csv"),
    "Checkpoint": lambda directory, optimizer: Checkpoint(directory / "own"),
    "EMA": lambda directory, optimizer: EMA(0.9),
    "SWA": lambda directory, optimizer: SWA(0.5),
    "EarlyStopping": lambda directory, optimizer: EarlyStopping(),
    "GradualUnfreezing": lambda directory, optimizer: GradualUnfreezing(),
    "GradientNorm": lambda directory, optimizer: GradientNorm(every_steps=2, layers=1),
    "LRSchedule": lambda directory, optimizer: LRSchedule(torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)),
    "Profile": lambda directory, optimizer: Profile(directory / "profile"),
    "Progress": lambda directory, optimizer: Progress(file=io.StringIO()),
    "Prune": lambda directory, optimizer: Prune(Trial(), "train_loss"),
    "StopOnNaN": lambda directory, optimizer: StopOnNaN(gradients=True),
    "TensorBoard": lambda directory, optimizer: TensorBoard(directory / "tb", every_steps=1),
    "Timer": lambda directory, optimizer: Timer(hours=1),
    "Watch": lambda directory, optimizer: Watch(every_steps=2),
}
ORDER = {
    "CSVLogger": OBSERVER,
    "Checkpoint": LAST,
    "EMA": CHANGER,
    "SWA": CHANGER,
    "EarlyStopping": CHANGER,
    "GradualUnfreezing": CHANGER,
    "GradientNorm": CHANGER,
    "LRSchedule": CHANGER,
    "Profile": OBSERVER,
    "Progress": OBSERVER,
    "Prune": OBSERVER,
    "StopOnNaN": CHANGER,
    "TensorBoard": OBSERVER,
    "Timer": CHANGER,
    "Watch": CHANGER,
}

every = pytest.mark.parametrize("name", sorted(cvkit.callbacks.__all__))


def test_every_callback_has_an_entry_here():
    assert sorted(BUILT) == sorted(ORDER) == sorted(cvkit.callbacks.__all__)


class Parts:
    """A model, its optimizer, and the callback under test over them."""

    def __init__(self, name, directory):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.9)
        self.callback = BUILT[name](directory, self.optimizer)

    def run(self, tiny, *extra, **kwargs):
        """Runs with a Checkpoint beside it, unless it is one."""
        return tiny.run(self.callback, *extra, model=self.model, optimizer=self.optimizer, **kwargs)


def beside(name, directory):
    return [] if name == "Checkpoint" else [Checkpoint(directory / "own")]


def plain(state):
    """A state with numbers in place of tensors, which compare."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, torch.Tensor) else state


def open_files(directory):
    """The files of a directory that this process holds open."""
    gc.collect()
    held = Path("/proc/self/fd")
    if not held.is_dir():
        pytest.skip("needs /proc")
    found = []
    for one in held.iterdir():
        try:
            found.append(os.readlink(one))
        except OSError:  # the listing's own, closed by now
            continue
    return [path for path in found if path.startswith(str(directory))]


@every
def test_it_is_a_callback_and_says_what_it_is(name):
    kind = getattr(cvkit.callbacks, name)
    assert issubclass(kind, Callback)
    assert inspect.getdoc(kind)
    assert kind.__module__.startswith(("cvkit.callbacks.", "cvkit.integrations."))
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in inspect.signature(kind).parameters.values())


@every
def test_its_hooks_are_of_the_list_and_take_the_state(name, tmp_path):
    callback = Parts(name, tmp_path).callback
    hooks = [one for one in dir(callback) if one.startswith("on_")]
    assert set(hooks) == set(HOOKS)
    own = [hook for hook in hooks if getattr(type(callback), hook) is not getattr(Callback, hook)]
    assert own, "it listens to nothing"
    for hook in own:
        assert list(inspect.signature(getattr(callback, hook)).parameters) == ["state"]


@every
def test_its_order_is_as_designed(name):
    kind = getattr(cvkit.callbacks, name)
    assert kind.order == ORDER[name]
    assert "order" not in inspect.signature(kind).parameters


@every
def test_building_it_touches_nothing(name, tmp_path):
    torch.manual_seed(0)
    Parts(name, tmp_path)
    before = torch.get_rng_state()
    BUILT[name](tmp_path, torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0))
    assert torch.equal(before, torch.get_rng_state())
    assert list(tmp_path.iterdir()) == []


@every
def test_it_runs_in_a_fit_and_comes_through_a_checkpoint(name, tiny, tmp_path):
    parts = Parts(name, tmp_path)
    result = parts.run(tiny, *beside(name, tmp_path), epochs=2)
    assert (result.stop_reason, result.epochs) == ("finished", 2)
    state = parts.callback.state_dict()
    assert type(state) is dict
    read = load_checkpoint(save_checkpoint(tmp_path / "state.pt", state))
    fresh = Parts(name, tmp_path / "fresh").callback
    fresh.load_state_dict(read)
    assert plain(fresh.state_dict()) == plain(state)


@every
def test_a_fresh_ones_state_can_be_saved_and_taken_back(name, tmp_path):
    callback = Parts(name, tmp_path).callback
    state = load_checkpoint(save_checkpoint(tmp_path / "state.pt", callback.state_dict()))
    fresh = Parts(name, tmp_path).callback
    if state:  # an empty state is not stored, and so never given back
        fresh.load_state_dict(state)
    assert fresh.state_dict() == state


@every
def test_asking_for_its_state_changes_nothing(name, tiny, tmp_path):
    parts = Parts(name, tmp_path / "a")
    ask = tiny.Do("on_batch_end", lambda state, calls: state.engine.hooks.state_dict(), order=2)
    with_asking = parts.run(tiny, ask)
    without = Parts(name, tmp_path / "b").run(tiny)
    assert with_asking.history == without.history


@every
def test_it_runs_without_validation_where_nothing_of_it_is_watched(name, tiny, tmp_path):
    if name in ("Checkpoint", "EarlyStopping"):
        pytest.skip("watches val_loss unless told otherwise; refused in its own tests")
    assert Parts(name, tmp_path).run(tiny, val=False).stop_reason == "finished"


@every
def test_the_end_told_twice_does_no_harm(name, tiny, tmp_path):
    parts = Parts(name, tmp_path)
    keep = []
    parts.run(tiny, tiny.Do("on_fit_end", lambda state, calls: keep.append(state)))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    parts.callback.on_fit_end(keep[0])
    parts.callback.on_fit_end(keep[0])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert open_files(tmp_path) == []


@every
def test_the_end_without_a_start_does_no_harm(name, tiny, tmp_path):
    keep = []
    tiny.run(tiny.Do("on_fit_end", lambda state, calls: keep.append(state)))
    parts = Parts(name, tmp_path)
    parts.callback.on_exception(keep[0])
    parts.callback.on_fit_end(keep[0])
    assert open_files(tmp_path) == []


@every
@pytest.mark.parametrize("hook", HOOKS[:8])
def test_its_files_are_closed_whatever_another_callback_does(name, hook, tiny, tmp_path):
    def fail(state, calls):
        raise RuntimeError("somebody else's")

    parts = Parts(name, tmp_path)
    with pytest.raises(RuntimeError, match="somebody else's") as caught:
        parts.run(tiny, tiny.Do(hook, fail, order=3), epochs=1)
    assert "and then:" not in "\n".join(caught.value.__notes__), "it failed while it was ended"
    assert open_files(tmp_path) == []
    assert not list(tmp_path.rglob("*.tmp"))


@every
def test_a_good_run_leaves_no_file_open_and_no_warning(name, tiny, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Parts(name, tmp_path).run(tiny)
        assert open_files(tmp_path) == []


@every
@pytest.mark.parametrize("batch", [1, 3, 4, 6])
def test_a_run_with_it_resumes_exactly(name, batch, tiny, tmp_path):
    def all_of(parts):
        return {
            "history": parts.result.history.rows,
            "model": {key: value.tolist() for key, value in parts.model.state_dict().items()},
            "momentum": [one["momentum_buffer"].tolist() for one in parts.optimizer.state_dict()["state"].values()],
            # how long a run took is not the same twice
            "callback": plain(parts.callback.state_dict()) if name != "Timer" else None,
            "rng": torch.get_rng_state().tolist(),
        }

    def command(where, *extra):
        parts = Parts(name, tmp_path / where)
        parts.result = parts.run(tiny, *extra, *beside(name, tmp_path / where), epochs=3, resume=True)
        return parts

    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("stop") if calls == batch else None)
    undisturbed = command("a")
    assert command("b", stop).result.stop_reason == "stop"
    again = command("b")
    assert again.result.stop_reason == "finished"
    assert all_of(again) == all_of(undisturbed)


@every
def test_it_draws_no_random_number(name, tiny, tmp_path):
    with_it = Parts(name, tmp_path).run(tiny)
    drawn = torch.get_rng_state()
    if name in ("EMA", "SWA", "GradientNorm", "LRSchedule"):  # which change what is logged
        parts = Parts(name, tmp_path)
        tiny.run(model=parts.model, optimizer=parts.optimizer)
        assert torch.equal(drawn, torch.get_rng_state())
        return
    parts = Parts(name, tmp_path)
    without = tiny.run(model=parts.model, optimizer=parts.optimizer)
    assert torch.equal(drawn, torch.get_rng_state())
    assert with_it.history == without.history
