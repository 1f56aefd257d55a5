"""Promise 2, by force: killed anywhere, by whatever means, a run ends as the undisturbed one does, bit by bit, by the same command.

What runs and is killed is ``kills/program.py``; each run is a process of its own, forked off one that has imported torch
(``kills/server.py``), and a few are started from the command line. Compared is every value of every checkpoint of the run
(weights, averages, optimizer, schedule, generators, running sums, callbacks), what ``fit`` returned, the random numbers after
it, and the files that are left.

Most of it is marked slow: ``nox -s kills``.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cvkit.data import FolderDataset, write_shapes, write_shards
from cvkit.training import save_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/stat").exists(), reason="needs Linux")

HERE = Path(__file__).parent / "kills"
BATCHES, EPOCHS = 6, 2
CODES = {"SIGKILL": -9, "SIGTERM": -15, "SIGINT": 0, "exception": 1, "ENOSPC": 1}
slow = pytest.mark.slow


class Runs:
    """Runs the program, as often as asked.

    Args:
        root: Where undisturbed runs go, which are made once for all tests.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shapes = root / "shapes"
        write_shapes(self.shapes / "train", per_class=7, size=20)  # the last batch of an epoch is one sample
        write_shapes(self.shapes / "val", per_class=3, size=20, seed=1)
        for part in ("train", "val"):
            write_shards(FolderDataset(self.shapes / part), self.shapes / "shards" / part, samples_per_shard=4)
        self._check_integer: dict[str, dict] = {}
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        self._server.communicate(timeout=60)

    def arguments(self, directory: Path, options: dict) -> list[str]:
        folder = {"folder": str(self.shapes)} if options.get("data") in ("folder", "shards") else {}
        return [str(directory), json.dumps(options | folder, sort_keys=True)]

    def run(
        self,
        directory: Path,
        options: dict,
        kill: dict | None = None,
        after: float | None = None,
        how: str = "SIGKILL",
    ) -> dict:
        """Runs the program once; returns its exit code and the processes it has left behind."""
        request = {
            "arguments": self.arguments(directory, options),
            "kill": kill,
            "after": after,
            "how": how,
            "log": str(directory) + ".log",
            "limit": 240,
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def killed(self, directory: Path, options: dict, *kills: dict) -> None:
        """Runs the program to each of these ends in turn."""
        for kill in kills:
            assert self.run(directory, options, kill)["code"] == CODES[kill["how"]], said(directory)

    def finished(self, directory: Path, options: dict) -> dict:
        """Runs the program to its own end; returns what the run has come to."""
        assert self.run(directory, options)["code"] == 0, said(directory)
        return json.loads(directory.with_suffix(".json").read_text())

    def whole(self, options: dict) -> dict:
        """Returns what an undisturbed run comes to."""
        key = json.dumps(options, sort_keys=True)
        if key not in self._check_integer:
            directory = self.root / str(len(self._check_integer))
            self._check_integer[key] = self.finished(directory, options) | {"directory": str(directory)}
        return self._check_integer[key]


def said(directory: Path) -> str:
    return Path(str(directory) + ".log").read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("whole"))
    yield runs
    runs.close()


def assert_same(end: dict, whole: dict) -> None:
    a, b = end["leaves"], whole["leaves"]
    other = [f"{place}: {a.get(place)} instead of {b.get(place)}" for place in [*b, *(a.keys() - b.keys())]]
    other = [line for line, place in zip(other, [*b, *(a.keys() - b.keys())]) if a.get(place) != b.get(place)]
    assert not other, f"{len(other)} of {len(b)} values differ:\n" + "\n".join(other[:20])
    assert end["files"] == whole["files"]


def check(runs: Runs, directory: Path, options: dict, *kills: dict, then: dict | None = None) -> int:
    """Kills a run, continues it and compares; returns the batch at which it was continued."""
    runs.killed(directory, options, *kills)
    end = runs.finished(directory, options | (then or {}))
    assert_same(end, runs.whole(options))
    # one that had begun anew would come to the same, and show nothing
    assert end["batches"] == options.get("epochs", EPOCHS) * BATCHES - end["position"]
    return end["position"]


def saved_at(batch: int, how: str, updates: list[int]) -> int:
    """Returns where a run goes on that was ended after a batch, before the update of that was saved."""
    return min(u for u in updates if u >= batch) if how == "SIGTERM" else max((0, *(u for u in updates if u < batch)))


