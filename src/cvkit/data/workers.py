"""Who makes the batches: this process, threads of it, or worker processes that outlive an epoch."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import util
from pickle import PicklingError
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cvkit import main_guard
from cvkit.data.fetch import Fetched, Fetcher
from cvkit.errors import CvkitError, DataError
from cvkit.machine import processes_here
from cvkit.worker_signals import Shield, one_ended, starting, unheard

__all__ = [
    "BatchProducer",
    "BatchRequest",
    "Requests",
    "StartMethod",
    "Threads",
    "Workers",
    "choose_threads",
    "choose_workers",
]

BatchRequest = tuple[int, list[int]]
"""What a batch is made from: its epoch and the indices of its samples."""

Finish = Callable[[Fetched, int], Any]
"""What is still done to a batch, and the place of its token; its result goes into the batch."""

StartMethod = Literal["auto", "fork", "spawn", "forkserver"]

_SMALL = 2_000
"""Below so many samples starting workers costs more than they save."""

_MOST_WORKERS, _MOST_THREADS = 4, 8
_LOOK = 1.0
"""How often, in seconds, a wait for a worker looks whether all of them still live."""

_END = 5.0
"""How long, in seconds, a process that was killed may take to be gone."""


class Requests(Sequence[BatchRequest]):
    """What is asked of the workers for an epoch, each batch when its turn comes.

    Args:
        epoch: The epoch.
        order: Its batches.
        places: Which of them.
    """

    def __init__(self, epoch: int, order: Sequence[Tensor], places: Sequence[int]) -> None:
        self._epoch = epoch
        self._order = order
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> BatchRequest:  # type: ignore[override]  # nobody asks for a slice
        return self._epoch, self._order[self._places[number]].tolist()

    def __iter__(self) -> Iterator[BatchRequest]:
        places = self._places
        if isinstance(places, range):  # in one go, which computes many batches at a time
            yield from ((self._epoch, part.tolist()) for part in self._order[places.start : places.stop])
        else:
            yield from (self[number] for number in range(len(places)))


class BatchProducer(Protocol):
    """Whoever makes batches from tokens, in their order."""

    count: int

    def load(self, requests: Sequence[BatchRequest], finish: Finish | None = None) -> Iterator[Fetched]:
        """Returns the batches of these tokens; ``finish`` is used where that saves the caller's time."""

    def close(self) -> None:
        """Lets processes or threads go; the next :meth:`load` starts new ones."""


