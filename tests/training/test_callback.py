"""The dispatcher: order, checks, teardown, and what an exception says."""

import inspect
import re
import traceback
from pathlib import Path

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.training import HOOKS, Callback, fit
from cvkit.training import callback as hooks_
from cvkit.training.callback import CHANGER, LAST, OBSERVER, Hooks, ask

BATCHES = [(torch.ones(2, 3), torch.tensor([0, 1])), (torch.zeros(2, 3), torch.tensor([1, 0]))]


def run(callbacks, *, epochs=1, val=None, **kwargs):
    torch.manual_seed(0)
    return fit(
        nn.Linear(3, 2),
        BATCHES,
        val,
        epochs=epochs,
        callbacks=callbacks,
        device="cpu",
        progress=False,
        preflight=False,
        **kwargs,
    )


class Told(Callback):
    """Writes down every hook it is told of; raises where it is asked to."""

    def __init__(self, name, log, order=CHANGER, fail=()):
        self.name, self.log, self.order, self.fail = name, log, order, fail

    def warn_once(self, hook):
        self.log.append((self.name, hook))
        if hook in self.fail:
            raise ValueError(f"{self.name} fails in {hook}")


def _teller(hook):
    def method(self, state):
        self.warn_once(hook)

    return method


for _hook in HOOKS:
    setattr(Told, _hook, _teller(_hook))


def told(log, hook):
    return [name for name, what in log if what == hook]


def test_a_run_tells_its_hooks_in_the_documented_order():
    log = []
    run([Told("a", log)], epochs=2, val=BATCHES[:1])
    batch = ["on_batch_start", "on_gradients_ready", "on_batch_end"]
    epoch = ["on_epoch_start", *batch, *batch, "on_validation_batch_end", "on_validation_end", "on_epoch_end"]
    assert [hook for _, hook in log] == ["on_fit_start", *epoch, *epoch, "on_fit_end"]


def test_gradients_are_ready_once_an_update():
    log = []
    run([Told("a", log)], accumulate=2)
    assert len(told(log, "on_batch_end")) == 2
    assert len(told(log, "on_gradients_ready")) == 1


def test_changers_come_before_observers_and_the_last_at_the_end_in_list_order_within():
    log = []
    listed = [
        Told("last 1", log, LAST),
        Told("observer 1", log, OBSERVER),
        Told("changer 1", log),
        Told("last 2", log, LAST),
        Told("changer 2", log),
        Told("observer 2", log, OBSERVER),
    ]
    run(listed)
    order = ["changer 1", "changer 2", "observer 1", "observer 2", "last 1", "last 2"]
    for hook in (*HOOKS[:5], "on_epoch_end"):
        assert list(dict.fromkeys(told(log, hook))) == order, hook
    assert told(log, "on_fit_end") == order[::-1]


def test_checkpoint_runs_after_everything_else_wherever_it_is_listed(tmp_path):
    log = []
    hooks = Hooks([Checkpoint(tmp_path), Told("observer", log, OBSERVER), Told("changer", log)])
    assert isinstance(hooks.callbacks[-1], Checkpoint)


def test_an_exception_tells_on_exception_and_then_on_fit_end_in_reverse():
    log = []
    with pytest.raises(ValueError, match="a fails in on_batch_end"):
        run([Told("a", log, fail=["on_batch_end"]), Told("b", log)])
    assert log[-4:] == [("b", "on_exception"), ("a", "on_exception"), ("b", "on_fit_end"), ("a", "on_fit_end")]


def test_an_exception_of_the_model_reaches_on_exception():
    class Bad(nn.Linear):
        def forward(self, inputs):
            raise RuntimeError("no forward")

    class Seen(Callback):
        def on_exception(self, state):
            self.seen = state.exception

    seen = Seen()
    with pytest.raises(RuntimeError, match="no forward") as caught:
        fit(Bad(3, 2), BATCHES, epochs=1, callbacks=[seen], device="cpu", progress=False, preflight=False)
    assert seen.seen is caught.value
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook not in ("on_exception", "on_fit_end")])
def test_an_exception_in_a_callback_keeps_type_and_traceback_and_names_the_callback(hook):
    class MyError(Exception):
        pass

    class Broken(Callback):
        pass

    def deep(state):
        raise MyError("it broke here")

    setattr(Broken, hook, lambda self, state: deep(state))
    with pytest.raises(MyError, match=f"in callback Broken.{hook} ") as caught:
        run([Broken()], val=BATCHES[:1])
    assert str(caught.value) == "it broke here"
    assert caught.value.__cause__ is None
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "deep"
    assert len(caught.value.__notes__) == 1