def at(how: str, hook: str, call: int, *, late: bool = False) -> dict:
    return {"how": how, "hook": hook, "call": call, "late": late}


def on_disk(how: str, point: str, save: int) -> dict:
    return {"how": how, "point": point, "save": save}


# --- at every step

SAMPLE = {(0, "SIGKILL", 8), (2, "SIGKILL", 5), (0, "SIGTERM", 6), (2, "exception", 9)}
"""What the usual tests take of it."""

PLAIN = {"schedule": "onecycle"}
RICH = {
    "schedule": "cosine",
    "accumulate": 4,  # and a short group of two
    "clip_norm": 0.5,
    "ema": True,
    "mixup": 0.4,
    "weights": "balanced",
    "patience": 5,
}


def every_step():
    for workers in (0, 2):
        for how in ("SIGKILL", "SIGTERM", "exception"):
            for batch in range(1, EPOCHS * BATCHES + 1):
                marks = [] if (workers, how, batch) in SAMPLE else [slow]
                yield pytest.param(workers, how, batch, marks=marks)


@pytest.mark.parametrize(("workers", "how", "batch"), list(every_step()))
def test_a_run_ended_at_any_step_goes_on_bit_by_bit(tmp_path, runs, workers, how, batch):
    options = PLAIN | {"workers": workers}
    position = check(runs, tmp_path / "run", options, at(how, "on_batch_end", batch))
    assert position == saved_at(batch, how, list(range(1, 13)))


@pytest.mark.parametrize("how", [pytest.param("SIGKILL", marks=slow), pytest.param("SIGTERM", marks=slow)])
@pytest.mark.parametrize("batch", range(1, EPOCHS * BATCHES + 1))
def test_a_run_of_many_parts_ended_at_any_batch_goes_on_bit_by_bit(tmp_path, runs, how, batch):
    position = check(runs, tmp_path / "run", RICH, at(how, "on_batch_end", batch))
    assert position == saved_at(batch, how, [4, 6, 10, 12])


def test_a_run_of_many_parts_killed_twice_goes_on_bit_by_bit(tmp_path, runs):
    kills = at("SIGKILL", "on_batch_end", 5), at("SIGKILL", "on_batch_end", 7)
    assert check(runs, tmp_path / "run", RICH, *kills) == 10


def every_third_step():
    for how in ("SIGKILL", "SIGTERM"):
        for batch in range(1, EPOCHS * BATCHES + 1):
            yield pytest.param(how, batch, marks=[] if (how, batch) == ("SIGTERM", 4) else [slow])


@pytest.mark.parametrize(("how", "batch"), list(every_third_step()))
def test_a_run_that_saves_every_third_step_goes_on_from_an_earlier_one_or_where_a_signal_stopped_it(
    tmp_path, runs, how, batch
):
    options = PLAIN | {"every_steps": 3, "ema": True, "keep_last": 1 if how == "SIGTERM" else 3}
    position = check(runs, tmp_path / "run", options, at(how, "on_batch_end", batch))
    assert position == (batch if how == "SIGTERM" else saved_at(batch, how, [3, 6, 9, 12]))


# --- whatever is trained however