class Threads:
    """Makes batches in threads of this process, where images are decoded and cut without the interpreter's lock.

    Args:
        fetcher: What makes a batch; one that several threads may call.
        count: Number of threads; 0 for none but the caller's.
    """

    def __init__(self, fetcher: Fetcher, count: int) -> None:
        self.fetcher = fetcher
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def load(self, requests: Sequence[BatchRequest], finish: Finish | None = None) -> Iterator[Fetched]:
        """Returns the batches of these tokens, finished by the threads too.

        Raises:
            CvkitError: By the iterator, for a sample that fails.
        """
        if self.count == 0 or not requests:
            return (self.fetcher(*request) for request in requests)
        return self._take(requests, finish)

    def _take(self, requests: Sequence[BatchRequest], finish: Finish | None) -> Iterator[Fetched]:
        if self._pool is None:
            self._pool = _one_core_each(self.count)
        coming: deque[Future[Fetched]] = deque()
        try:
            for number, request in enumerate(requests):
                coming.append(self._pool.submit(self._make, request, number, finish))
                if len(coming) > 2 * self.count:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()

    def _make(self, request: BatchRequest, number: int, finish: Finish | None) -> Fetched:
        fetched = self.fetcher(*request)
        if finish is not None and fetched.indices:
            fetched.finished = finish(fetched, number)
        return fetched

    def close(self) -> None:
        """Lets the threads go; the next :meth:`load` starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


def _one_core_each(count: int) -> ThreadPoolExecutor:
    """Returns threads on one core each: torch's own threads inside of them would only be in one another's way."""
    pool, all_there = ThreadPoolExecutor(count, "cvkit"), threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # else torch sets the number once more, when the thread first asks
        torch.set_num_threads(1)
        all_there.wait()

    before = torch.get_num_threads()
    for _ in range(count):
        pool.submit(begin)
    all_there.wait()
    torch.set_num_threads(before)  # what any later thread of the script begins with
    return pool


class Workers:
    """Makes batches from tokens, in their order, the same ones with any number of processes.

    The processes start with the first batch and stay for later epochs. They serve one iteration, the one begun last; an
    older one that still runs makes its remaining batches in this process. Signals from outside they leave to this process.

    Args:
        fetcher: What makes a batch.
        count: Number of processes; 0 for none but this one.
        timeout: How many seconds one batch may take.
        method: How the processes start; ``"auto"`` takes what the script has set, else fork on Linux.
    """

    def __init__(self, fetcher: Fetcher, count: int, timeout: float = 300.0, method: StartMethod = "auto") -> None:
        self.fetcher = fetcher
        self.count = count
        self.timeout = timeout
        self.method = method
        self._requests = _Sampler()
        self._processes: DataLoader[Fetched | CvkitError] | None = None
        self._shield: Shield | None = None
        self._turn = 0

    def load(self, requests: Sequence[BatchRequest], finish: Finish | None = None) -> Iterator[Fetched]:
        """Returns the batches of these tokens; the workers begin at once. Finishing is left to the caller: floats are large.

        Raises:
            CvkitError: By the iterator, for a sample that fails, or a worker that dies or hangs.
        """
        if self.count == 0 or not requests:
            return (self.fetcher(*request) for request in requests)
        self._turn += 1
        self._requests.current = requests
        return self._take(self._open(), requests, self._turn)

    def close(self) -> None:
        """Lets the processes go; the next :meth:`load` starts new ones."""
        if self._shield is not None:
            self._shield.let_go()
        self._processes = self._shield = None

    def _open(self) -> Iterator[Fetched | CvkitError]:
        """Has the processes begin with the tokens; where they have died since, or hang in what was abandoned, new ones."""
        if self._processes is not None:
            try:
                return iter(self._processes)
            except (RuntimeError, OSError, EOFError):
                self.close()
        main_guard.check("a Loader with workers")
        self._processes = self._start()
        method = _method(self.method)
        try:
            with warnings.catch_warnings(), starting(method):
                warnings.filterwarnings("ignore", message="Got pickle error")  # torch's advice on what is raised here
                return unheard(iter(self._processes))
        except (PicklingError, AttributeError, TypeError) as error:
            self.close()
            raise DataError(
                "a worker process cannot be given the dataset and the transform",
                got=f"{type(error).__name__}: {error}",
                expected=f"what pickles, as start_method={method or multiprocessing.get_start_method()!r} needs",
                fix="define functions and classes at the top of a module, instead of in a function or as a lambda; or take "
                "workers=0",
            ) from error
        except (ConnectionError, EOFError) as error:  # it ended before it had read what it is to do
            self.close()
            raise self._died(RuntimeError(f"it ended while it started ({error!r})"), {1}) from error
        except RuntimeError as error:  # torch hears of deaths until the last process has started
            self.close()
            raise self._died(error, set()) from error

    def _take(
        self, stream: Iterator[Fetched | CvkitError], requests: Sequence[BatchRequest], turn: int
    ) -> Iterator[Fetched]:
        for request in requests:
            if turn != self._turn:
                yield self.fetcher(*request)
                continue
            made = self._next(stream)
            if isinstance(made, CvkitError):
                raise made
            yield made

    def _next(self, stream: Iterator[Fetched | CvkitError]) -> Fetched | CvkitError:
        start = time.monotonic()
        while True:
            try:
                return next(stream)
            except Exception as error:  # what a fetcher says comes as a value: this is torch on a lost process
                if isinstance(error, StopIteration) or str(error).startswith("Caught "):
                    raise  # the end, or a fault of the fetcher's own
                waited = time.monotonic() - start
                slow = isinstance(error, RuntimeError) and "timed out" in str(error)
                if slow and waited < self.timeout:
                    continue  # torch has only looked whether the processes live
                processes = getattr(stream, "_workers", ())
                if not (isinstance(error, RuntimeError) or one_ended(processes, _LOOK)):
                    raise
                ended = {code for code in (process.exitcode for process in processes) if code}
                _end(processes)
                self.close()
                raise (self._hangs(waited) if slow else self._died(error, ended)) from error

    def _hangs(self, waited: float) -> DataError:
        return DataError(
            "a worker process hangs",
            got=f"no batch for {waited:.0f} seconds",
            expected=f"a batch within {self.timeout:g} seconds",
            fix="see where it hangs with workers=0 (a network drive, a decoder, a lock held when the process was forked: "
            'try start_method="spawn"), or pass a larger timeout',
        )

    def _died(self, error: Exception, codes: set[int]) -> DataError:
        said = str(error)
        if -signal.SIGBUS in codes or "bus error" in said.lower():
            likely = "shared memory is full: give a container more (--shm-size=2g), or take fewer workers"
        elif -signal.SIGKILL in codes or "killed by signal: killed" in said.lower():
            likely = "the system ran out of memory and ended it: take fewer workers (workers=0 for none)"
        elif codes & {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE}:
            likely = "native code crashed, most often a decoder on a damaged file: workers=0 shows at which sample"
        elif "open files" in said:
            likely = "batches are kept, each of which holds a file of shared memory: keep clones, or raise ulimit -n"
        elif 1 in codes and _method(self.method) in ("spawn", "forkserver"):
            likely = f"the script starts itself again in each process (its message is further up): {main_guard.LINES}"
        else:
            likely = (
                "memory ran out, shared memory is full (--shm-size), or code of the dataset ended it: try workers=0"
            )
        ended = ", ".join(_exit(code) for code in sorted(codes))
        return DataError(
            "a worker process died",
            got=f"{said}" + (f" ({ended})" if ended else ""),
            expected=f"{self.count} processes that load until the epoch ends",
            fix=f"most likely {likely}",
        )

    def _start(self) -> DataLoader[Fetched | CvkitError]:
        self._shield = Shield()
        self._shield.hold()
        # Python ends by SIGTERM, and waits for, what is left when it exits; this comes before that, and before self is gone
        util.Finalize(self, self._shield.let_go, exitpriority=0)
        return DataLoader(
            _RequestDataset(self.fetcher),  # type: ignore[arg-type]  # its index is a token
            batch_size=None,
            sampler=self._requests,
            num_workers=self.count,
            collate_fn=_as_is,  # type: ignore[arg-type]  # without batch_size it gets one item
            worker_init_fn=self._shield.shielded(),
            multiprocessing_context=multiprocessing.get_context(_method(self.method)),
            persistent_workers=True,
            timeout=min(_LOOK, self.timeout),
            generator=torch.Generator(),  # without one of its own it would draw from the global one
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_processes": None,
            "_shield": None,
            "_requests": _Sampler(),
        }  # processes stay where they are


class _Sampler:
    """What the processes are asked for next: torch's sampler, which stays the same object over the epochs."""

    def __init__(self) -> None:
        self.current: Sequence[BatchRequest] = ()

    def __iter__(self) -> Iterator[BatchRequest]:
        return iter(self.current)

    def __len__(self) -> int:
        return len(self.current)