def test_the_note_says_where_the_run_stood():
    class Broken(Callback):
        def on_epoch_end(self, state):
            if state.epoch == 1:
                raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        run([Broken()], epochs=2)
    assert caught.value.__notes__ == ["in callback Broken.on_epoch_end (epoch 2, step 4)"]


def test_errors_while_ending_do_not_stop_the_others_and_are_noted():
    log = []
    first = Told("a", log)
    second = Told("b", log, fail=["on_batch_start", "on_exception", "on_fit_end"])
    third = Told("c", log, fail=["on_fit_end"])
    with pytest.raises(ValueError, match="b fails in on_batch_start") as caught:
        run([first, second, third])
    assert told(log, "on_exception") == ["c", "b", "a"]
    assert told(log, "on_fit_end") == ["c", "b", "a"]
    notes = "\n".join(caught.value.__notes__)
    for error in ("b fails in on_exception", "c fails in on_fit_end", "b fails in on_fit_end"):
        assert error in notes
    assert notes.index("b fails in on_exception") < notes.index("c fails in on_fit_end")


def test_errors_at_the_end_of_a_good_run_are_raised_once_everybody_was_ended():
    log = []
    with pytest.raises(ValueError, match="c fails in on_fit_end") as caught:
        run([Told("a", log), Told("b", log, fail=["on_fit_end"]), Told("c", log, fail=["on_fit_end"])])
    assert told(log, "on_fit_end") == ["c", "b", "a"]
    assert told(log, "on_exception") == []
    assert "b fails in on_fit_end" in "\n".join(caught.value.__notes__)


