"""Worker processes: the same batches whoever makes them, and what is said of one that dies or hangs."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from itertools import chain
from pathlib import Path

import pytest
import torch
from torchvision.transforms import v2

from cvkit.data import FolderDataset, Loader, write_shapes
from cvkit.data.fetch import Fetcher
from cvkit.errors import DataError
from cvkit.transforms import classification_eval, classification_train, small_image_train


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return FolderDataset(write_shapes(tmp_path_factory.mktemp("data") / "shapes", per_class=6, size=20))


@pytest.fixture
def quick(monkeypatch):
    """torch looks every 5 seconds whether its workers live, and waits as long for each to end."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("cvkit.data.workers._LOOK", 0.2)


class Fixed(list):
    """Samples of any kind, the same each time."""

    deterministic = True


STAGES = {"fixed": small_image_train(16), "random": classification_train(16)}
if not sys.platform.startswith("linux"):
    pytest.skip("processes start otherwise here", allow_module_level=True)


def epoch(loader, number=0, start=0):
    loader.set_epoch(number)
    return [loader.finish(raw) for raw in loader.batches(start)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def pids(loader):
    return [process.pid for process in loader._makers._processes._iterator._workers]


def drawing(image):
    """A per-image stage that is not cvkit's own, and draws from torch's global generator."""
    return v2.functional.pil_to_tensor(v2.RandomCrop(12)(image))


@pytest.mark.parametrize("cache", ["auto", "ram", None])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stage", [*STAGES, "foreign"])
def test_the_same_batches_for_any_number_of_workers_cached_or_not_entered_anywhere(shapes, stage, workers, cache):
    transform = STAGES.get(stage, drawing)
    plain = Loader(shapes, 4, transform=transform, shuffle=True, seed=2, workers=0, cache=None)
    expected = {number: epoch(plain, number) for number in (0, 1)}
    loader = Loader(shapes, 4, transform=transform, shuffle=True, seed=2, workers=workers, cache=cache)
    assert same(epoch(loader, 1, start=3), expected[1][3:])
    assert same(epoch(loader, 0), expected[0])
    assert same(epoch(loader, 1), expected[1])
    assert same(epoch(loader, 0, start=4), expected[0][4:])
    assert epoch(loader, 0, start=5) == []


@pytest.mark.parametrize(
    ("method", "stage", "workers"),
    [("spawn", "random", 2), ("spawn", "fixed", 1), ("forkserver", "random", 1), ("forkserver", "fixed", 2)],
)
def test_the_same_batches_however_workers_start(shapes, method, stage, workers):
    plain = Loader(shapes, 4, transform=STAGES[stage], shuffle=True, workers=0, cache=None)
    loader = Loader(shapes, 4, transform=STAGES[stage], shuffle=True, workers=workers, cache=None, start_method=method)
    assert same(epoch(loader, 0), epoch(plain, 0))
    assert loader._makers._processes.multiprocessing_context.get_start_method() == method
    started = pids(loader)
    assert same(epoch(loader, 1, start=2), epoch(plain, 1, start=2))
    assert pids(loader) == started


def test_workers_start_as_the_script_has_set_it(shapes):
    loader = Loader(shapes, 4, workers=1)
    before = multiprocessing.get_start_method(allow_none=True)
    try:
        for method, expected in ((None, "fork"), ("forkserver", "forkserver"), ("spawn", "spawn"), ("fork", "fork")):
            multiprocessing.set_start_method(method, force=True)
            assert loader._makers._start().multiprocessing_context.get_start_method() == expected
            asked = Loader(shapes, 4, workers=1, start_method="spawn")
            assert asked._makers._start().multiprocessing_context.get_start_method() == "spawn"
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_workers_outlive_their_epoch_and_an_iteration_that_was_left(shapes):
    loader = Loader(shapes, 4, transform=STAGES["random"], workers=2, cache=None)
    whole = list(loader)
    started = pids(loader)
    assert len(started) == 2
    next(iter(loader))
    assert pids(loader) == started
    assert not same(list(loader), whole)  # the next epoch
    assert pids(loader) == started


def test_an_epoch_that_is_kept_has_no_worker_processes(shapes):
    loader = Loader(shapes, 4, transform=STAGES["fixed"], shuffle=True, workers=2, cache="ram")
    before = set(multiprocessing.active_children())
    for number, _ in enumerate(loader.batches()):
        if number == 0:
            assert len(set(multiprocessing.active_children()) - before) == 2
    assert len(epoch(loader, 1)) == 5
    assert loader._makers._processes is None
    assert set(multiprocessing.active_children()) <= before


def test_images_that_are_kept_need_no_worker_process(shapes):
    before = set(multiprocessing.active_children())
    loader = Loader(shapes, 4, transform=STAGES["random"], workers=2, cache="ram")
    for _ in range(2):
        for _ in loader:
            assert set(multiprocessing.active_children()) <= before


CRASH = "native code crashed, most often a decoder on a damaged file: workers=0 shows at which sample"
OTHER = "memory ran out, shared memory is full (--shm-size), or code of the dataset ended it: try workers=0"
ENDS = {
    "kill": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        " (signal SIGKILL)",
        "the system ran out of memory and ended it: take fewer workers (workers=0 for none)",
    ),
    "segmentation fault": (lambda: os.kill(os.getpid(), signal.SIGSEGV), " (signal SIGSEGV)", CRASH),
    "abort": (os.abort, " (signal SIGABRT)", CRASH),
    "bus error": (
        lambda: os.kill(os.getpid(), signal.SIGBUS),
        " (signal SIGBUS)",
        "shared memory is full: give a container more (--shm-size=2g), or take fewer workers",
    ),
    "exit": (lambda: os._exit(3), " (exit status 3)", OTHER),
    "exit without a word": (lambda: os._exit(0), "", OTHER),
    "sys.exit": (lambda: sys.exit(2), " (exit status 2)", OTHER),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ENDS)
