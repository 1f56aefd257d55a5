import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.registry import Registry


@pytest.fixture
def animals():
    registry = Registry("animal")
    registry.register("ant")(1)
    registry.register("bee")(2)
    return registry


def test_a_registered_name_is_found(animals):
    assert animals.get("bee") == 2
    assert "bee" in animals
    assert "wasp" not in animals


def test_register_returns_what_it_files_so_that_it_decorates():
    registry = Registry("function")

    @registry.register("double")
    def double(x):
        return 2 * x

    assert double(2) == 4
    assert registry.get("double") is double


def test_an_unknown_name_is_answered_with_the_nearest_one(animals):
    with pytest.raises(UnknownNameError) as caught:
        animals.get("aunt")
    assert str(caught.value) == "unknown animal 'aunt'\n  expected: one of: ant, bee\n  fix: did you mean 'ant'?"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_name_is_not_given_away_twice(animals):
    with pytest.raises(ArgumentError, match=re.escape("animal 'ant' is registered already")):
        animals.register("ant")(3)
    assert animals.get("ant") == 1


def test_the_same_thing_may_be_filed_again_as_a_reloaded_module_does():
    registry, thing = Registry("thing"), object()
    assert registry.register("a")(thing) is registry.register("a")(thing)


@given(st.lists(st.text(), unique=True))
def test_names_are_sorted_whatever_the_order_of_registration(names):
    registry = Registry("thing")
    for name in names:
        registry.register(name)(name)
    assert registry.names() == list(registry) == sorted(names)
