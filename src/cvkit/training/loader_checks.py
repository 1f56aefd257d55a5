"""Whether a loader can be iterated once an epoch, and what to say where it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError, DataError
from cvkit.numbering import check_numbering
from cvkit.training.loaders import Adapter

__all__ = ["check_loader", "used_up"]


def check_loader(name: str, loader: Any, steps_per_epoch: int | None = None) -> None:
    """Refuses what cannot be iterated once an epoch.

    Args:
        name: The argument's name, for the message.
        loader: What arrived.
        steps_per_epoch: How many batches are an epoch, for a loader that does not say it itself.

    Raises:
        ArgumentError: Not an iterable, an iterator that is used up after one walk, no length, or no batches; or a
            ``steps_per_epoch`` that is no number of batches, or for a loader that has a length.
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
    batches = _length(loader)
    if steps_per_epoch is not None:
        _check_steps(name, loader, batches, steps_per_epoch)
        return
    if batches is None:
        raise ArgumentError(
            f"{name} does not say how many batches it has",
            got=f"{type(loader).__name__} without a length",
            expected="a sized iterable: schedules and the time left are computed from it",
            fix="give it a __len__ that returns the number of batches"
            + ("; or tell fit: steps_per_epoch=1000" if name == "train" else ""),
        )
    if batches == 0:
        raise ArgumentError(
            f"{name} has no batches", got=_why_empty(loader), expected="at least one batch", fix=_fill(loader)
        )


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except (TypeError, AttributeError):  # a DataLoader has a __len__ and its iterable dataset none
        return None


def _check_steps(name: str, loader: Any, batches: int | None, steps_per_epoch: object) -> None:
    check_integer("steps_per_epoch", steps_per_epoch, fix="pass e.g. steps_per_epoch=1000")
    if batches is not None:
        raise ArgumentError(
            f"steps_per_epoch is for a {name} without a length",
            got=f"steps_per_epoch={steps_per_epoch}, and {type(loader).__name__} with {batches} batches",
            expected="a loader that does not say how many batches it has",
            fix="leave steps_per_epoch out",
        )


def _loader_of(given: Any) -> str:
    if isinstance(given, str | PurePath):
        return "make loaders of it: data = cvkit.data.from_folder(…), then pass data.train and data.val"
    if hasattr(given, "train") and hasattr(given, "val"):
        return "pass its two loaders: data.train, data.val"
    return "wrap the dataset: cvkit.data.Loader(dataset, batch_size=64)"


def _why_empty(loader: Any) -> str:
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return f"{len(loader.dataset)} samples, batch_size={loader.batch_size}, drop_last={loader.drop_last}"  # type: ignore[arg-type]
    return f"an empty {type(loader).__name__}"


def _fill(loader: Any) -> str:
    if isinstance(loader, DataLoader) and loader.drop_last:
        return "take drop_last=False or a smaller batch_size"
    return "see whether the dataset found its files"


def used_up(source: Adapter, epoch: int) -> DataError:
    """Returns the error on training batches of which none came in an epoch."""
    return DataError(
        f"train gave no batch in epoch {epoch + 1}",
        got=f"an iteration of {type(source.loader).__name__} that ends at once",
        expected=f"{len(source)} batches, as its length says",
        fix="it is probably used up: pass an object whose __iter__ starts afresh each time",
    )