def test_a_worker_that_dies_is_an_error_that_says_what_is_likely_and_the_loader_works_again(shapes, tmp_path, how):
    end, ended, likely = ENDS[how]
    flag = tmp_path / "flag"
    flag.touch()

    def ending(image):
        if flag.exists():
            faulthandler.disable()  # pytest's; it would tell of a crash that is meant
            end()
        return v2.functional.pil_to_tensor(image)

    loader = Loader(shapes, 4, transform=ending, workers=2, cache=None)
    with pytest.raises(DataError) as caught:
        list(loader)
    what, got, expected, fix = str(caught.value).split("\n")
    assert what == "a worker process died"
    assert got.startswith("  got: DataLoader worker (pid")
    assert got.endswith(ended)
    assert expected == "  expected: 2 processes that load until the epoch ends"
    assert fix == f"  fix: most likely {likely}"
    flag.unlink()
    again = list(loader)
    assert same(again, list(Loader(shapes, 4, transform=ending, workers=0, cache=None)))
    assert len(again) == 5


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_hangs_is_an_error_within_the_timeout_it_is_ended_and_the_loader_works_again(
    shapes, tmp_path, workers
):
    flag = tmp_path / "flag"
    flag.touch()

    def hanging(image):
        while flag.exists():
            time.sleep(0.1)
        return v2.functional.pil_to_tensor(image)

    before = set(multiprocessing.active_children())
    loader = Loader(shapes, 4, transform=hanging, workers=workers, cache=None, timeout=0.5)
    with pytest.raises(DataError) as caught:
        list(loader)
    started = set(multiprocessing.active_children()) - before
    what, got, *rest = str(caught.value).split("\n")
    assert what == "a worker process hangs"
    assert got in ("  got: no batch for 0 seconds", "  got: no batch for 1 seconds")
    assert rest == [
        "  expected: a batch within 0.5 seconds",
        "  fix: see where it hangs with workers=0 (a network drive, a decoder, a lock held when the process was forked: "
        'try start_method="spawn"), or pass a larger timeout',
    ]
    assert not any(process.is_alive() for process in started)
    time.sleep(0.1)  # nothing more is heard of them
    flag.unlink()
    loader._makers.timeout = 60
    assert len(list(loader)) == 5


@pytest.mark.usefixtures("quick")
def test_a_worker_that_is_only_slow_is_waited_for(shapes):
    def slow(image):
        time.sleep(0.15)
        return v2.functional.pil_to_tensor(image)

    assert len(list(Loader(shapes, 4, transform=slow, workers=2, cache=None, timeout=30))) == 5