WAYS = {
    "plain": {},
    "seed": {"seed": 5, "preflight": True},
    "accumulate": {"accumulate": 4},
    "accumulate, one group an epoch": {"accumulate": 6},
    "clip": {"clip_norm": 0.1},
    "onecycle, sgd": {"schedule": "onecycle", "optimizer": "momentum"},
    "poly": {"schedule": "poly", "optimizer": "rmsprop"},
    "plateau": {"plateau": True},
    "ema": {"ema": True},
    "ema, background": {"ema": True, "background": True},
    "mixup": {"mixup": 0.4},
    "mixup, workers": {"mixup": 0.4, "workers": 2},
    "balanced": {"weights": "balanced"},
    "fp16": {"precision": "fp16"},
    "bf16": {"precision": "bf16"},
    "background": {"background": True},
    "background, workers": {"background": True, "workers": 2},
    "keeps three": {"keep_last": 3},
    "no validation": {"val": False},
    "cache": {"cache": "ram"},
    "cache, workers": {"cache": "ram", "workers": 2},
    "folder": {"data": "folder"},
    "folder, workers": {"data": "folder", "workers": 2},
    "folder, cache": {"data": "folder", "cache": "ram"},
    "folder, crops": {"data": "folder", "preset": "crops"},
    "folder, crops, workers": {"data": "folder", "preset": "crops", "workers": 2},
    "folder, crops, cache": {"data": "folder", "preset": "crops", "cache": "ram", "workers": 2},
    "shards": {"data": "shards", "shuffle": "blocks"},
    "shards, workers": {"data": "shards", "shuffle": "blocks", "preset": "crops", "workers": 2},
    "shards, computed": {"data": "shards", "shuffle": "computed", "cache": "ram"},
    "foreign": {"data": "foreign"},
    "foreign, workers": {"data": "foreign", "workers": 2},
    "foreign, generator": {"data": "foreign", "generator": True},
    "foreign, generator, workers": {"data": "foreign", "generator": True, "workers": 2, "accumulate": 4},
}
MOMENTS = {
    "in the first epoch": (at("SIGKILL", "on_batch_end", 3),),
    "in the second epoch": (at("SIGKILL", "on_batch_end", 11),),
    "between epochs": (at("SIGKILL", "on_epoch_end", 1, late=True),),
    "in the validation": (at("SIGTERM", "on_validation_batch_end", 2),),
    "by SIGTERM, then twice": (
        at("SIGTERM", "on_batch_end", 2),
        at("SIGKILL", "on_batch_start", 2),
        at("SIGKILL", "on_batch_end", 4),
    ),
}


def ways():
    sample = {
        ("ema, background", "in the second epoch"),
        ("foreign, workers", "in the second epoch"),
        ("folder, crops, cache", "in the first epoch"),
        ("shards, workers", "in the first epoch"),
    }
    for way, options in WAYS.items():
        for moment, kills in MOMENTS.items():
            marks = [] if (way, moment) in sample else [slow]
            if moment == "in the validation" and not options.get("val", True):
                continue
            yield pytest.param(options, kills, marks=marks, id=f"{way}, {moment}")


@pytest.mark.parametrize(("options", "kills"), list(ways()))
def test_a_run_of_any_kind_goes_on_bit_by_bit(tmp_path, runs, options, kills):
    check(runs, tmp_path / "run", options, *kills)


@slow
@pytest.mark.parametrize("call", range(1, 4))
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_patience_is_not_given_anew(tmp_path, runs, how, late, call):
    options = {"patience": 1, "epochs": 6, "every_steps": None}
    assert runs.whole(options)["leaves"][".result.2"] == "'early_stopping'"
    runs.killed(tmp_path / "run", options, at(how, "on_epoch_end", call, late=late))
    assert_same(runs.finished(tmp_path / "run", options), runs.whole(options))


@slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@pytest.mark.parametrize("batch", [2, 6, 11])
def test_a_compiled_run_goes_on_bit_by_bit(tmp_path, runs, batch):
    check(runs, tmp_path / "run", PLAIN | {"compile": True}, at("SIGKILL", "on_batch_end", batch))


@slow
@pytest.mark.parametrize("data", ["arrays", "folder", "shards", "foreign"])
@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 3)])
@pytest.mark.parametrize("batch", [4, 9])
def test_another_number_of_workers_goes_on_bit_by_bit(tmp_path, runs, data, before, after, batch):
    # samples that draw from the global generators would depend on who draws
    options = {"data": data, "workers": before} | ({"noisy": False} if data == "foreign" else {"mixup": 0.2})
    check(runs, tmp_path / "run", options, at("SIGKILL", "on_batch_end", batch), then={"workers": after})


@slow
@pytest.mark.parametrize("preset", ["small", "crops"])
@pytest.mark.parametrize(("before", "after"), [(None, "ram"), ("ram", None)])
def test_another_cache_goes_on_bit_by_bit(tmp_path, runs, preset, before, after):
    options = {"data": "folder", "preset": preset, "cache": before}
    check(runs, tmp_path / "run", options, at("SIGKILL", "on_batch_end", 9), then={"cache": after})


# --- with something changed in between

