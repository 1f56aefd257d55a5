"""Batches, from any loader, entered at any place, and what can be read off a batch."""

from __future__ import annotations

import itertools
import signal
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cvkit import seeding, worker_signals
from cvkit.diagnosis.lines import user_line
from cvkit.errors import ArgumentError, CvkitError, DataError
from cvkit.numbering import check_numbering
from cvkit.training.runtime import Runtime
from cvkit.training.signals import SIGNALLED
from cvkit.training.state import TrainState

__all__ = [
    "check_loader",
    "epoch_of",
    "explain_worker_errors",
    "finished",
    "first_batch",
    "is_resumable",
    "keeps_place",
    "lost",
    "move_to_epoch",
    "open_epoch",
    "random_state",
    "restore_random",
    "samples_in",
    "until_lost",
    "used_up",
]


def check_loader(name: str, loader: Any) -> None:
    """Refuses what cannot be iterated once an epoch.

    Args:
        name: The argument's name, for the message.
        loader: What arrived.

    Raises:
        ArgumentError: Not an iterable, an iterator that is used up after one walk, no length, or no batches.
        DataError: A torch DataLoader of a ``ConcatDataset`` whose parts number their classes differently.
    """
    if isinstance(loader, str | PurePath) or (not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__")):
        raise ArgumentError(
            f"{name} cannot be iterated",
            got=repr(loader) if isinstance(loader, str | PurePath) else type(loader).__name__,
            expected="a cvkit.data.Loader, a torch DataLoader, or any sized iterable of batches",
            fix=_loader_of(loader),
        )
    if isinstance(loader, Iterator):
        raise ArgumentError(
            f"{name} is an iterator, which is used up after one epoch",
            got=type(loader).__name__,
            expected="something that can be iterated once an epoch: a loader or a list of batches",
            fix=f"pass the loader itself instead of iter(loader), or list({name})",
        )
    if isinstance(loader, DataLoader):
        check_numbering(loader.dataset)
    try:
        batches = len(loader)
    except (TypeError, AttributeError):
        raise ArgumentError(
            f"{name} does not say how many batches it has",
            got=f"{type(loader).__name__} without a length",
            expected="a sized iterable: schedules and the time left are computed from it",
            fix="give it a __len__ that returns the number of batches",
        ) from None
    if batches == 0:
        raise ArgumentError(
            f"{name} has no batches", got=_why_empty(loader), expected="at least one batch", fix=_fill(loader)
        )


def _loader_of(given: Any) -> str:
    if isinstance(given, str | PurePath):
        return "make loaders of it: data = cvkit.data.from_folder(…), then pass data.train and data.val"
    if hasattr(given, "train") and hasattr(given, "val"):
        return "pass its two loaders: data.train, data.val"
    return "wrap the dataset: cvkit.data.Loader(dataset, batch_size=64)"


def _why_empty(loader: Any) -> str:
    if isinstance(loader, DataLoader):
        return f"{len(loader.dataset)} samples, batch_size={loader.batch_size}, drop_last={loader.drop_last}"  # type: ignore[arg-type]
    return f"an empty {type(loader).__name__}"


def _fill(loader: Any) -> str:
    if isinstance(loader, DataLoader) and loader.drop_last:
        return "take drop_last=False or a smaller batch_size"
    return "see whether the dataset found its files"


def samples_in(batch: Any) -> int:
    """Returns the number of samples in a batch: the first size of the first tensor found in it, else 1."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        if isinstance(part, Tensor | dict | list | tuple):
            return samples_in(part)
    return 1


def _told_epochs(loader: Any) -> list[Any]:
    """Returns what is told the epoch: the loader itself, its sampler, its batch sampler."""
    holders = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return [holder for holder in holders if holder is not None and hasattr(holder, "set_epoch")]


def epoch_of(loader: Any) -> int:
    """Returns the epoch that a loader stands at: the first one that it has not served; 0 where it does not count them."""
    epochs = [getattr(holder, "epoch", None) for holder in _told_epochs(loader)]
    return next((epoch for epoch in epochs if type(epoch) is int), 0)


def move_to_epoch(loader: Any, epoch: int) -> None:
    """Moves a loader, or its sampler, to the beginning of an epoch, where it counts them."""
    for holder in _told_epochs(loader):
        holder.set_epoch(epoch)


@contextmanager
def keeps_place(loader: Any) -> Iterator[None]:
    """Leaves a loader at the epoch and the batch where it stood."""
    before = [
        (holder, {name: value for name, value in getattr(holder, "__dict__", {}).items() if type(value) is int})
        for holder in _told_epochs(loader)
    ]
    try:
        yield
    finally:
        for holder, numbers in before:
            vars(holder).update(numbers)


def own_generators(loader: Any) -> list[torch.Generator]:
    """Returns the generators that a torch DataLoader and its sampler draw from, besides the global one."""
    found: list[torch.Generator] = []
    for holder in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not one for one in found):
            found.append(generator)
    return found


@contextmanager
def _undisturbed(loader: Any) -> Iterator[None]:
    """Leaves the global generators, and those of the loader, as they were."""
    generators = own_generators(loader)
    states = [generator.get_state() for generator in generators]
    try:
        with seeding.preserved():
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def first_batch(name: str, loader: Any) -> Any:
    """Returns the first batch of an epoch without leaving a trace: no random number is drawn, no worker started.

    Args:
        name: The argument's name, for messages.
        loader: Any loader that :func:`check_loader` has passed.

    Raises:
        DataError: It gives no batch, or fails to.
    """
    with _undisturbed(loader):
        try:
            if hasattr(loader, "peek"):
                batch = loader.peek()
            elif is_resumable(loader):
                batch = next(iter(loader.batches()), None)
            else:
                batch = _first_of(loader)
        except CvkitError:
            raise
        except Exception as error:
            raise DataError(
                f"{name} failed to give its first batch",
                got=f"{type(error).__name__}: {error}",
                expected="a batch",
                fix=f"mend the line {line}"
                if (line := user_line(error))
                else "look at what the dataset gives for its samples",
            ) from error
    if batch is None:
        raise DataError(
            f"{name} says that it has {len(loader)} batches and gives none",
            got="an iteration that ends at once",
            expected="a loader that can be iterated once an epoch",
            fix="it is probably used up: pass an object whose __iter__ starts afresh each time",
        )
    return batch


def used_up(loader: Any, epoch: int) -> DataError:
    """Returns the error on training batches of which none came in an epoch."""
    return DataError(
        f"train gave no batch in epoch {epoch + 1}",
        got=f"an iteration of {type(loader).__name__} that ends at once",
        expected=f"{len(loader)} batches, as its length says",
        fix="it is probably used up: pass an object whose __iter__ starts afresh each time",
    )


def _first_of(loader: Any) -> Any:
    """Returns the first batch of a foreign loader, a torch DataLoader's without starting its workers."""
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None or not hasattr(loader.dataset, "__getitem__"):
        return next(iter(loader), None)
    indices = next(iter(loader.batch_sampler))
    return loader.collate_fn([loader.dataset[index] for index in indices])


def is_resumable(loader: Any) -> bool:
    """Whether a loader can be entered in the middle and finishes its batches on the device, as cvkit's does."""
    return hasattr(loader, "batches") and hasattr(loader, "finish")


def random_state(loader: Any) -> dict[str, Any]:
    """Returns the state of every generator that iterating over a loader may draw from, as tensors and plain types."""
    return {"global": seeding.capture(), "loader": [one.get_state() for one in own_generators(loader)]}


def restore_random(loader: Any, random: dict[str, Any]) -> None:
    """Puts back what :func:`random_state` returned."""
    seeding.restore(random["global"])
    for generator, saved in zip(own_generators(loader), random["loader"], strict=True):
        generator.set_state(saved)


def lost(error: BaseException) -> bool:
    """Whether an error says that a worker process is gone, in torch's words or in those of cvkit's loader."""
    said = str(error)
    if isinstance(error, DataError):
        return said.startswith(_DIED)
    return isinstance(error, RuntimeError) and said.startswith("DataLoader worker")


_DIED = "a worker process died"

_started: weakref.WeakSet[Any] = weakref.WeakSet()
"""The iterations of torch loaders that have processes."""


@contextmanager
def explain_worker_errors() -> Iterator[None]:
    """Makes of torch's error on a lost worker one that says what is most likely; it may be raised in any line.

    Raises:
        DataError: A worker process of a torch ``DataLoader`` died.
    """
    try:
        yield
    except RuntimeError as error:
        if not lost(error):
            raise
        ends: set[str] = set()
        for batches in list(_started):  # as long as a traceback keeps it, any child that ends would raise it once more
            worker_signals.unheard(batches)
            ends |= {signal.Signals(-code).name for one in batches._workers if (code := one.exitcode or 0) < 0}
        found = DataError(
            _DIED,
            got=str(error).strip(),
            expected="processes that load until the epoch ends",
            fix=f"most likely {_likely(str(error).lower(), ends)}",
        )
        for note in getattr(error, "__notes__", ()):
            found.add_note(note)
        raise found from error


def _likely(said: str, ends: set[str]) -> str:
    if "SIGBUS" in ends or "bus error" in said:
        return "shared memory is full: give a container more (--shm-size=2g), or take fewer workers"
    if "SIGKILL" in ends or "signal: killed" in said:
        return "the system ran out of memory and ended it: take fewer workers (num_workers=0 for none)"
    if ends & {"SIGSEGV", "SIGABRT"} or "segmentation fault" in said:
        return "native code crashed, most often a decoder on a damaged file: num_workers=0 shows at which sample"
    return "memory ran out, shared memory is full (--shm-size), or code of the dataset ended it: try num_workers=0"


def until_lost(batches: Iterator[Any], state: TrainState) -> Iterator[Any]:
    """Yields batches; where a signal stops the run and a worker is gone with it, there are no more, and that is no error.

    Workers that fit did not start itself may end by a signal to the process group. The batch is not needed: the run is saved
    where it stands, unless that is within a group of ``accumulate`` batches.
    """
    try:
        yield from batches
    except (RuntimeError, DataError) as error:
        if not lost(error) or state.stop_reason not in SIGNALLED or state.engine.group_open:
            raise


def finished(loader: Any, batch: Any, runtime: Runtime) -> Any:
    """Turns a batch as the loader gives it into one as the model gets it: placed, then the batch transform."""
    if runtime.device.type != "cpu":
        batch = runtime.place(batch)
    return loader.finish(batch) if is_resumable(loader) else batch


def open_epoch(
    loader: Any,
    epoch: int,
    start: int = 0,
    random: dict[str, Any] | None = None,
    device: torch.device | None = None,
) -> Iterator[Any]:
    """Opens one epoch of a loader at its batch ``start``.

    A loader that can skip starts there at once. Any other is iterated from its beginning with the random numbers that
    the epoch began with, and the first ``start`` batches are thrown away.

    Args:
        loader: Any loader that :func:`check_loader` has passed.
        epoch: The epoch's index, for those that shuffle by it.
        start: The first batch that is wanted.
        random: What :func:`random_state` gave when the epoch began; needed for ``start > 0`` unless the loader can skip.
        device: Where batches are wanted by a loader that can skip; it brings them there ahead of time.

    Returns:
        An iterator over batches as the loader gives them; those of a foreign one are on the host.
    """
    move_to_epoch(loader, epoch)
    if is_resumable(loader):
        batches: Iterator[Any] = loader.batches(start, device)
        return batches
    if start == 0 or random is None:
        return itertools.islice(_iterate(loader), start, None)
    now = seeding.capture()
    restore_random(loader, random)
    iterator = _iterate(loader)
    for _ in range(start):
        next(iterator, None)
    seeding.restore(now)
    return iterator


def _iterate(loader: Any) -> Iterator[Any]:
    """Iterates a loader; worker processes that a torch ``DataLoader`` starts meanwhile leave signals to this one."""
    shield = worker_signals.mine()
    if isinstance(loader, DataLoader) and loader.num_workers > 0 and shield.held:
        return _shielded(loader, shield)
    iterator: Iterator[Any] = iter(loader)
    return iterator


def _shielded(loader: DataLoader[Any], shield: worker_signals.Shield) -> Iterator[Any]:
    own = loader.worker_init_fn
    inside = own if isinstance(own, worker_signals.Shielded) else shield.shielded(own)
    chosen = loader.multiprocessing_context
    loader.worker_init_fn = inside
    batches: Iterator[Any] = iter(())
    try:
        with worker_signals.starting(chosen.get_start_method() if chosen is not None else None):
            batches = iter(loader)
        _started.add(batches)
        yield from batches
    except (OSError, EOFError) as error:  # on what a worker has sent; torch asks too soon whether one has died
        if str(error).startswith("Caught ") or not worker_signals.one_ended(getattr(batches, "_workers", ()), 1.0):
            raise
        raise RuntimeError(f"DataLoader worker exited unexpectedly ({type(error).__name__}: {error})") from error
    finally:
        if loader.worker_init_fn is inside:
            loader.worker_init_fn = own