@pytest.mark.usefixtures("quick")
def test_an_iteration_left_with_slow_workers_does_not_spoil_the_next(shapes, tmp_path):
    flag = tmp_path / "flag"

    def slow(image):
        while flag.exists():
            time.sleep(0.05)
        return v2.functional.pil_to_tensor(image)

    loader = Loader(shapes, 1, transform=slow, workers=1, cache=None)
    whole = epoch(loader)
    first = pids(loader)
    flag.touch()
    left = loader.batches()
    waiting = threading.Timer(1.0, flag.unlink)  # longer than is waited at a time
    loader._makers.load([(0, [0])])  # asked for and left: the worker waits for the flag
    waiting.start()
    assert same([loader.finish(raw) for raw in left], whole)
    assert pids(loader) != first


@pytest.mark.usefixtures("quick")
def test_workers_that_died_between_two_epochs_are_replaced(shapes):
    loader = Loader(shapes, 4, transform=STAGES["random"], workers=2, cache=None)
    plain = Loader(shapes, 4, transform=STAGES["random"], workers=0, cache=None)
    assert same(epoch(loader), epoch(plain))
    old = loader._makers._processes._iterator._workers
    gone = [process.pid for process in old]
    with contextlib.suppress(RuntimeError):  # torch tells it to whatever code is just running
        for process in old:
            process.kill()
        for process in old:
            process.join(10)
    with contextlib.suppress(RuntimeError):
        time.sleep(0.1)
    assert same(epoch(loader, 1), epoch(plain, 1))
    assert not set(pids(loader)) & set(gone)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_leave_signals_from_outside_to_the_main_process(shapes, which, method):
    loader = Loader(shapes, 2, transform=STAGES["random"], workers=2, cache=None, start_method=method)
    batches = loader.batches()
    first = [loader.finish(next(batches)) for _ in range(2)]  # each of them has started
    started = pids(loader)
    for pid in started:
        os.kill(pid, which)
    rest = [loader.finish(raw) for raw in batches]
    assert same(first + rest, epoch(Loader(shapes, 2, transform=STAGES["random"], workers=0, cache=None)))
    assert pids(loader) == started
    assert same(epoch(loader, 1), epoch(Loader(shapes, 2, transform=STAGES["random"], workers=0, cache=None), 1))


def wait_for_end(pids, seconds=15):
    """Tells whether processes have ended, be it that nobody has asked for their exit code yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in map(stat_of, pids) if path.exists()]
        if set(states) <= {"Z"}:
            return True
        time.sleep(0.05)
    return False


def stat_of(pid):
    return Path(f"/proc/{pid}/stat")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_loader_that_is_let_go_end(shapes, method):
    loader = Loader(shapes, 2, transform=STAGES["random"], workers=2, cache=None, start_method=method)
    next(loader.batches())
    started = pids(loader)
    loader._makers.close()
    assert wait_for_end(started)
    list(loader)
    started = pids(loader)
    del loader
    assert wait_for_end(started)


HANGS = """
import sys, time
import torch
from cvkit.data import ArrayDataset, Loader

class Hangs:
    deterministic = True
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if index >= 4:
            torch.zeros(1).share_memory_()
            time.sleep(1000)
        return torch.zeros(2), 0

if __name__ == "__main__":
    loader = Loader(Hangs(), 2, workers=1, cache=None, start_method=sys.argv[1])
    batches = loader.batches()
    next(batches)
    print(loader._makers._processes._iterator._workers[0].pid, flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_that_hangs_does_not_keep_the_script_from_ending(tmp_path, method):
    (tmp_path / "script.py").write_text(HANGS)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), method], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert wait_for_end([int(ended.stdout)])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("when", ["while it waits", "while a batch is used"])
def test_a_worker_that_the_system_ends_is_the_same_error_however_it_was_started(shapes, method, when):
    loader = Loader(shapes, 1, transform=STAGES["random"], workers=2, cache=None, start_method=method)
    batches = loader.batches()
    next(batches)
    os.kill(pids(loader)[1], signal.SIGKILL)
    if when == "while a batch is used":
        wait_for_end(pids(loader)[1:])
        time.sleep(0.2)  # nothing is raised here, by a handler
    with pytest.raises(DataError) as caught:
        list(batches)
    what, got, expected, fix = str(caught.value).split("\n")
    assert what == "a worker process died"
    assert got.endswith(" (signal SIGKILL)")
    assert expected == "  expected: 2 processes that load until the epoch ends"
    assert (
        fix == "  fix: most likely the system ran out of memory and ended it: take fewer workers (workers=0 for none)"
    )
    assert len(list(loader)) == 18


