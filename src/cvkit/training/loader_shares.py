"""What a rank takes of loaders that are not cvkit's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from cvkit import seeding
from cvkit.errors import ArgumentError
from cvkit.loading import ResumableLoader
from cvkit.training.distributed import World
from cvkit.training.loaders import Adapter, TorchLoader
from cvkit.training.torch_workers import iterate

__all__ = ["shared"]


def shared(adapter: Adapter, world: World | None, *, validates: bool) -> Adapter:
    """Returns the adapter of this rank's share of a loader.

    Args:
        adapter: The adapter of the whole loader.
        world: The ranks; with one process the adapter is returned as it is.
        validates: Whether the batches are evaluated, so that each sample must come once.

    Raises:
        ArgumentError: A loader that cannot be shared, or a ``DistributedSampler``, which pads, for validation.
    """
    loader = adapter.loader
    if world is None or isinstance(loader, ResumableLoader) or getattr(loader, "sharded", False) is True:
        return adapter
    if isinstance(getattr(loader, "sampler", None), DistributedSampler):
        if validates:
            raise ArgumentError(
                f"{adapter.name} cannot be evaluated with a DistributedSampler",
                got=f"DistributedSampler over {len(loader.dataset)} samples",
                expected="each sample once: it repeats some, so that every rank has as many, and they would count twice",
                fix="pass a plain DataLoader: each rank takes its share of every batch",
            )
        return adapter
    mapped = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if type(adapter) is TorchLoader and mapped and loader.batch_sampler is not None:
        return SharedTorchLoader(loader, adapter.name, world)
    raise ArgumentError(
        f"{adapter.name} cannot be shared by {world.size} processes",
        got=type(loader).__name__,
        expected="a cvkit.data.Loader, or a torch DataLoader over a dataset with indices, with batches",
        fix="take one of these; or, if each rank gets a part of its own, as long as the others', say so: "
        f"{adapter.name}.sharded = True",
    )


class SharedTorchLoader(TorchLoader):
    """A rank's share of a torch ``DataLoader``: of each batch in the order that rank 0 has drawn.

    Args:
        loader: The loader; its ``batch_size`` is that of the global batch.
        name: The argument's name, for messages.
        world: The ranks.
    """

    def __init__(self, loader: Any, name: str, world: World) -> None:
        super().__init__(loader, name)
        self._world = world
        self._sizes: list[tuple[int, int]] = []
        self._next = 0

    def open(
        self, epoch: int, start: int = 0, random: Mapping[str, Any] | None = None, device: torch.device | None = None
    ) -> Iterator[Any]:
        """Opens this rank's share of an epoch at its batch ``start``; nothing before it is loaded."""
        self.move_to_epoch(epoch)
        if start and random is not None:
            with self.undisturbed():
                self.restore_random(random)
                order = self._world.from_first(self._drawn)
        else:
            order = self._world.from_first(self._drawn)
        rank, ranks = self._world.share
        parts = [batch[rank * len(batch) // ranks : (rank + 1) * len(batch) // ranks] for batch in order]
        self._sizes = [(len(part), len(batch)) for part, batch in zip(parts, order, strict=True)]
        self._next = start
        return self._loaded([part or batch[:1] for part, batch in zip(parts, order, strict=True)][start:])

    def _drawn(self) -> list[list[int]]:
        """Draws the order of an epoch as iterating the loader in one process does: the workers' seed first."""
        torch.empty((), dtype=torch.int64).random_(generator=self.loader.generator)
        return [list(batch) for batch in self.loader.batch_sampler]

    def _loaded(self, batches: list[list[int]]) -> Iterator[Any]:
        given = self.loader
        own: DataLoader[Any] = DataLoader(
            given.dataset,
            batch_sampler=batches,
            num_workers=given.num_workers,
            collate_fn=given.collate_fn,
            pin_memory=given.pin_memory,
            timeout=given.timeout,
            worker_init_fn=given.worker_init_fn,
            multiprocessing_context=given.multiprocessing_context,
            prefetch_factor=given.prefetch_factor,
        )
        with seeding.preserved():
            loaded = iterate(own)
        yield from loaded

    def part(self, batch: Any, world: World) -> tuple[int, int | None, Any]:
        """Returns this rank's and all samples of the batch that comes next."""
        rows, total = self._sizes[self._next]
        self._next += 1
        return rows, total, batch
