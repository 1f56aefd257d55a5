"""One adapter for each kind of loader: what training asks of a loader it asks of its adapter, and nothing else looks inside.

:func:`adapt` chooses. A :class:`~cvkit.loading.ResumableLoader` (cvkit's own) is entered at any place. A
:class:`~cvkit.loading.StatefulLoader` goes back to where its saved state stood. A torch ``DataLoader`` and any other
iterable are iterated again up to the place. What has no length has as many batches an epoch as ``steps_per_epoch`` says.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cvkit import seeding
from cvkit.calls import warn
from cvkit.diagnosis.lines import user_line
from cvkit.errors import CvkitError, DataError
from cvkit.loading import ResumableLoader, StatefulLoader, samples_in
from cvkit.training.distributed import World, current, one_share
from cvkit.training.runtime import Runtime
from cvkit.training.torch_workers import iterate

__all__ = ["Adapter", "adapt"]

_NOTHING = object()


def adapt(loader: Any, steps_per_epoch: int | None = None, name: str = "train") -> Adapter:
    """Returns the adapter of a loader.

    Args:
        loader: What :func:`cvkit.training.loader_checks.check_loader` has passed.
        steps_per_epoch: How many batches are an epoch of a loader without a length.
        name: The argument's name, for messages.
    """
    if isinstance(loader, ResumableLoader):
        return Resumable(loader, name)
    torch_loader = isinstance(loader, DataLoader)
    kind: type[Adapter] = Stateful if isinstance(loader, StatefulLoader) else TorchLoader if torch_loader else Adapter
    inner = kind(loader, name)
    return inner if steps_per_epoch is None else Stream(inner, steps_per_epoch)


class Adapter:
    """Any iterable of batches, and the base of the other kinds: it is iterated from its beginning.

    Args:
        loader: The loader as given.
        name: The argument's name, for messages.

    Attributes:
        places: Whether its batches know their place, as a ``PlacedBatch`` does.
    """

    places = False

    def __init__(self, loader: Any, name: str) -> None:
        self.loader = loader
        self.name = name

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return len(self.loader)

    # --- what it says of itself

    def said(self, name: str) -> Any:
        """Returns an attribute of the loader that need not be there (``classes``, ``batch_size``, …), or ``None``."""
        return getattr(self.loader, name, None)

    @property
    def skipped(self) -> dict[int, str]:
        """The message of each sample that was left out, by index."""
        return self.said("skipped") or {}

    # --- epochs

    def _counting(self) -> list[Any]:
        """Returns what is told the epoch: the loader itself, its sampler, its batch sampler."""
        return [one for one in _holders(self.loader) if hasattr(one, "set_epoch")]

    @property
    def epoch(self) -> int:
        """The epoch that the loader stands at: the first one that it has not served; 0 where it does not count them."""
        epochs = [getattr(one, "epoch", None) for one in self._counting()]
        return next((epoch for epoch in epochs if type(epoch) is int), 0)

    def move_to_epoch(self, epoch: int) -> None:
        """Moves the loader, or its sampler, to the beginning of an epoch, where it counts them."""
        for one in self._counting():
            one.set_epoch(epoch)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leaves the loader at the epoch and the batch where it stood."""
        before = [
            (one, {name: value for name, value in getattr(one, "__dict__", {}).items() if type(value) is int})
            for one in self._counting()
        ]
        try:
            yield
        finally:
            for one, numbers in before:
                vars(one).update(numbers)

    # --- random numbers

    def generators(self) -> list[torch.Generator]:
        """Returns the generators that the loader and its sampler draw from, besides the global one."""
        found: list[torch.Generator] = []
        for holder in _holders(self.loader):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator) and all(generator is not one for one in found):
                found.append(generator)
        return found

    def generator_states(self) -> list[Tensor]:
        """Returns the state of each of :meth:`generators`."""
        return [one.get_state() for one in self.generators()]

    def set_generators(self, states: list[Tensor]) -> None:
        """Puts back what :meth:`generator_states` returned, as far as there are as many."""
        for generator, state in zip(self.generators(), states, strict=False):
            generator.set_state(state)

    def random_state(self) -> dict[str, Any]:
        """Returns the state of every generator that iterating may draw from, as tensors and plain types."""
        return {"global": seeding.capture(), "loader": self.generator_states()}

    def restore_random(self, random: Mapping[str, Any]) -> None:
        """Puts back what :meth:`random_state` returned."""
        seeding.restore(random["global"])
        self.set_generators(random["loader"])

    def epoch_random(self) -> dict[str, Any] | None:
        """Returns what entering the epoch that begins now needs later; ``None`` where that is nothing."""
        return self.random_state()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Leaves the global generators, and those of the loader, as they were."""
        states = self.generator_states()
        try:
            with seeding.preserved():
                yield
        finally:
            self.set_generators(states)

    # --- batches

    def first_batch(self, name: str | None = None) -> Any:
        """Returns the first batch of an epoch, unfinished, without leaving a trace: no random number drawn, no worker started.

        Args:
            name: What to call the loader in messages, where its own name does not fit.

        Raises:
            DataError: It gives no batch, or fails to.
        """
        name = name or self.name
        with self.undisturbed():
            try:
                batch = self._first()
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
                f"{name} says that it has {len(self)} batches and gives none",
                got="an iteration that ends at once",
                expected="a loader that can be iterated once an epoch",
                fix="it is probably used up: pass an object whose __iter__ starts afresh each time",
            )
        return batch

    def _first(self) -> Any:
        return next(iter(self.loader), None)

    def open(
        self,
        epoch: int,
        start: int = 0,
        random: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
    ) -> Iterator[Any]:
        """Opens one epoch at its batch ``start``.

        Args:
            epoch: The epoch's index, for those that shuffle by it.
            start: The first batch that is wanted. Here all before it are loaded again, with the random numbers that the
                epoch began with, and thrown away.
            random: What :meth:`epoch_random` gave when the epoch began.
            device: Where batches are wanted by a loader that brings them there ahead of time.

        Returns:
            An iterator over batches as the loader gives them.

        Warns:
            CvkitWarning: Batches were loaded again, with what that took.
        """
        self.move_to_epoch(epoch)
        if start == 0 or random is None or isinstance(self.loader, list | tuple):
            return itertools.islice(iterate(self.loader), start, None)
        began, now = time.perf_counter(), seeding.capture()
        self.restore_random(random)
        batches = iterate(self.loader)
        for _ in range(start):
            next(batches, None)
        seeding.restore(now)
        warn(
            f"{self.name} ({type(self.loader).__name__}) cannot be entered in the middle: the {start} batches before the place "
            f"to continue from were loaded again and left out, which took {time.perf_counter() - began:.1f} s. A "
            "cvkit.data.Loader, or a loader with state_dict() and load_state_dict(), continues there at once"
        )
        return batches

    def iterate(self, device: torch.device | None = None) -> Iterator[Any]:
        """Iterates the loader where it stands, as one does by hand; batches are unfinished."""
        return iter(self.loader)

    def on_place(self, device: torch.device) -> bool:
        """Whether batches are the model's as they come from :meth:`open`."""
        return device.type == "cpu"

    def finish(self, batch: Any, runtime: Runtime | None = None) -> Any:
        """Turns a batch as :meth:`open` gives it into one as the model gets it; without a runtime it stays where it is."""
        return batch if runtime is None or runtime.device.type == "cpu" else runtime.place(batch)

    # --- ranks

    def part(self, batch: Any, world: World) -> tuple[int, int | None, Any]:
        """Returns how many samples of a batch are this rank's, how many all have if that is known, and the batch."""
        return samples_in(batch), None, batch

    # --- what a checkpoint keeps

    def state(self, *, at_end: bool = False) -> dict[str, Any] | None:
        """Returns where the loader stands, for a checkpoint; ``None`` where the epoch and the place say all.

        Args:
            at_end: Whether the end of the last complete epoch is meant rather than what is under way.
        """
        return None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what :meth:`state` returned; :meth:`open` then continues there."""

    def close(self) -> None:
        """Lets go of an iteration that is still open."""


class Resumable(Adapter):
    """cvkit's ``Loader``, or any that offers the same: entered at any place, ahead of time on the device."""

    places = True

    def epoch_random(self) -> None:
        """Returns nothing: its batches follow from epoch and place."""

    def _first(self) -> Any:
        return one_share(self.loader.peek())

    def part(self, batch: Any, world: World) -> tuple[int, int | None, Any]:
        """Returns what the loader has said of its share; where samples may be left out, the ranks tell one another."""
        return world.counted(batch)

    def open(
        self, epoch: int, start: int = 0, random: Mapping[str, Any] | None = None, device: torch.device | None = None
    ) -> Iterator[Any]:
        """Opens one epoch at its batch ``start``; nothing before it is loaded."""
        self.loader.set_epoch(epoch)
        if (world := current()) is not None:
            return self.loader.batches(start, device, world.share)  # type: ignore[no-any-return]
        return self.loader.batches(start, device)  # type: ignore[no-any-return]

    def iterate(self, device: torch.device | None = None) -> Iterator[Any]:
        """Iterates the epoch at which the loader stands; it does not move on."""
        return self.loader.batches(0, device)  # type: ignore[no-any-return]

    def on_place(self, device: torch.device) -> bool:
        """Returns false: the batch stage of the transform is still to come."""
        return False

    def finish(self, batch: Any, runtime: Runtime | None = None) -> Any:
        """Places a batch and applies the transform's batch stage."""
        if runtime is not None and runtime.device.type != "cpu":
            batch = runtime.place(batch)
        return self.loader.finish(batch)