@pytest.mark.parametrize("seed", range(6))
def test_a_worker_that_is_killed_at_any_time_is_the_same_error(shapes, seed):
    loader = Loader(shapes, 1, transform=STAGES["random"], workers=2, cache=None)
    batches = loader.batches()
    next(batches)
    timer = threading.Timer(0.002 * seed, os.kill, (pids(loader)[seed % 2], signal.SIGKILL))
    timer.start()
    with pytest.raises(DataError, match=r"^a worker process died\n"):
        deque(chain.from_iterable(chain([batches], (loader.batches() for _ in range(1000)))), maxlen=0)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_does_not_pickle_is_told_before_a_process_is_there(shapes, method):
    loader = Loader(shapes, 4, transform=lambda image: image, workers=1, cache=None, start_method=method)
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError) as caught:
        list(loader)
    lines = str(caught.value).split("\n")
    assert lines[0] == "a worker process cannot be given the dataset and the transform"
    assert lines[1].startswith("  got: ")
    assert "pickle" in lines[1]
    assert lines[2:] == [
        f"  expected: what pickles, as start_method={method!r} needs",
        "  fix: define functions and classes at the top of a module, instead of in a function or as a lambda; or take "
        "workers=0",
    ]
    assert set(multiprocessing.active_children()) <= before


def test_a_fault_in_the_loaders_own_code_is_not_taken_for_a_death(shapes, monkeypatch):
    def broken(self, images, indices):
        raise RuntimeError("a fault")

    monkeypatch.setattr(Fetcher, "_stack", broken)
    with pytest.raises(RuntimeError, match=r"(?s)^Caught RuntimeError in DataLoader worker .*a fault"):
        list(Loader(shapes, 4, transform=STAGES["random"], workers=1, cache=None))


@pytest.mark.parametrize("workers", [0, 1])
def test_tensors_of_a_graph_come_without_it(workers):
    samples = Fixed([(torch.full((2,), float(i), requires_grad=True), i) for i in range(4)])
    inputs, targets = next(iter(Loader(samples, 4, workers=workers, cache=None)))
    assert not inputs.requires_grad
    assert inputs.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert targets.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("transform", [None, classification_eval(16)], ids=["floats", "images"])
def test_batches_that_are_kept_hold_no_shared_memory(shapes, transform):
    samples = Fixed([(torch.full((2,), float(i)), i) for i in range(40)]) if transform is None else shapes
    kept = list(Loader(samples, 1, transform=transform, workers=1, cache=None))
    assert not any(part.is_shared() for batch in kept for part in batch)


def test_random_numbers_of_a_process_come_from_the_sample_alone(shapes):
    drawn = Loader(shapes, 1, transform=drawing, workers=2, cache=None)
    alone = Loader(shapes, 1, transform=drawing, workers=0, cache=None)
    before = torch.get_rng_state()
    torch.manual_seed(1)
    one = epoch(drawn, 3, start=7)
    torch.manual_seed(2)
    assert same(one, epoch(alone, 3, start=7))
    torch.set_rng_state(before)


def test_a_process_that_ends_while_it_starts_is_told_of_with_the_two_lines_of_a_main_guard(shapes, monkeypatch):
    class Broken:
        def __iter__(self):
            raise BrokenPipeError(32, "Broken pipe")

    loader = Loader(shapes, 4, transform=STAGES["random"], workers=1, cache=None, start_method="spawn")
    monkeypatch.setattr(loader._makers, "_start", Broken)
    with pytest.raises(DataError) as caught:
        list(loader)
    assert str(caught.value) == (
        "a worker process died\n"
        "  got: it ended while it started (BrokenPipeError(32, 'Broken pipe')) (exit status 1)\n"
        "  expected: 1 processes that load until the epoch ends\n"
        "  fix: most likely the script starts itself again in each process (its message is further up): put what the "
        "script does into a function main(), and end the script with these two lines:\n"
        '    if __name__ == "__main__":\n'
        "        main()"
    )


def _fails_with_a_loader_alive(samples):
    loader = Loader(samples, 4, workers=2, cache=None)
    next(iter(loader))
    raise RuntimeError(f"with {loader} still in this frame")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_ends_though_its_loader_is_still_alive(shapes, method):
    process = multiprocessing.get_context(method).Process(target=_fails_with_a_loader_alive, args=(shapes,))
    process.start()
    process.join(60)
    alive = process.is_alive()
    process.kill()
    assert not alive, "it waits for its workers, which it has ended by a SIGTERM that they ignore"
    assert process.exitcode == 1