CHANGES = {
    "lr": ({}, {"lr": 0.01}, "AdamW's lr: 0.02 then, 0.01 now"),
    "lr, schedule": (PLAIN, {"lr": 0.01}, "AdamW's lr: 0.02 then, 0.01 now"),
    "schedule": ({"schedule": "poly"}, {"schedule": "linear"}, "schedule: PolynomialLR then, LinearLR now"),
    "clip_norm": ({"clip_norm": 0.1}, {"clip_norm": 0.5}, "clip_norm: 0.1 then, 0.5 now"),
    "precision": ({}, {"precision": "bf16"}, "precision: fp32 then, bf16 now"),
    "loss": ({"smoothing": 0.0}, {"smoothing": 0.1}, "the loss's label_smoothing: 0.0 then, 0.1 now"),
    "model": ({"ema": True}, {"dropout": 0.4}, "the layer 3: Dropout(p=0.2, inplace=False) then, Dropout(p=0.4, "),
    "callbacks": ({"ema": True}, {"decay": 0.5}, "EMA's decay: 0.9 then, 0.5 now"),
    "callbacks, more": ({}, {"ema": True, "patience": 5}, "callbacks: none then, EMA, EarlyStopping now"),
    "transform": ({"data": "folder", "workers": 2}, {"preset": "crops"}, "transform: small_image_train then, classif"),
    "transform, mixup": ({}, {"mixup": 0.4}, "the transform's mixup: 0.0 then, 0.4 now"),
    "data": (PLAIN, {"batch": 8}, "batches: 6 then, 3 now; batch size: 4 then, 8 now"),
    "data, drop_last": ({"workers": 2}, {"drop_last": True}, "batches: 6 then, 5 now; drop_last: False then, True now"),
    "accumulate": (PLAIN, {"accumulate": 2}, "accumulate: 1 then, 2 now"),
    "optimizer": (PLAIN, {"optimizer": "momentum"}, "optimizer: AdamW then, SGD now"),
    "val+callbacks": ({}, {"val": False}, "val data given: yes then, no now"),
}
BETWEEN = {"data", "accumulate"}
"""What changes between epochs only."""


def changes():
    sample = {"lr, schedule", "callbacks", "data"}
    for name, case in CHANGES.items():
        yield pytest.param(name.partition(",")[0], *case, marks=[] if name in sample else [slow], id=name)


@pytest.mark.parametrize(("part", "before", "change", "told"), list(changes()))
def test_a_change_after_a_kill_is_refused_and_one_that_is_meant_goes_on_bit_by_bit(
    tmp_path, runs, part, before, change, told
):
    moment = at("SIGKILL", "on_epoch_start", 2) if part in BETWEEN else at("SIGKILL", "on_batch_end", 4)
    refused, meant, again = (tmp_path / name for name in ("refused", "meant", "again"))
    for directory in (refused, meant, again):
        runs.killed(directory, before, moment)
    after = before | change
    assert runs.run(refused, after)["code"] == 1
    assert f"got: {told}" in said(refused)
    assert_same(runs.finished(refused, before), runs.whole(before))  # the refusal has left everything as it was
    after |= {"override": part.split("+")}
    runs.killed(again, after, at("SIGKILL", "on_batch_end", 3))
    end = runs.finished(again, after)
    assert end["position"] > 0
    assert_same(end, runs.finished(meant, after))


# --- at any hook

HOOKS = {
    "on_fit_start": (1,),
    "on_epoch_start": (1, 2),
    "on_batch_start": (1, 2, 7),
    "on_gradients_ready": (1, 3, 6),  # an update takes two batches
    "on_validation_batch_end": (1, 3, 5),
    "on_validation_end": (1, 2),
    "on_epoch_end": (1, 2),
    "on_fit_end": (1,),
}


def hooks():
    for hook, calls in HOOKS.items():
        for call in calls:
            for how in ("SIGKILL", "SIGTERM", "exception"):
                for late in (False, True):
                    yield pytest.param(at(how, hook, call, late=late), marks=slow, id=f"{how}-{hook}-{call}-{late}")


@pytest.mark.parametrize("kill", list(hooks()))
def test_a_run_ended_in_any_hook_goes_on_bit_by_bit(tmp_path, runs, kill):
    check(runs, tmp_path / "run", PLAIN | {"ema": True, "accumulate": 2, "background": True}, kill)


# --- while a checkpoint is written

POINTS = ("half written", "before fsync", "after fsync", "before replace", "after replace", "after directory fsync")