class TorchLoader(Adapter):
    """A torch ``DataLoader``."""

    def _first(self) -> Any:
        """Returns the first batch without starting workers."""
        dataset = self.loader.dataset
        if isinstance(dataset, IterableDataset):
            return _first_of_stream(self.loader)
        if self.loader.batch_sampler is None or not hasattr(dataset, "__getitem__"):
            return super()._first()
        indices = next(iter(self.loader.batch_sampler))
        return self.loader.collate_fn([dataset[index] for index in indices])


class Stateful(TorchLoader):
    """A loader with ``state_dict`` and ``load_state_dict``; its state goes into the checkpoint."""

    def __init__(self, loader: Any, name: str) -> None:
        super().__init__(loader, name)
        self._open = self._settling = False
        self._last: dict[str, Any] | None = None
        self._pending: Mapping[str, Any] | None = None

    def _first(self) -> Any:
        if isinstance(self.loader, DataLoader):  # whose state_dict() may start workers
            return super()._first()
        before = copy.deepcopy(self.loader.state_dict())
        try:
            return next(iter(self.loader), None)
        finally:
            self.loader.load_state_dict(before)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leaves the loader at the epoch and the batch where it stood."""
        with seeding.preserved():
            before = copy.deepcopy(self.loader.state_dict())
        try:
            with super().kept():
                yield
        finally:
            self.loader.load_state_dict(before)

    def state(self, *, at_end: bool = False) -> dict[str, Any] | None:
        """Returns the loader's own state after the batch that was taken last, and whether its epoch has ended there."""
        if self._pending is not None:
            return dict(self._pending)
        if self._open and not at_end:
            return {"state": copy.deepcopy(self.loader.state_dict()), "ended": False}
        return self._last

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what :meth:`state` returned."""
        self._pending = self._last = dict(state)

    def open(
        self, epoch: int, start: int = 0, random: Mapping[str, Any] | None = None, device: torch.device | None = None
    ) -> Iterator[Any]:
        """Opens one epoch at its batch ``start``, where a restored state stands; nothing before it is loaded."""
        saved, self._pending = self._pending, None
        if saved is None:
            batches = super().open(epoch, start, random, device)
            return self._watched(self._or_afresh(batches) if self._settling else batches)
        self.move_to_epoch(epoch)
        self._settling = True
        if start == 0 or saved["ended"]:
            self._go_to_end(saved["state"])
            return iter(()) if start > 0 else self._watched(self._or_afresh(iterate(self.loader)))
        with seeding.preserved():  # the numbers of an epoch's beginning were drawn before
            self.loader.load_state_dict(saved["state"])
            batches = iterate(self.loader, now=True)
        return self._watched(batches)

    def _go_to_end(self, state: Any) -> None:
        """Has the loader stand at the end of an epoch."""
        with self.undisturbed():
            self.loader.load_state_dict(state)
            if isinstance(self.loader, DataLoader):  # torchdata's draws for the old epoch, and once more for the next
                iterate(self.loader, now=True)

    def _or_afresh(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields an epoch's batches where a restored state may still stand at the end of the one before."""
        self._settling = False
        first = next(batches, _NOTHING)
        if first is _NOTHING:
            yield from iterate(self.loader)
        else:
            yield first
            yield from batches

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        self._open = True
        yield from batches
        self._last = {"state": copy.deepcopy(self.loader.state_dict()), "ended": True}
        self._open = False