def test_only_the_started_are_ended_when_a_start_fails():
    log = []
    callbacks = [Told("a", log), Told("b", log), Told("c", log, fail=["on_fit_start"]), Told("d", log)]
    with pytest.raises(ValueError, match="c fails in on_fit_start"):
        run(callbacks)
    assert log == [
        ("a", "on_fit_start"),
        ("b", "on_fit_start"),
        ("c", "on_fit_start"),
        ("b", "on_exception"),
        ("a", "on_exception"),
        ("b", "on_fit_end"),
        ("a", "on_fit_end"),
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_ends_the_callbacks_too(error):
    class Broken(Callback):
        def on_batch_end(self, state):
            raise error

    log = []
    with pytest.raises(error):
        run([Told("a", log), Broken()])
    assert log[-2:] == [("a", "on_exception"), ("a", "on_fit_end")]


def test_a_hook_that_is_none_is_refused_with_the_nearest():
    class Wrong(Callback):
        def on_batch_ended(self, state):
            pass

    with pytest.raises(UnknownNameError) as caught:
        run([Wrong()])
    message = str(caught.value)
    assert message.startswith("unknown hook on callback Wrong: 'on_batch_ended'\n")
    assert "fix: did you mean 'on_batch_end'" in message


def test_an_attribute_named_like_a_hook_that_is_no_method_is_nobodys_business():
    class Fine(Callback):
        on_error = "raise"

        def on_epoch_end(self, state):
            self.called = True

    fine = Fine()
    run([fine])
    assert fine.called


def test_a_class_instead_of_an_instance_is_refused():
    with pytest.raises(ArgumentError) as caught:
        run([Told])
    assert str(caught.value) == (
        "callbacks got the class Told\n  expected: an instance\n  fix: write Told(…) in the list"
    )


@pytest.mark.parametrize("thing", [object(), 3, "checkpoint", None, lambda state: None])
def test_an_object_without_hooks_is_refused(thing):
    with pytest.raises(ArgumentError) as caught:
        run([thing])
    message = str(caught.value)
    assert message.startswith(f"callbacks got something that is no callback\n  got: {thing!r}\n")
    assert message.endswith("fix: derive it from cvkit.Callback")


def test_nothing_was_started_when_a_callback_is_refused():
    log = []
    with pytest.raises(ArgumentError):
        run([Told("a", log), object()])
    assert log == []


def test_a_hook_that_nobody_implements_is_one_shared_nothing():
    class OnlyEnd(Callback):
        def on_epoch_end(self, state):
            pass

    hooks = Hooks([OnlyEnd(), Callback()])
    names = [hook.removeprefix("on_") for hook in HOOKS[1:-2]]
    for name in names:
        assert (getattr(hooks, name) is hooks_._nothing) == (name != "epoch_end"), name


def test_an_empty_run_of_hooks_is_free():
    hooks = Hooks([])
    assert {getattr(hooks, hook.removeprefix("on_")) for hook in HOOKS[1:-2]} == {hooks_._nothing}


def test_any_object_with_hooks_is_a_callback(tmp_path):
    class Duck:
        def __init__(self):
            self.steps = 0

        def on_batch_end(self, state):
            self.steps = state.step

        def state_dict(self):
            return {"steps": self.steps}

        def load_state_dict(self, state):
            self.loaded = state["steps"]

    duck = Duck()
    run([duck, Checkpoint(tmp_path, monitor=None)])
    assert duck.steps == 2
    again = Duck()
    run([again, Checkpoint(tmp_path, monitor=None)], resume=True)
    assert again.loaded == 2


def test_a_hook_put_on_an_instance_is_heard():
    callback, steps = Callback(), []
    callback.on_batch_end = lambda state: steps.append(state.step)
    run([callback])
    assert steps == [1, 2]


class Remembers(Callback):
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_two_callbacks_of_one_class_keep_their_own_states():
    states = Hooks([Remembers(1), Remembers(2), Remembers(3)]).state_dict()
    assert states == {"Remembers": {"value": 1}, "Remembers#2": {"value": 2}, "Remembers#3": {"value": 3}}
    fresh = [Remembers(0), Remembers(0), Remembers(0)]
    assert Hooks(fresh).load_state_dict(states) == []
    assert [one.value for one in fresh] == [1, 2, 3]


def test_states_that_nobody_takes_are_named():
    kept = Remembers(0)
    left = Hooks([kept]).load_state_dict({"Remembers": {"value": 5}, "Gone": {"x": 1}})
    assert left == ["Gone"]
    assert kept.value == 5


def test_a_callback_without_a_state_leaves_none():
    assert Hooks([Callback()]).state_dict() == {}


def test_a_callback_can_stop_the_run_at_the_next_step():
    class Stops(Callback):
        def on_batch_start(self, state):
            state.request_stop("enough")
            state.request_stop("a later reason")

    result = run([Stops()], epochs=3)
    assert (result.stop_reason, result.steps, result.epochs) == ("enough", 1, 0)


def test_the_state_shows_the_step_count_before_and_after_an_update():
    seen = []

    class Looks(Callback):
        def on_batch_start(self, state):
            seen.append(("start", state.step))

        def on_gradients_ready(self, state):
            seen.append(("ready", state.step, state.model.weight.grad is not None))

        def on_batch_end(self, state):
            seen.append(("end", state.step, tuple(state.loss.shape), state.loss.requires_grad))

    run([Looks()])
    assert seen[:3] == [("start", 0), ("ready", 0, True), ("end", 1, (), False)]


class _Duck:
    """No subclass of Callback: whatever it lacks has the protocol's default."""

    logs = ("my_value",)
    best_checkpoint = Path("best.pt")

    def on_epoch_end(self, state):
        state.logs["my_value"] = 1.0


def test_what_a_callback_lacks_has_the_default_of_the_protocol():
    duck = _Duck()
    assert ask(duck, "order") == CHANGER
    assert ask(duck, "override") == "callbacks"
    assert ask(duck, "logs") == ("my_value",)
    assert ask(duck, "checkpoints")() is None
    assert ask(duck, "may_save")(None) is True
    assert ask(duck, "best_checkpoint") == Path("best.pt")
    assert ask(duck, "last_checkpoint") is None
    with ask(duck, "locked")():
        pass


def test_every_name_that_is_asked_for_is_documented_on_callback():
    """What fit asks of a callback is a public attribute or method of Callback, and nobody sniffs for another."""
    asked, sniffed = set(), []
    for path in (Path(cvkit.__file__).parent).rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        asked |= set(re.findall(r"\bask\(\w+(?:\[\w+\])?, \"(\w+)\"\)", source))
        sniffed += [
            path.name for _ in re.findall(r"(?:hasattr|getattr)\(callback\b", source) if path.name != "callback.py"
        ]
    assert len(asked) >= 10
    assert not sniffed
    for name in asked:
        found = inspect.getattr_static(cvkit.Callback, name)
        assert (found.__doc__ and callable(getattr(found, "__get__", None))) or f"{name}:" in cvkit.Callback.__doc__, (
            name
        )


def test_one_veto_keeps_the_files_as_they_are_and_all_are_asked(tmp_path):
    asked = []

    class Never(cvkit.Callback):
        def may_save(self, state):
            asked.append("never")
            return state.epoch == 0

    class Always(cvkit.Callback):
        def may_save(self, state):
            asked.append("always")
            return True

    run([Never(), Always(), Checkpoint(tmp_path, monitor=None)], epochs=3)
    assert cvkit.load_checkpoint(tmp_path / "last.pt")["training"]["epoch"] == 1
    assert asked == ["never", "always"] * 3
