import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ["again", "in_place", "cvkit", "cvkit_preflight", "tutorial"]
PEERS = ["skorch", "ignite", "fastai", "lightning", "keras"]


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name in ("loop", "peers") or name.startswith("peers.")]:
        del sys.modules[name]


@pytest.fixture
def loop():
    return importlib.import_module("loop")


def test_every_contender_has_a_title(loop):
    assert list(loop.TITLES) == OURS + PEERS
    assert all((BENCHMARKS / "peers" / f"{name}.py").is_file() for name in loop.TITLES)


@pytest.mark.parametrize("name", OURS)
def test_the_loop_trains_the_weights_of_the_hand_written_one(name):
    serve = importlib.import_module("peers.serve")
    assert serve.check(importlib.import_module(f"peers.{name}").prepare) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_an_installed_peer_trains_the_weights_of_the_hand_written_loop(loop, name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    contender = loop.Contender(name, steps=100)
    contender.warm_up()
    contender.close()
    assert contender.difference < 1e-6


def test_a_contender_that_trains_something_else_is_refused():
    serve, work = importlib.import_module("peers.serve"), importlib.import_module("peers.work")

    def prepare(given, bar):
        run = work.hand_written(given)

        def twice():
            run()
            return run()

        return twice

    with pytest.raises(RuntimeError, match=r"^it trains other weights: they differ by up to "):
        serve.check(prepare)


def test_a_contender_that_reports_something_else_is_refused():
    serve, work = importlib.import_module("peers.serve"), importlib.import_module("peers.work")

    def prepare(given, bar):
        run = work.hand_written(given)
        return lambda: (run()[0], 2.0)

    with pytest.raises(RuntimeError, match=r"^it reports another accuracy: 2\.0 instead of 0\.\d+$"):
        serve.check(prepare)


def test_a_contender_that_is_not_installed_is_skipped_with_a_line_that_says_so(loop, capsys):
    assert loop.start(["absent"], 200) == []
    assert capsys.readouterr().err == "skipped absent: not installed (No module named 'peers.absent')\n"


def test_the_report_is_a_table_with_a_row_for_each_contender(loop):
    header, _, *lines = loop.measure(["cvkit"], rounds=2, steps=200).splitlines()
    assert header.startswith("A step of the hand-written loop: ")
    assert header.endswith(" µs CPU; 2 rounds of up to 200 steps, one thread.")
    assert lines[0] == "| | added µs a step, bar off (10–90 %) | bar on (10–90 %) | once a call, ms |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| **cvkit.fit**"]


def test_what_is_reported_is_the_difference_of_slopes(loop):
    one = object.__new__(loop.Contender)
    one.steps = 150
    one.runs = [{"hand": (0.010, 0.030), "off": (0.012, 0.033), "on": (0.012, 0.035)}] * 2
    assert one.added("off") == pytest.approx([10.0, 10.0])
    assert one.added("on") == pytest.approx([30.0, 30.0])
    assert one.once() == pytest.approx(1.5)


def test_the_spread_is_the_median_with_the_outer_deciles(loop):
    assert loop.spread([float(value) for value in range(11)]) == "5.0 (1.0 … 9.0)"
    assert loop.spread([1000.0, 1001.0, 1002.0]) == "1001 (1000 … 1002)"


def test_peers_can_be_chosen_by_name(loop):
    assert loop.wanted("none") == OURS
    assert loop.wanted("keras,skorch") == [*OURS, "skorch", "keras"]
    assert loop.wanted("all") == OURS + PEERS
    with pytest.raises(SystemExit, match=r"--peers got torch; expected all, none, or some of skorch,ignite,"):
        loop.wanted("torch")
