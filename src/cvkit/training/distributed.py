"""Many processes as one: who takes part, what they tell one another, and what ends all of them when one fails.

``fit`` and ``evaluate`` join the other ranks when they are called and leave them when they return, so nothing is left behind
between two calls. Where there is one process, :func:`current` is ``None``, and nobody asks further.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from cvkit import seeding
from cvkit.errors import ArgumentError, CvkitError, RankError

__all__ = [
    "World",
    "current",
    "first_of_all",
    "is_first",
    "joined",
    "launched",
    "own_device",
    "refuse",
    "wait_limit",
]

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT = 300.0
"""How many seconds a rank waits for another by default; ``CVKIT_RANK_TIMEOUT`` changes it."""

PATIENCE = 5.0
"""For how many seconds a rank that has lost the others asks what has become of them."""


def launched() -> int:
    """Returns how many processes were started together: by ``torchrun``, or in a process group of the script's own."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    there = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return int(os.environ["WORLD_SIZE"]) if there else 1


def is_first() -> bool:
    """Whether this process is rank 0, or the only one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return launched() == 1 or os.environ["RANK"] == "0"


def own_device() -> torch.device:
    """Returns the CUDA device of this process: that of its rank on this machine, where several were started."""
    if launched() == 1:
        return torch.device("cuda")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def wait_limit() -> float:
    """Returns how many seconds a rank waits for another before it ends with an error.

    Raises:
        ArgumentError: ``CVKIT_RANK_TIMEOUT`` is not a number above 0.
    """
    given = os.environ.get("CVKIT_RANK_TIMEOUT", str(TIMEOUT))
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentError(
            "CVKIT_RANK_TIMEOUT cannot be used",
            got=repr(given),
            expected="seconds, a number above 0",
            fix=f"unset it for {TIMEOUT:.0f} seconds",
        )
    return seconds


class World:
    """The ranks of one call, joined.

    Args:
        rank: Which one this process is, from 0.
        size: How many there are, at least 2.
        store: Where they leave messages for one another; it outlives a lost connection.
        group: The process group of this call; ``None`` for the default one.
        own: Whether the default group was made here, and ends with the call.

    Attributes:
        stepping: Whether a step runs in which every rank takes part: only then do layers ask for the others.
        rows: The samples of the current batch that are this rank's; 0 where a sample of another rank stands in, so that the
            rank takes part in everything.
        weight: What this rank's part of the current batch counts for.
        total: The samples of the current batch of all ranks, where that is known beforehand.
        asked: The reason for which this rank wants the run to stop, until all ranks have agreed.
        random: The state of torch's generator outside of the steps, each of which has a seed of its own.
        flagged: Whether a rank has asked for a stop, as all ranks know by now.
        ends_by: The signal by which this process ends after the call, as it was told to during it.
        nominal: What a full group of ``accumulate`` batches is taken to count for, on every rank the same.
    """

    def __init__(self, rank: int, size: int, store: Any, group: Any, *, own: bool) -> None:
        self.rank, self.size, self.store, self.group, self._own = rank, size, store, group, own
        self.stepping = False
        self.rows = 1
        self.weight: Tensor | float = 0
        self.total: int | None = None
        self.asked: str | None = None
        self.random: Tensor | None = None
        self.flagged = False
        self.ends_by: int | None = None
        self.nominal = 0.0
        self._flag: tuple[Tensor, Any] | None = None
        self._left = False

    @property
    def share(self) -> tuple[int, int]:
        """Rank and number of ranks, as a loader takes them."""
        return self.rank, self.size

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum_(self, values: Tensor) -> Any:
        """Begins to add up a tensor over all ranks, in place; the same bits on each.

        Returns:
            Something to ``wait()`` for.
        """
        return dist.all_reduce(values, group=self.group, async_op=True)

    def gathered(self, values: Tensor) -> Tensor:
        """Returns a tensor of every rank, all of one shape, stacked in the order of the ranks."""
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous(), group=self.group)
        return torch.stack(parts)

    def gather(self, value: Any) -> list[Any]:
        """Returns a plain value of every rank, in the order of the ranks."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def from_first(self, make: Callable[[], R]) -> R:
        """Runs something on rank 0 alone; every rank gets what came of it, an error too.

        Raises:
            RankError: It failed; on rank 0 that is its own error.
        """
        made: list[Any] = [None, None]
        failed: BaseException | None = None
        if self.first:
            try:
                made[0] = make()
            except Exception as error:
                failed = error
                made[1] = f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(made, group_src=0, group=self.group, device=torch.device("cpu"))
        result, error_text = made
        if failed is not None:
            raise failed
        if error_text is not None:
            raise _failed(0, error_text)
        return cast(R, result)

    def counted(self, batch: Any) -> tuple[int, int, Any]:
        """Returns this rank's and all samples of a batch, and the batch; where samples were left out, all tell how many."""
        part = batch.part
        if part.unsure:
            counts = self.gather(part.rows)
            part = part._replace(first=sum(counts[: self.rank]), total=sum(counts), unsure=False)
            batch = batch._replace(part=part)
        return part.rows, part.total, batch

    def spread(self, tensors: list[Tensor]) -> None:
        """Gives every rank the values that rank 0 has in these tensors."""
        for tensor in tensors:
            whole = tensor if tensor.is_contiguous() else tensor.contiguous()
            dist.broadcast(whole, group_src=0, group=self.group)
            if whole is not tensor:
                tensor.copy_(whole)

    def seed_step(self, seed: int, epoch: int, batch: int) -> None:
        """Seeds torch for a training batch: from (seed, epoch, batch, rank), so dropout is the same after any resume."""
        torch.manual_seed(seeding.derive(seed, "step", epoch, batch, self.rank))

    def flag_arrived(self) -> bool:
        """Returns whether a rank had asked for a stop at the batch before, and sends whether this one does now."""
        before = False
        if self._flag is not None:
            self._flag[1].wait()
            before = bool(self._flag[0][0])
        flag = torch.tensor([self.asked is not None], dtype=torch.int32)
        self._flag = flag, self.sum_(flag)
        return before

    def agree(self) -> str | None:
        """Returns the reason of the first rank that has asked for a stop, on every rank; all must call it."""
        self.flagged = False
        return next((reason for reason in self.gather(self.asked) if reason is not None), None)

    def leave(self) -> None:
        """Leaves the others, once all have come to this point. May be called again."""
        if self._left:
            return
        dist.barrier(group=self.group)
        self.close()

    def close(self) -> None:
        """Closes the connections to the others at once; whoever waits for this rank gets an error."""
        if self._left:
            return
        self._left = True
        if self._own:
            dist.destroy_process_group()
        elif self.group is not None:
            dist.destroy_process_group(self.group)

    def tell(self, error: BaseException) -> None:
        """Leaves word of what ended this rank, and waits shortly for the others to have read it."""
        try:
            self.store.set(f"error/{self.rank}", f"{type(error).__name__}: {error}"[:4000])
        except (RuntimeError, dist.DistError) as lost:
            error.add_note(f"the other ranks could not be told: {lost}")
            return
        self.close()
        self._wait_until(
            lambda: all(self._has(f"seen/{other}") or self._has(f"error/{other}") for other in self._others)
        )

    def explain(self, error: BaseException) -> RankError:
        """Returns the error that names the rank which ended the run, after a connection to another was lost."""
        self.close()
        try:
            self.store.set(f"seen/{self.rank}", "1")
            self._wait_until(
                lambda: (
                    any(self._has(f"error/{other}") for other in self._others)
                    or all(self._has(f"seen/{other}") for other in self._others)
                )
            )
            for other in self._others:
                if self._has(f"error/{other}"):
                    return _failed(other, self.store.get(f"error/{other}").decode())
            silent = [other for other in self._others if not self._has(f"seen/{other}")]
        except (RuntimeError, dist.DistError) as lost:
            return _lost("the rank or launcher that keeps the connections of all", str(lost))
        names = ", ".join(f"rank {other}" for other in silent) or "a rank"
        return _lost(names, str(error).splitlines()[0])

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _has(self, key: str) -> bool:
        return bool(self.store.check([key]))

    def _wait_until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not done():
            time.sleep(0.05)


