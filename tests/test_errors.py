import inspect
import pickle

import pytest

from cvkit import errors
from cvkit.errors import ArgumentError, CvkitError, DataError, ImageError, UnknownNameError, unknown_name

FAMILY = sorted(
    (one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, CvkitError)),
    key=lambda one: one.__name__,
)
each_error = pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)


def test_a_message_says_what_failed_what_arrived_what_was_expected_and_what_to_do():
    error = CvkitError("epochs cannot be used", got=0, expected="at least 1", fix="pass epochs=1")
    assert str(error) == "epochs cannot be used\n  got: 0\n  expected: at least 1\n  fix: pass epochs=1"


def test_parts_that_are_not_given_leave_no_line_and_falsy_ones_do():
    assert str(CvkitError("it failed")) == "it failed"
    assert str(CvkitError("it failed", got="", fix="x")) == "it failed\n  got: \n  fix: x"


@each_error
def test_every_error_survives_pickling(kind):
    error = kind("it failed", got=[1], expected="two", fix="add one")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)


@each_error
def test_every_error_can_be_rebuilt_from_its_message_as_a_worker_process_does(kind):
    error = kind("it failed", got=[1], expected="two", fix="add one")
    assert str(kind(str(error))) == str(error)


@each_error
def test_every_error_is_public_documented_and_a_cvkit_error(kind):
    assert kind.__name__ in errors.__all__
    assert issubclass(kind, CvkitError)
    assert inspect.getdoc(kind)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ArgumentError, ValueError),
        (UnknownNameError, ValueError),
        (errors.DeviceError, RuntimeError),
        (errors.MissingDependencyError, ImportError),
        (ImageError, DataError),
        (errors.CvkitWarning, UserWarning),
    ],
)
def test_errors_are_also_what_python_would_have_raised(kind, builtin):
    assert issubclass(kind, builtin)


def test_an_unknown_name_is_answered_with_the_nearest_known_ones():
    error = unknown_name("optimizer", "adamv", ["sgd", "adamw", "adam"])
    assert isinstance(error, UnknownNameError)
    assert str(error) == (
        "unknown optimizer 'adamv'\n  expected: one of: adam, adamw, sgd\n  fix: did you mean 'adam' or 'adamw'?"
    )


def test_a_name_like_no_other_is_answered_with_the_list():
    assert str(unknown_name("loss", 3, ["mse"])).endswith("fix: choose one of these")


def test_a_long_list_is_cut_and_counted():
    message = str(unknown_name("model", "x", [f"model{i:03d}" for i in range(41)]))
    assert "model039, … (41 in all)" in message
    assert "model040" not in message