class Stream(Adapter):
    """A loader without a length: an epoch is its next batches, and where it ends it is begun anew.

    So no batch is left out and none comes more often than others, whatever ``steps_per_epoch`` is.

    Args:
        inner: The adapter of one pass over the loader.
        length: Batches to an epoch.
    """

    def __init__(self, inner: Adapter, length: int) -> None:
        super().__init__(inner.loader, inner.name)
        self._inner = inner
        self._length = length
        self._passes = self._taken = 0
        self._random: Mapping[str, Any] | None = None
        self._batches: Iterator[Any] | None = None

    def __len__(self) -> int:
        return self._length

    def _first(self) -> Any:
        return self._inner._first()

    def epoch_random(self) -> None:
        """Returns nothing: :meth:`state` knows where the pass began."""

    def move_to_epoch(self, epoch: int) -> None:
        """Does nothing: the loader is told which pass begins instead."""

    def open(
        self, epoch: int, start: int = 0, random: Mapping[str, Any] | None = None, device: torch.device | None = None
    ) -> Iterator[Any]:
        """Opens what is left of an epoch."""
        if self._batches is None:
            self._batches = self._endless()
        return itertools.islice(self._batches, self._length - start)

    def _endless(self) -> Iterator[Any]:
        if self._random is None:
            self._passes = self._inner.epoch
        while True:
            if self._taken == 0:
                self._random = self._inner.random_state()
            batches = self._inner.open(self._passes, self._taken, self._random)
            began = self._taken
            for batch in batches:
                self._taken += 1
                yield batch
            if self._taken == began == 0:
                return
            self._passes, self._taken = self._passes + 1, 0

    def state(self, *, at_end: bool = False) -> dict[str, Any] | None:
        """Returns which pass is under way, how it began, and how much of it was taken."""
        if self._random is None:
            return None
        inner = self._inner.state(at_end=at_end)
        return {"pass": self._passes, "taken": self._taken, "random": dict(self._random), "inner": inner}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what :meth:`state` returned."""
        self._passes, self._taken, self._random = state["pass"], state["taken"], state["random"]
        if state["inner"] is not None:
            self._inner.restore(state["inner"])

    def close(self) -> None:
        """Ends the pass under way, and its workers with it."""
        if self._batches is not None:
            self._batches.close()  # type: ignore[attr-defined]  # it is a generator
            self._batches = None


def _holders(loader: Any) -> list[Any]:
    """Returns a loader, its sampler and its batch sampler, as far as they are there."""
    holders = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return [one for one in holders if one is not None]


def _first_of_stream(loader: DataLoader[Any]) -> Any:
    """Returns the first batch of a DataLoader over an iterable dataset, which stays where it is if it can say where."""
    dataset: Any = loader.dataset
    before = copy.deepcopy(dataset.state_dict()) if isinstance(dataset, StatefulLoader) else None
    try:
        samples = iter(dataset)
        if loader.batch_size is None:
            sample = next(samples, None)
            return None if sample is None else loader.collate_fn(sample)
        taken = list(itertools.islice(samples, loader.batch_size))
        return loader.collate_fn(taken) if taken else None
    finally:
        if before is not None:
            dataset.load_state_dict(before)
