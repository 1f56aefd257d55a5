import io
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvkit import seeding
from cvkit.errors import ArgumentError

keys = st.lists(st.one_of(st.integers(), st.text()), max_size=4)


@pytest.fixture(autouse=True)
def _generators_as_before():
    state = seeding.capture()
    yield
    seeding.restore(state)


def draw():
    """Draws from every global generator, each kind of draw that keeps a second number for later included."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(3).tolist(),
        torch.randn(3).tolist(),
    ]


def test_a_derived_seed_is_the_same_in_every_version():
    assert seeding.derive(0) == 2631537505891389924
    assert seeding.derive(7, "order", 3) == 1569714343349645784


def test_a_derived_seed_is_the_same_in_another_process():
    code = "from cvkit import seeding; print(seeding.derive(7, 'order', 3))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == seeding.derive(7, "order", 3)


@given(st.integers(), keys)
def test_a_derived_seed_can_be_used_by_every_generator(seed, keys):
    derived = seeding.derive(seed, *keys)
    assert 0 <= derived < 2**63
    torch.Generator().manual_seed(derived)
    np.random.default_rng(derived)


@given(st.integers(), keys, keys)
def test_different_keys_give_different_seeds(seed, one, other):
    assert (seeding.derive(seed, *one) == seeding.derive(seed, *other)) == (one == other)


def test_a_number_and_its_text_are_different_keys():
    assert seeding.derive(0, 1) != seeding.derive(0, "1")
    assert seeding.derive(0, 1, 2) != seeding.derive(0, 12)


def test_peek_gives_what_torch_would_give_next_and_takes_nothing():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = seeding.peek()
    assert seeding.peek() == first
    assert torch.equal(torch.get_rng_state(), before)
    assert int(torch.randint(0, 2**63 - 1, ()).item()) == first
    assert seeding.peek() != first


def test_seed_all_seeds_every_generator():
    seeding.seed_all(5)
    first = draw()
    draw()
    seeding.seed_all(5)
    assert draw() == first
    seeding.seed_all(6)
    other = draw()
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
def test_a_seed_that_cannot_be_used_is_refused_before_anything_is_seeded(seed):
    state = seeding.capture()
    with pytest.raises(ArgumentError) as caught:
        seeding.seed_all(seed)
    assert str(caught.value) == (
        f"the seed cannot be used\n  got: {seed!r}\n  expected: an integer from 0 to 2**63 - 1\n"
        "  fix: pass e.g. seed=0, or leave it out"
    )
    expected = draw()
    seeding.restore(state)
    assert draw() == expected


def test_restore_continues_exactly_where_capture_was():
    random.gauss(0, 1)  # leaves the second of a pair waiting, in Python's generator
    np.random.randn()  # and in NumPy's
    state = seeding.capture()
    expected = draw()
    draw()
    seeding.restore(state)
    assert draw() == expected


def test_captured_states_go_through_a_file_that_runs_no_code():
    random.gauss(0, 1)
    file = io.BytesIO()
    torch.save(seeding.capture(), file)
    expected = draw()
    file.seek(0)
    seeding.restore(torch.load(file, weights_only=True))
    assert draw() == expected


def test_preserved_leaves_every_generator_as_it_was():
    state = seeding.capture()
    expected = draw()
    seeding.restore(state)
    with seeding.preserved():
        draw()
    assert draw() == expected


def test_preserved_puts_the_generators_back_after_an_error_too():
    state = seeding.capture()
    expected = draw()
    seeding.restore(state)

    @seeding.preserved()
    def fail():
        draw()
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert draw() == expected
