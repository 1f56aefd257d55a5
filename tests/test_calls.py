"""A wrong call is answered with what to write; a warning points at the user's line."""

import inspect
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit import calls
from cvkit.calls import answered
from cvkit.errors import ArgumentError, CallError, CvkitWarning

BATCHES = [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))]
FIT = (
    "arguments of fit: model, train, val, epochs, max_steps, loss, optimizer, lr, schedule, warmup, metrics, callbacks, step, device, "
    "precision, "
)


def network():
    return nn.Linear(6, 3)


# --- calls


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ({"num_epochs": 3}, "it is called epochs here: epochs=…"),
        ({"max_epochs": 3}, "it is called epochs here: epochs=…"),
        ({"epochs": 1, "learning_rate": 0.1}, "it is called lr here: lr=…"),
        ({"epochs": 1, "criterion": nn.MSELoss()}, "it is called loss here: loss=…"),
        ({"epochs": 1, "loss_fn": nn.MSELoss()}, "it is called loss here: loss=…"),
        ({"epochs": 1, "val_loader": BATCHES}, "it is called val here: val=…"),
        ({"epochs": 1, "dataloader": BATCHES}, "it is called train here: train=…"),
        ({"epochs": 1, "scheduler": "cosine"}, "it is called schedule here: schedule=…"),
        (
            {"epochs": 1, "batch_size": 64},
            "it belongs to the loader: cvkit.data.Loader(dataset, batch_size=64, shuffle=True, workers=4)",
        ),
        (
            {"epochs": 1, "weight_decay": 0.1},
            "it belongs to the optimizer: optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05)",
        ),
        ({"epochs": 1, "determinstic": True}, "did you mean deterministic=…?"),
        ({"epochs": 1, "zzz": 1}, "leave it out"),
        (
            {"max_epochs": 2, "learning_rate": 0.1},
            "max_epochs: it is called epochs here: epochs=…; learning_rate: it is called lr here: lr=…",
        ),
    ],
    ids=lambda one: ", ".join(one) if isinstance(one, dict) else None,
)
def test_an_argument_of_another_library_is_answered_with_its_name_here(given, fix):
    with pytest.raises(CallError) as caught:
        cvkit.fit(network(), BATCHES, **given)
    lines = str(caught.value).splitlines()
    unknown = [key for key in given if key != "epochs"]
    assert lines[0] == f"fit has no argument{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}"
    assert lines[2].startswith(f"  expected: {FIT}")
    assert lines[3:] == [f"  fix: {fix}"]


def shown(call):
    with pytest.raises(CallError) as caught:
        call()
    return str(caught.value)


def test_what_is_missing_too_much_or_there_twice_is_answered():
    assert shown(lambda: cvkit.fit(network(), BATCHES)) == (
        "fit needs epochs\n"
        "  got: a call with model, train\n"
        "  expected: epochs, which has no default\n"
        "  fix: pass e.g. epochs=10"
    )
    assert shown(lambda: cvkit.fit(network(), BATCHES, None, 10)) == (
        "fit takes at most 3 arguments by position\n"
        "  got: 4: Linear, list, None, 10\n"
        "  expected: model, train, val by position, and the others by name\n"
        "  fix: name the others: fit(model, train, val, epochs=10)"
    )
    assert shown(lambda: cvkit.fit(network(), BATCHES, train=BATCHES, epochs=1)) == (
        "fit got train twice\n"
        "  got: list by position, and train=list\n"
        "  expected: each argument once\n"
        "  fix: leave one of the two out; by position come model, train, val"
    )


def test_its_relatives_and_from_folder_answer_too():
    assert shown(lambda: cvkit.evaluate(network(), dataloader=BATCHES)) == (
        "evaluate has no argument dataloader\n"
        "  got: dataloader=list\n"
        "  expected: arguments of evaluate: model, data, loss, metrics, step, device, precision\n"
        "  fix: it is called data here: data=…"
    )
    assert shown(lambda: cvkit.find_lr(network(), BATCHES, end_lr=1.0)).endswith("fix: it is called high here: high=…")
    assert shown(lambda: cvkit.preflight(network(), BATCHES, criterion="mse")).endswith(
        "fix: it is called loss here: loss=…"
    )
    assert shown(lambda: cvkit.data.from_folder("data", batch_size=64)) == (
        "from_folder needs size\n"
        "  got: a call with root, batch_size\n"
        "  expected: size, which has no default\n"
        "  fix: pass e.g. size=224"
    )
    assert shown(lambda: cvkit.data.from_folder("data", image_size=64, num_workers=2)).endswith(
        "fix: image_size: it is called size here: size=…; num_workers: it is called workers here: workers=…"
    )


def test_the_answer_is_a_type_error_and_an_argument_error_and_what_is_called_raises_its_own():
    assert issubclass(CallError, TypeError)
    assert issubclass(CallError, ArgumentError)

    @answered()
    def inner(number: int) -> int:
        return number + "text"

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        inner(1)
    assert not isinstance(caught.value, CallError)


@pytest.mark.parametrize(
    "function", [cvkit.fit, cvkit.evaluate, cvkit.preflight, cvkit.find_lr, cvkit.data.from_folder]
)
def test_the_signature_is_the_functions_own(function):
    assert inspect.signature(function) == inspect.signature(function.__wrapped__)
    assert all(one.kind is not one.VAR_KEYWORD for one in inspect.signature(function).parameters.values())
    assert function.__doc__ == function.__wrapped__.__doc__
    assert sys.modules[function.__module__].__dict__[function.__name__] is function


# --- warnings


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(one.filename, one.lineno) for one in caught if issubclass(one.category, CvkitWarning)]


def here():
    return __file__, inspect.currentframe().f_back.f_lineno


def through_the_package(monkeypatch):
    """A function of ours, called through a context manager and torch, as seen from the user's line."""

    @contextmanager
    def inside():
        calls.warn("something")
        yield

    class Module(nn.Module):
        def forward(self, value):
            with inside():
                return value

    # this file stands for one of the package's
    monkeypatch.setattr(calls, "_INSIDE", (*calls._INSIDE, __file__))
    return Module()


def test_a_warning_points_at_the_first_frame_that_is_not_ours(monkeypatch, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def run(module):\n    x = 1\n    return module(x)\n")
    code = {}
    exec(compile(script.read_text(), str(script), "exec"), code)
    module = through_the_package(monkeypatch)
    assert warned(lambda: code["run"](module)) == [(str(script), 3)]


def test_the_warnings_of_fit_point_at_its_call():
    nonfinite = [(torch.full((4, 6), torch.nan), BATCHES[0][1])] * 3

    def run():
        found.append(here())
        cvkit.fit(network(), nonfinite, epochs=70, progress=False, preflight=False)

    found = []
    assert [(file, line - 1) for file, line in warned(run)] == found, "once a run, at the line of the call"
    short = DataLoader(TensorDataset(torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)), batch_size=4)

    class Short:
        def __len__(self):
            return 3

        def __iter__(self):
            return iter(short)

    frozen = network()
    frozen.extra = nn.Parameter(torch.zeros(1))

    def other():
        found[:] = [here()] * 2
        cvkit.fit(frozen, Short(), epochs=1, progress=False)

    assert [(file, line - 1) for file, line in warned(other)] == found, (
        "a note of preflight, and a loader that is short"
    )
