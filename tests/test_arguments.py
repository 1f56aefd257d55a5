"""How arguments are checked: what passes, what is refused, and the message."""

import math

import pytest

from cvkit.arguments import check_choice, check_integer, check_number
from cvkit.errors import ArgumentError


@pytest.mark.parametrize("value", [1, 2, 10**20])
def test_integers_pass(value):
    check_integer("steps", value, fix="steps=1")


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None, math.nan])
def test_what_is_no_integer_of_the_least_size_is_refused(value):
    with pytest.raises(ArgumentError) as caught:
        check_integer("steps", value, fix="pass e.g. steps=100")
    assert str(caught.value) == (
        f"steps cannot be used\n  got: {value!r}\n  expected: an integer of at least 1\n  fix: pass e.g. steps=100"
    )


def test_a_least_of_zero_takes_zero_and_words_can_be_given():
    check_integer("wait", 0, at_least=0, fix="wait=0")
    with pytest.raises(ArgumentError, match="expected: 0 or more"):
        check_integer("wait", -1, at_least=0, fix="wait=0", expected="0 or more")


BOUNDS = [
    ({"at_least": 0}, [0, 0.5, 3], [math.inf, -1e-9, True, "1", None, math.nan]),
    ({"above": 0, "at_most": 1}, [0.1, 1], [0, 1.0001]),
    ({"at_least": 0, "below": 1}, [0, 0.999], [1, -0.1]),
]


@pytest.mark.parametrize(("bounds", "good", "bad"), BOUNDS)
def test_numbers_within_bounds_pass_and_others_are_refused(bounds, good, bad):
    for value in good:
        check_number("lr", value, **bounds, fix="lr=1", expected="a number")
    for value in bad:
        with pytest.raises(ArgumentError) as caught:
            check_number("lr", value, **bounds, fix="lr=1", expected="a number")
        assert str(caught.value) == f"lr cannot be used\n  got: {value!r}\n  expected: a number\n  fix: lr=1"


def test_choices():
    check_choice("on_error", "skip", ("raise", "skip"), fix="leave it out")
    with pytest.raises(ArgumentError) as caught:
        check_choice("on_error", "skp", ("raise", "skip"), fix="leave it out")
    assert (
        str(caught.value) == "on_error cannot be used\n  got: 'skp'\n  expected: 'raise' or 'skip'\n  fix: leave it out"
    )