def saves():
    for background in (False, True):
        for how in ("SIGKILL", "SIGTERM", "ENOSPC"):
            for point in POINTS:
                for save in (1, 6, 7, 9):  # of the first step; best.pt and last.pt of the first epoch; in the second
                    sample = (background, how, point, save) in {
                        (False, "SIGKILL", "half written", 7),
                        (True, "SIGKILL", "after replace", 6),
                    }
                    name = f"{'background' if background else 'blocking'}-{how}-{point}-{save}"
                    yield pytest.param(background, on_disk(how, point, save), marks=[] if sample else [slow], id=name)


@pytest.mark.parametrize(("background", "kill"), list(saves()))
def test_a_run_ended_while_it_saves_goes_on_bit_by_bit(tmp_path, runs, background, kill):
    position = check(runs, tmp_path / "run", PLAIN | {"background": background, "keep_last": 2}, kill)
    batch = {1: 1, 6: 6, 7: 6, 9: 8}[kill["save"]]
    reached = kill["save"] != 6 and POINTS.index(kill["point"]) >= POINTS.index("after replace")
    if kill["how"] == "SIGKILL":
        assert position == batch - (not reached)
    else:
        assert position >= batch - (kill["how"] == "ENOSPC")


@pytest.mark.parametrize("point", [pytest.param(point, marks=slow) for point in POINTS])
def test_a_run_killed_in_two_saves_in_a_row_goes_on_bit_by_bit(tmp_path, runs, point):
    kills = on_disk("SIGKILL", point, 4), on_disk("SIGKILL", point, 2), on_disk("SIGKILL", point, 1)
    check(runs, tmp_path / "run", RICH | {"accumulate": 2}, *kills)


# --- at any time


@slow
@pytest.mark.parametrize("seed", range(8))
def test_a_run_killed_from_outside_again_and_again_goes_on_bit_by_bit(tmp_path, runs, seed):
    options = [RICH, PLAIN | {"workers": 2}, {"data": "foreign", "workers": 2}, {"background": True, "ema": True}][
        seed % 4
    ]
    directory, draw, kills = tmp_path / "run", random.Random(seed), 0
    for attempt in range(60):  # at first so soon that no machine is done by then, and later each time
        code = runs.run(directory, options, after=draw.uniform(0.02, 0.08) * (1 + attempt / 4))["code"]
        assert code in (0, -9), said(directory)
        kills += code == -9
        if code == 0:
            break
    assert kills > 0
    assert_same(runs.finished(directory, options), runs.whole(options))


# --- by a signal to the run and all of its workers, twice: by a terminal, timeout, SLURM, Kubernetes

HOURS = {  # when it comes, and the batch that the run then goes on from
    "before a batch": (at("SIGTERM", "on_batch_start", 3), 3),
    "before an update": (at("SIGTERM", "on_gradients_ready", 8), 8),
    "after a batch": (at("SIGTERM", "on_batch_end", 5), 5),
    "after an epoch": (at("SIGTERM", "on_epoch_end", 1), 6),
    "before an epoch": (at("SIGTERM", "on_epoch_start", 2), 7),
    "in the validation": (at("SIGTERM", "on_validation_batch_end", 2), 6),
    "while the last state is saved": (on_disk("SIGTERM", "half written", 2), 6),
}


def groups():
    sample = {
        ("SIGTERM", "arrays", 2, "fork", "before a batch"),
        ("SIGTERM", "foreign", 2, "fork", "before a batch"),
        ("SIGINT", "foreign", 2, "fork", "in the validation"),
        ("SIGTERM", "arrays", 0, "fork", "while the last state is saved"),
    }
    for how in ("SIGTERM", "SIGINT"):
        for data in ("arrays", "foreign"):
            for workers, start in ((0, "fork"), (2, "fork"), (2, "spawn"), (2, "forkserver")):
                for hour, (kill, position) in HOURS.items():
                    if start != "fork" and hour not in ("before a batch", "in the validation"):
                        continue
                    marks = [] if (how, data, workers, start, hour) in sample else [slow]
                    options = {"data": data, "workers": workers, "start": start, "every_steps": None}
                    name = f"{how}-{data}-{workers}-{start}-{hour}"
                    yield pytest.param(options, kill | {"how": how, "group": 2}, position, marks=marks, id=name)


