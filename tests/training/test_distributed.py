"""Promise 5: as many processes as you like come to what one comes to.

The ranks run ``ranks/program.py``, forked off one process that has imported torch (``ranks/server.py``). Most of the table is
marked slow: ``nox -s ranks``.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cvkit.data import ArrayDataset, Loader
from cvkit.errors import ArgumentError
from cvkit.metrics import Accuracy
from cvkit.training.distributed import launched, wait_limit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

HERE = Path(__file__).parent / "ranks"
slow = pytest.mark.slow


class Ranks:
    """Runs the program on several ranks."""

    def __init__(self, root):
        self.root = root
        self.count = 0
        self.one = {}
        self.server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, ranks, options, **request):
        """Returns the exit codes, and where what the ranks have come to is."""
        self.count += 1
        output = self.root / f"run{self.count}"
        self.server.stdin.write(
            json.dumps(request | {"ranks": ranks, "options": options, "output": str(output)}) + "\n"
        )
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline()), output

    def finished(self, ranks, options):
        """Returns what each rank has come to; all end cleanly, with the same."""
        answer, output = self.run(ranks, options)
        assert answer["codes"] == [0] * ranks, self.said(output, ranks)
        ends = [torch.load(f"{output}-{rank}.pt", weights_only=True) for rank in range(ranks)]
        for end in ends[1:]:
            assert end["digests"] == ends[0]["digests"]  # bit by bit, after every epoch
            assert (end["history"], end["evaluate"]) == (ends[0]["history"], ends[0]["evaluate"])
            assert (end["stop"], end["steps"]) == (ends[0]["stop"], ends[0]["steps"])
        return ends[0]

    def alone(self, options):
        """Returns what one process comes to."""
        key = json.dumps(options, sort_keys=True)
        if key not in self.one:
            self.one[key] = self.finished(1, options)
        return self.one[key]

    def said(self, output, ranks):
        return "\n".join(Path(f"{output}-{rank}.log").read_text() for rank in range(ranks))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.server.communicate(timeout=60)


def assert_equal(end, other, bound=1e-12):
    for name, value in other["weights"].items():
        torch.testing.assert_close(end["weights"][name], value, rtol=bound, atol=bound)
    assert len(end["history"]) == len(other["history"])
    for row, wanted in zip(end["history"], other["history"]):
        assert row == pytest.approx(wanted, rel=bound, abs=bound)
        assert row["val_accuracy"] == wanted["val_accuracy"]  # a count
    assert end["evaluate"] == pytest.approx(other["evaluate"], rel=bound, abs=bound)
    assert (end["stop"], end["steps"]) == (other["stop"], other["steps"])
    assert torch.equal(end["torch"], other["torch"])


FEATURES = {
    "plain": {},
    "class weights": {"loss": "class weights"},
    "ignore_index": {"loss": "ignore_index"},
    "sum": {"loss": "sum"},
    "clip": {"clip": 0.1},
    "mixup": {"mixup": True},
    "batch norm": {"norm": True},
    "ema": {"ema": True},
    "schedule": {"schedule": "cosine"},
    "torch loader": {"data": "torch"},
}

SAMPLE = [
    (2, {"samples": 25, "accumulate": 3, "norm": True, "clip": 0.1}),  # one sample in the last batch: rank 0 has none
    (3, {"samples": 25, "norm": True, "mixup": True, "schedule": "cosine"}),
    (3, {"samples": 26, "loss": "class weights", "accumulate": 3, "ema": True}),
    (2, {"samples": 27, "loss": "ignore_index", "data": "torch", "norm": True}),
]


@pytest.mark.parametrize(("count", "options"), SAMPLE)
def test_several_ranks_come_to_what_one_process_comes_to(ranks, count, options):
    assert_equal(ranks.finished(count, options), ranks.alone(options))


@slow
@pytest.mark.parametrize(
    ("count", "left", "accumulate", "feature"), list(itertools.product((2, 3, 4), (0, 1, 3), (1, 3), FEATURES))
)
def test_the_table(ranks, count, left, accumulate, feature):
    options = FEATURES[feature] | {"samples": 24 + left, "accumulate": accumulate}
    assert_equal(ranks.finished(count, options), ranks.alone(options))


@slow
@pytest.mark.parametrize("count", [2, 3])
def test_fp32_is_equal_within_rounding(ranks, count):
    options = {"norm": True, "samples": 27, "dtype": "float32"}
    assert_equal(ranks.finished(count, options), ranks.alone(options), bound=1e-4)


def test_one_rank_stops_all_at_the_same_step(ranks):
    end = ranks.finished(3, {"samples": 25, "act": [1, 2, "stop"]})
    assert (end["stop"], end["steps"]) == ("enough", 3)  # asked for after step 2, done a batch later


def test_a_failing_rank_ends_all_and_is_named(ranks):
    answer, output = ranks.run(3, {"act": [1, 2, "raise"]})
    assert answer["codes"] == [1, 1, 1]
    for rank in (0, 2):
        said = Path(f"{output}-{rank}.log").read_text()
        assert "RankError: rank 1 has ended the run" in said
        assert "got: ValueError: the disk of this rank is on fire" in said


def test_a_killed_rank_ends_all_and_is_named(ranks):
    answer, output = ranks.run(3, {"act": [1, 2, "SIGKILL"]})
    assert answer["codes"] == [1, -9, 1]
    assert "RankError: rank 1 is gone or does not answer" in Path(f"{output}-0.log").read_text()


@slow
def test_a_rank_that_stands_still_ends_all_within_the_limit(ranks):
    answer, output = ranks.run(3, {"act": [1, 2, "SIGSTOP"]}, timeout=5, limit=40)
    assert answer["codes"] == [1, -9, 1]  # the one that stands still is killed by the test
    assert "RankError: rank 1 is gone or does not answer" in Path(f"{output}-2.log").read_text()


def test_a_call_on_some_ranks_is_refused(ranks):
    answer, output = ranks.run(2, {"only": 0}, timeout=3)
    assert answer["codes"] == [1, 0]
    assert "RankError: " in Path(f"{output}-0.log").read_text()


def test_a_run_goes_on_under_another_number_of_ranks(ranks, tmp_path):
    options = {"samples": 25, "norm": True, "accumulate": 1, "mixup": True}
    kept = options | {"directory": str(tmp_path / "run")}
    first = ranks.finished(3, kept | {"act": [2, 1, "stop"]})
    assert (first["stop"], first["steps"]) == ("enough", 2)
    second = ranks.finished(1, kept | {"resume": True, "act": [0, 5, "stop"]})
    assert second["steps"] == 5
    assert_equal(ranks.finished(2, kept | {"resume": True}), ranks.alone(options))


def test_sigterm_to_all_saves_and_a_resume_is_bitwise_with_dropout(ranks, tmp_path):
    options = {"samples": 25, "dropout": True}
    kept = options | {"directory": str(tmp_path / "run")}
    answer, output = ranks.run(2, kept | {"act": [1, 3, "SIGTERM"]})
    assert answer["codes"][1] == -15, ranks.said(output, 2)  # the one that got it ends by it, the other in its own time
    end = ranks.finished(2, kept | {"resume": True})
    whole = ranks.finished(2, options)
    assert all(torch.equal(end["weights"][name], value) for name, value in whole["weights"].items())
    assert end["history"] == whole["history"]


def test_a_distributed_sampler_trains(ranks):
    assert ranks.finished(2, {"data": "sampler", "samples": 24})["steps"] == 6


@slow
def test_a_hundred_launches_end_cleanly(ranks, tmp_path):
    codes = [
        ranks.run(2, {"epochs": 1, "samples": 9, "norm": True, "directory": str(tmp_path / str(run))})[0]["codes"]
        for run in range(100)
    ]
    assert codes == [[0, 0]] * 100


# --- in one process


def test_shares_put_together_are_the_batch():
    images = torch.arange(7).view(7, 1, 1, 1).to(torch.uint8)
    loader = Loader(ArrayDataset(images, torch.arange(7)), 4, shuffle=True, workers=0)
    for count in (2, 3, 5):
        parts = [list(loader.batches(share=(rank, count))) for rank in range(count)]
        for place, whole in enumerate(loader.batches()):
            rows = [part[place].targets[: part[place].part.rows] for part in parts]
            assert torch.cat(rows).tolist() == whole.targets.tolist()
            assert all(len(part[place].targets) >= 1 for part in parts)  # a sample stands in where there is none


def test_metrics_merge_as_if_one_had_seen_all():
    outputs, targets = torch.randn(10, 3), torch.arange(10) % 3
    whole, parts, end = Accuracy(), [Accuracy(), Accuracy()], Accuracy()
    whole.update(outputs, targets)
    parts[0].update(outputs[:4], targets[:4])
    parts[1].update(outputs[4:], targets[4:])
    end.merge([part.state_dict() for part in parts])
    assert end.compute() == whole.compute()


def test_without_a_launcher_there_is_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() == 1


def test_the_limit_is_checked(monkeypatch):
    monkeypatch.setenv("CVKIT_RANK_TIMEOUT", "soon")
    with pytest.raises(ArgumentError) as refused:
        wait_limit()
    assert str(refused.value) == (
        "CVKIT_RANK_TIMEOUT cannot be used\n  got: 'soon'\n  expected: seconds, a number above 0\n"
        "  fix: unset it for 300 seconds"
    )
