"""The part of a global batch that one of several processes loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

from cvkit.data.fetch import Fetched
from cvkit.data.order import share_of
from cvkit.data.prefetch import Part, RawBatch
from cvkit.errors import ArgumentError

__all__ = ["PartOf", "Shares", "rows_of"]


PartOf: TypeAlias = Callable[[int], Part]
"""Says which rows of the batch at a place are here."""


class Shares(Sequence[Tensor]):
    """What a process loads of each batch of an epoch, as indices of samples, and what it must know of the rest.

    Args:
        batches: The global batches, as indices of samples.
        share: Which process this is, and how many there are.
        transform: The loader's transform.
        unsure: Whether samples may be left out (``on_error="skip"``), so that it is known only afterwards which there are.

    Raises:
        ArgumentError: A transform whose batch stage cannot be applied to a part of a batch.
    """

    def __init__(self, batches: Sequence[Tensor], share: tuple[int, int], transform: Any, *, unsure: bool) -> None:
        if hasattr(transform, "batch") and not (hasattr(transform, "draw") and hasattr(transform, "apply")):
            raise ArgumentError(
                f"{type(transform).__name__} cannot be shared by several processes",
                got="batch() alone, whose random numbers are those of one process",
                expected="draw(count, generator), which draws for the whole batch, and apply(images, targets, draws)",
                fix="derive it from cvkit.transforms.Transform, and move what batch() draws to draw()",
            )
        self.batches = batches
        self.transform = transform
        self.unsure = unsure
        self.mixes = bool(getattr(transform, "mixes", False))
        self.share = share

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return Shares(self.batches[index], self.share, self.transform, unsure=self.unsure)
        return self._take(self.batches[index])[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self._take(batch)[0] for batch in self.batches)

    def part(self, place: int) -> Part:
        """Returns which rows of a batch are here."""
        return self._take(self.batches[place])[1]

    def _take(self, batch: Tensor) -> tuple[Tensor, Part]:
        rank, ranks = self.share
        own, total = share_of(batch, rank, ranks), len(batch)
        first = rank * total // ranks
        if not len(own):
            return batch[:1], Part(first, 0, total, unsure=self.unsure)
        lead = self.mixes and not self.unsure and total > 1
        indices = torch.cat([batch[first - 1].reshape(1), own]) if lead else own
        return indices, Part(first, len(own), total, lead, self.unsure)

    def complete(self, loaded: Iterable[RawBatch], load: Callable[[list[int]], Fetched]) -> Iterator[RawBatch]:
        """Yields batches with their parts; one of which no process could read a sample is left out by all of them.

        Args:
            loaded: What was loaded of ``indices``, with no rows where nothing could be read.
            load: Loads samples, for those that must stand in or come ahead where others were left out.
        """
        for raw in loaded:
            part, images, targets = self.part(raw.place), raw.images, raw.targets
            if not self.unsure:
                yield raw._replace(part=part)
                continue
            batch = self.batches[raw.place].tolist()
            rows = len(images) if part.rows else 0
            if rows and self.mixes:
                before = self._readable([*reversed(batch[: part.first]), *reversed(batch[part.first :])], load)
                if before is not None:
                    images, targets = torch.cat([before.images, images]), torch.cat([before.targets, targets])
            elif not len(images):
                before = self._readable(batch, load)
                if before is None:
                    continue
                images, targets = before.images, before.targets
            part = part._replace(rows=rows, lead=bool(rows and self.mixes))
            yield raw._replace(images=images, targets=targets, part=part)

    @staticmethod
    def _readable(candidates: list[int], load: Callable[[list[int]], Fetched]) -> Fetched | None:
        return next((found for index in candidates if (found := load([index])).indices), None)


def rows_of(transform: Any, raw: RawBatch, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Applies the batch stage of a transform to a part of a batch, with the random numbers of the whole one.

    Args:
        transform: One with ``draw`` and ``apply``.
        raw: The rows that are here.
        part: Which they are.
        generator: As for the whole batch in one process.

    Returns:
        Inputs and targets of this process's rows.
    """
    places = part.places()
    draws = {name: drawn[places] for name, drawn in transform.draw(part.total, generator).items()}
    inputs, targets = transform.apply(raw.images, raw.targets, draws)
    return (inputs[1:], targets[1:]) if part.lead else (inputs, targets)
