"""What is said while a run trains, from the numbers of its epochs."""

import math

import pytest
import torch
from torch import nn

import cvkit
from cvkit.diagnosis.progress import judge
from cvkit.errors import CvkitWarning


def _rows(train, val=None, steps=100):
    rows = [{"epoch": place + 1, "step": steps * (place + 1), "train_loss": one} for place, one in enumerate(train)]
    for row, one in zip(rows, val or (), strict=False):
        row["val_loss"] = one
    return rows


def _codes(*given, classes=None, **more):
    return [one.code for one in judge(_rows(*given, **more), classes)]


def test_a_loss_at_chance():
    chance = math.log(10)
    assert _codes([chance + 0.003, chance, chance - 0.002], classes=10) == ["CV901"]
    assert _codes([chance, chance], classes=10) == []  # too few updates to tell
    assert _codes([chance, chance - 0.1, chance - 0.2], classes=10) == []
    assert _codes([chance] * 5, classes=None) == []


def test_a_loss_that_exploded():
    assert _codes([2.0, 5.0, 4e6]) == ["CV902"]
    assert _codes([2.0, 5.0, 400.0]) == []
    assert _codes([-2.0, 5.0, 4e6]) == []
    assert _codes([4e6, 3e6, 2e6]) == []
    assert _codes([2.0, math.nan, 4e6]) == []


def test_a_gap_that_grows():
    falls, rises = [1 / (place + 1) for place in range(8)], [0.6 + 0.1 * place for place in range(8)]
    assert _codes(falls, rises) == ["CV903"]
    assert _codes(falls, falls) == []
    assert _codes(rises, rises) == []
    assert _codes(falls, rises, steps=1) == []
    assert _codes(falls[:5], rises[:5]) == []
    assert _codes(falls, [*rises[:5], 0.5, *rises[6:]]) == []


def _run(**options):
    train = [(torch.zeros(4, 3), torch.arange(4)) for _ in range(160)]  # all images alike
    model = nn.Linear(3, 4)
    nn.init.zeros_(model.bias)
    options = {"epochs": 4, "lr": 1e-6, "progress": False, "device": "cpu", **options}
    return cvkit.fit(model, train, **options)


def test_it_is_said_once_a_run_and_not_where_it_is_ignored():
    with pytest.warns(CvkitWarning) as found:
        _run(ignore=())
    said = [str(one.message) for one in found]
    assert (
        sum(one.startswith("CV901: after 2 epochs the training loss is still what guessing gives") for one in said) == 1
    )
    _run(ignore=("CV901",))  # a warning would be an error here


def test_nothing_is_said_without_preflight():
    _run(preflight=False)