class _RequestDataset:
    """A dataset whose index is a whole batch's token."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher

    def __getitem__(self, request: BatchRequest) -> Fetched | CvkitError:
        """Returns a batch, or the error: raised, torch would rewrite its message around the worker's traceback."""
        try:
            return self.fetcher(*request)
        except CvkitError as error:
            cause = error.__cause__
            if cause is not None and not isinstance(cause, CvkitError):
                error.add_note("In the worker process:\n" + "".join(traceback.format_exception(cause)))
            return error

    def __len__(self) -> int:
        return len(self.fetcher.dataset)


def _as_is(made: Fetched | CvkitError) -> Fetched | CvkitError:
    return made


def _end(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    """Ends processes of which one hangs or has died; what hangs may not hear of anything less than a kill."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join(_END)


def _exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _method(asked: StartMethod) -> str | None:
    """Returns how processes start: as asked, as the script has set it, else by fork where there is nothing against it."""
    if asked != "auto":
        return asked
    return multiprocessing.get_start_method(allow_none=True) or ("fork" if _forks() else None)


def _forks() -> bool:
    """Whether workers can start by fork: no main guard needed, nothing to pickle."""
    return sys.platform == "linux"


def _cores() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(count // processes_here(), 1)


def choose_workers(dataset: Any) -> int:
    """Returns how many workers pay: some where many files are to be decoded and they start by fork, else none."""
    whole = dataset
    while hasattr(whole, "dataset"):  # a subset's whole
        whole = whole.dataset
    files = getattr(whole, "paths", None) is not None or hasattr(whole, "samples") or hasattr(whole, "imgs")
    if not files or len(dataset) < _SMALL or not _forks():
        return 0
    return min(_cores(), _MOST_WORKERS) if _cores() > 1 else 0


def choose_threads() -> int:
    """Returns how many threads pay: one a core, up to where the interpreter's lock becomes the limit."""
    return min(_cores(), _MOST_THREADS) if _cores() > 1 else 0
