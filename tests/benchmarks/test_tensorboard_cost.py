import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("tensorboard_cost")
    sys.modules.pop("tensorboard_cost", None)


def test_every_way_trains_and_writes_what_it_says(cost, tmp_path):
    for number, (name, callbacks) in enumerate(cost.STEPS.items()):
        assert cost.epoch_seconds(callbacks(tmp_path / str(number)), 3) > 0
        written = list((tmp_path / str(number)).rglob("events.*"))
        assert bool(written) == (not name.startswith("without"))


def test_a_table_shows_medians_with_their_spread(cost):
    assert cost.table("ms", {"a": [1.0, 2.0, 3.0], "b": [1000.0]}, 1).splitlines() == [
        "| | ms |",
        "| --- | --- |",
        "| a | 2.0 (1.2 … 2.8) |",
        "| b | 1,000.0 (1,000.0 … 1,000.0) |",
    ]