@pytest.mark.parametrize(("options", "kill", "position"), list(groups()))
def test_a_run_whose_whole_group_is_signalled_is_saved_where_it_stands_and_goes_on_bit_by_bit(
    tmp_path, runs, options, kill, position
):
    ended = runs.run(tmp_path / "run", options, kill)
    assert ended["code"] == CODES[kill["how"]], said(tmp_path / "run")
    assert "DataLoader worker" not in said(tmp_path / "run")
    assert "Traceback" not in said(tmp_path / "run")
    end = runs.finished(tmp_path / "run", options | {"start": "fork"})
    assert end["position"] == position
    assert_same(end, runs.whole(options | {"start": "fork"}))
    assert gone(ended["left"])


@slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("data", ["arrays", "foreign"])
@pytest.mark.parametrize("batch", [1, 4, 6, 9])
def test_a_signal_to_the_group_waits_for_the_end_of_an_accumulated_group(tmp_path, runs, how, data, batch):
    options = {"data": data, "workers": 2, "accumulate": 4, "every_steps": None}
    runs.killed(tmp_path / "run", options, at(how, "on_batch_start", batch) | {"group": 2})
    end = runs.finished(tmp_path / "run", options)
    assert end["position"] == min(update for update in (4, 6, 10, 12) if update >= batch)
    assert_same(end, runs.whole(options))


@slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("data", ["arrays", "foreign"])
@pytest.mark.parametrize("seed", range(4))
def test_a_run_whose_whole_group_is_signalled_from_outside_goes_on_bit_by_bit(tmp_path, runs, how, data, seed):
    options = {"data": data, "workers": 2, "epochs": 12, "every_steps": None, "every_epochs": 50}
    directory, draw, stops = tmp_path / "run", random.Random(seed), 0
    for attempt in range(40):
        code = runs.run(directory, options, after=draw.uniform(0.05, 0.2) * (1 + attempt / 4), how=how)["code"]
        # before fit, whose handlers they are, a signal does what it always does
        assert code in ((0, -15) if how == "SIGTERM" else (0, 1)), said(directory)
        stops += (directory / "last.pt").exists()
        if directory.with_suffix(".json").exists():
            break
    assert stops > 1
    assert "DataLoader worker" not in said(directory)
    assert_same(runs.finished(directory, options), runs.whole(options))


# --- as users do it


@slow
@pytest.mark.parametrize(
    "kill",
    [
        at("SIGKILL", "on_batch_end", 5),
        at("SIGTERM", "on_batch_end", 9),
        at("exception", "on_validation_batch_end", 2),
        on_disk("SIGKILL", "half written", 4),
    ],
    ids=lambda kill: f"{kill['how']}-{kill.get('hook') or kill['point']}",
)
def test_a_command_that_was_killed_goes_on_bit_by_bit(tmp_path, runs, kill):
    options = PLAIN | {"workers": 2, "ema": True}
    command = [sys.executable, str(HERE / "program.py"), *runs.arguments(tmp_path / "run", options)]
    killed = subprocess.run(command, env=os.environ | {"KILL": json.dumps(kill)}, capture_output=True, text=True)
    assert killed.returncode == CODES[kill["how"]], killed.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    end = json.loads((tmp_path / "run.json").read_text())
    assert end["position"] > 0
    assert_same(end, runs.whole(options))


@slow
def test_a_kill_leaves_nothing_that_is_in_the_way(tmp_path, runs):
    options = PLAIN | {"workers": 2}
    killed = runs.run(tmp_path / "run", options, on_disk("SIGKILL", "half written", 4))
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert len(killed["left"]) == 2, "the workers have had no time to notice"
    assert ".lock" in left
    assert [name for name in left if name.endswith(".tmp")], "what was half written"
    end = runs.finished(tmp_path / "run", options)  # at once
    assert_same(end, runs.whole(options))
    assert end["files"] == ["best.pt", "last.pt", "log.csv"]
    assert gone(killed["left"])