def _failed(rank: int, error: str) -> RankError:
    return RankError(
        f"rank {rank} has ended the run",
        got=error.replace("\n", "\n  "),
        expected="every rank to go on until the run is over",
        fix=f"mend what rank {rank} says; start all ranks again with resume=True to go on from the last checkpoint",
    )


def _lost(names: str, how: str) -> RankError:
    return RankError(
        f"{names} is gone or does not answer",
        got=how,
        expected=f"an answer within {wait_limit():.0f} seconds (CVKIT_RANK_TIMEOUT)",
        fix="see whether it was killed (memory?) or its machine is lost; start all ranks again with resume=True",
    )


_current: World | None = None
_calls = 0
_store: Any = None


def current() -> World | None:
    """Returns the ranks of the call under way, or ``None`` where there is one process."""
    return _current


def one_share(raw: Any) -> Any:
    """Returns no more rows of a global batch than one rank takes; with one process all."""
    rows = -(-len(raw.images) // launched()) if raw is not None else 0
    return raw if raw is None or launched() == 1 else raw._replace(images=raw.images[:rows], targets=raw.targets[:rows])


def first_of_all(make: Callable[[], R]) -> R:
    """Runs something on rank 0 alone and gives every rank what came of it; with one process it just runs."""
    return make() if _current is None else _current.from_first(make)


def joined(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function run as one on all ranks: they are joined before it and left after it.

    With one process that is all that happens: the function is called.

    Raises:
        RankError: By the function: another rank has failed, is gone, or has not called it.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if _current is not None or launched() == 1:
            return function(*args, **kwargs)
        with _session(function.__name__):
            return function(*args, **kwargs)

    return call


def refuse(name: str) -> None:
    """Refuses a call that works in one process only.

    Raises:
        ArgumentError: There are several.
    """
    if launched() > 1:
        raise ArgumentError(
            f"{name} runs in one process",
            got=f"{launched()} processes",
            expected="one: what it finds holds for every number of processes, since batch_size is the global batch",
            fix=f"call {name} from a script of its own, started with python instead of torchrun",
        )


@contextmanager
def _session(name: str) -> Iterator[None]:
    global _current
    world = _join(name)
    _current = world
    try:
        yield
        world.leave()
    except BaseException as error:
        if _is_lost(error):
            raise world.explain(error) from error
        if not isinstance(error, RankError):
            world.tell(error)
        raise
    finally:
        _current = None
        world.close()
        if world.ends_by is not None:
            signal.raise_signal(world.ends_by)


_SIGNS = ("gloo", "connection", "timed out", "nccl", "broken pipe", "processgroup", "barrier", "socket")


def _is_lost(error: BaseException) -> bool:
    """Whether an error says that another rank cannot be reached."""
    if isinstance(error, CvkitError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in _SIGNS)


def _join(name: str) -> World:
    """Joins the other ranks in a call.

    Raises:
        RankError: Not all of them call it in time, or another call.
    """
    global _calls
    _calls += 1
    limit = datetime.timedelta(seconds=wait_limit())
    root, rank, size = _rendezvous(limit)
    _await_all(root, rank, size, name)
    store = PrefixStore(f"cvkit/{_calls}/talk", root)
    if dist.is_initialized():  # the script's own
        group = dist.new_group(backend=_backend(), timeout=limit)
        return World(rank, size, store, group, own=False)
    dist.init_process_group(
        _backend(),
        store=PrefixStore(f"cvkit/{_calls}/group", root),
        rank=rank,
        world_size=size,
        timeout=limit,
    )
    return World(rank, size, store, None, own=True)


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def _rendezvous(limit: datetime.timedelta) -> tuple[Any, int, int]:
    """Returns where the ranks leave messages, which rank this is, and how many there are."""
    global _store
    if dist.is_initialized():
        return dist.distributed_c10d._get_default_store(), dist.get_rank(), dist.get_world_size()
    if _store is None:
        try:
            _store, _, _ = next(rendezvous("env://", timeout=limit))
        except dist.DistError as error:
            raise RankError(
                "not all ranks have come together",
                got=str(error).splitlines()[0],
                expected=f"{os.environ['WORLD_SIZE']} ranks at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}, "
                f"within {limit.total_seconds():.0f} seconds (CVKIT_RANK_TIMEOUT)",
                fix="call it on every rank, and see whether the ranks can reach this address",
            ) from error
        atexit.register(_part)
    return _store, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def _await_all(root: Any, rank: int, size: int, name: str) -> None:
    """Waits until every rank has made this call; one that has ended, or makes another, is named."""
    root.set(f"cvkit/{_calls}/call/{rank}", name)
    missing = list(range(size))
    end = time.monotonic() + wait_limit()
    while True:
        missing = [other for other in missing if not root.check([f"cvkit/{_calls}/call/{other}"])]
        gone = [other for other in missing if root.check([f"cvkit/left/{other}"])]
        if not missing or gone or time.monotonic() > end:
            break
        time.sleep(0.01)
    if missing:
        names = ", ".join(f"rank {other}" for other in gone or missing)
        raise RankError(
            f"{name} was not called on every rank",
            got=f"{names} {'has ended' if gone else f'has not called it for {wait_limit():.0f} seconds'}",
            expected=f"the same call on all {size} ranks",
            fix=f"call {name} on every rank, not behind a test of the rank; it saves and prints on one of them by itself",
        )
    calls = [root.get(f"cvkit/{_calls}/call/{other}").decode() for other in range(size)]
    if len(set(calls)) > 1:
        raise RankError(
            "the ranks have called different functions",
            got=", ".join(f"rank {other}: {one}" for other, one in enumerate(calls)),
            expected="the same calls in the same order on every rank",
            fix="let every rank run the same script",
        )


def _part() -> None:
    """Leaves word that this process has ended; rank 0, which may keep the messages, waits shortly for that of the others."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        _store.set(f"cvkit/left/{rank}", "1")
        end = time.monotonic() + PATIENCE
        while rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and time.monotonic() < end:
            if _store.check([f"cvkit/left/{other}" for other in range(size)]):
                break
            time.sleep(0.02)
    except (RuntimeError, dist.DistError):
        return  # whoever kept the messages has ended: nobody is left to be told