def gone(processes: list[int]) -> bool:
    """Waits until processes have ended; torch's workers look every five seconds whether their parent lives."""
    deadline = time.monotonic() + 30
    while (left := any(Path(f"/proc/{one}").exists() for one in processes)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not left


@slow
def test_workers_of_a_run_that_an_exception_or_a_signal_ended_go_too(tmp_path, runs):
    assert runs.run(tmp_path / "a", {"workers": 2}, at("exception", "on_batch_end", 4))["left"] == []
    # by a signal's own action a process ends without a farewell
    assert gone(runs.run(tmp_path / "b", {"workers": 2}, at("SIGTERM", "on_batch_end", 4))["left"])


@slow
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("data", ["arrays", "foreign"])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_a_run_that_is_gone_leaves_no_process_behind_however_its_workers_started(tmp_path, runs, how, data, start):
    options = {"data": data, "workers": 2, "start": start}
    ended = runs.run(tmp_path / "run", options, at(how, "on_batch_end", 4))
    assert ended["code"] == CODES[how]
    assert gone(ended["left"])


# --- TensorBoard


def points(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the points of every chart as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in sorted({path.parent for path in directory.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found[f"{run.relative_to(directory)}/{tag}"] = [(one.step, one.value) for one in events.Scalars(tag)]
    return found


CURVES = {
    "after a save": (at("SIGKILL", "on_batch_end", 4),),
    "before a save": (at("SIGKILL", "on_batch_start", 6),),
    "in the validation": (at("SIGKILL", "on_validation_batch_end", 2),),
    "between epochs": (at("SIGKILL", "on_epoch_end", 1, late=True),),
    "before the epoch is saved": (at("SIGKILL", "on_epoch_end", 1),),
    "in the second epoch": (at("SIGKILL", "on_batch_end", 11),),
    "before anything was saved": (at("SIGKILL", "on_batch_end", 2),),
    "by SIGTERM": (at("SIGTERM", "on_batch_end", 5),),
    "by an exception": (at("exception", "on_batch_end", 5),),
    "while saving": (on_disk("SIGKILL", "half written", 3),),
    "twice": (at("SIGKILL", "on_batch_end", 5), at("SIGKILL", "on_batch_end", 6)),
    "twice at one step": (at("SIGKILL", "on_batch_end", 5), at("SIGKILL", "on_batch_end", 2)),
}


@pytest.mark.parametrize(
    "kills",
    [pytest.param(kills, id=name, marks=[] if name == "while saving" else [slow]) for name, kills in CURVES.items()],
)
@pytest.mark.parametrize("every_steps", [pytest.param(1, marks=slow), 3])
def test_curves_of_a_killed_run_have_no_point_twice_and_no_gap(tmp_path, runs, kills, every_steps):
    options = {"tensorboard": True, "every_steps": every_steps}
    whole = runs.whole(options)
    check(runs, tmp_path / "run", options, *kills)
    found, expected = points(tmp_path / "run" / "events"), points(Path(whole["directory"], "events"))
    assert any([step for step, _ in chart] == list(range(1, 13)) for chart in expected.values()), "a point a step"
    assert whole["batches"] == EPOCHS * BATCHES
    assert found.keys() == expected.keys()
    for tag, chart in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in chart], tag
        if any(word in tag for word in ("loss", "accuracy", "lr")):  # what is no measure of time is the same
            assert found[tag] == chart, tag


# --- the tests themselves


def test_the_comparison_sees_a_single_bit(runs):
    whole = runs.whole(PLAIN)
    places = {place.split(".")[1] for place in whole["leaves"] if "." in place}
    assert {"rng", "weights", "history", "result", "last", "best"} <= places
    assert any("exp_avg_sq" in place for place in whole["leaves"])
    for place in list(whole["leaves"])[1::50]:
        changed = whole["leaves"] | {place: whole["leaves"][place] + "0"}
        with pytest.raises(AssertionError, match="1 of "):
            assert_same(whole | {"leaves": changed}, whole)


def test_a_run_that_went_on_from_another_state_is_told(tmp_path, runs):
    """Shows that what the cases compare does depend on what is restored: a step that is one later ends otherwise."""
    import torch

    directory = tmp_path / "run"
    runs.killed(directory, PLAIN, at("SIGKILL", "on_batch_end", 8))
    content = torch.load(directory / "last.pt", weights_only=True)
    content["training"]["batch"] += 1
    save_checkpoint(directory / "last.pt", content)
    end = runs.finished(directory, PLAIN)
    with pytest.raises(AssertionError, match="values differ"):
        assert_same(end, runs.whole(PLAIN))
