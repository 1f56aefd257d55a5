"""What a ``Loader`` is asked for, checked before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvkit.data.fetch import TwoStage
from cvkit.errors import ArgumentError, unknown_name

__all__ = ["check", "check_processes", "check_weights"]

_CACHES = ("auto", "ram", "device", None)
_START_METHODS = ("auto", "fork", "spawn", "forkserver")


def check(
    dataset: Any,
    batch_size: object,
    drop_last: bool,
    workers: object,
    cache: object,
    transform: object,
    seed: object,
) -> None:
    """Refuses what a loader cannot be made of.

    Raises:
        ArgumentError: Named by the argument.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(
            "batch_size cannot be used", got=repr(batch_size), expected="1 or more", fix="batch_size=64"
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ArgumentError(
            "the loader cannot use this dataset",
            got=type(dataset).__name__,
            expected="an object with __len__ and __getitem__(i) -> (image, target)",
            fix="give an iterable of batches straight to fit instead",
        )
    if workers != "auto" and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise ArgumentError(
            "workers cannot be used", got=repr(workers), expected='"auto" or 0 or more', fix='workers="auto"'
        )
    if cache not in _CACHES:
        raise ArgumentError(
            "cache cannot be used", got=repr(cache), expected='"auto", "ram", "device" or None', fix='cache="auto"'
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ArgumentError("seed cannot be used", got=repr(seed), expected="an integer", fix="seed=0")
    if transform is not None and not isinstance(transform, TwoStage) and not callable(transform):
        raise ArgumentError(
            "transform cannot be used",
            got=repr(transform),
            expected="a preset or a callable on one image",
            fix="e.g. transform=cvkit.transforms.classification_train(224)",
        )
    if len(dataset) < (batch_size if drop_last else 1):
        raise ArgumentError(
            "the loader would have no batches",
            got=f"{len(dataset)} samples, batch_size={batch_size}, drop_last={drop_last}",
            expected="at least one batch",
            fix="take drop_last=False or a smaller batch_size"
            if len(dataset)
            else "see whether the dataset found its files",
        )


def check_processes(timeout: object, start_method: object) -> None:
    """Refuses what worker processes cannot be started with.

    Raises:
        ArgumentError: The timeout.
        UnknownNameError: The start method.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ArgumentError(
            "timeout cannot be used", got=repr(timeout), expected="a number of seconds above 0", fix="timeout=300"
        )
    if start_method not in _START_METHODS:
        raise unknown_name("start_method", start_method, _START_METHODS)


def check_weights(weights: Sequence[float] | Tensor | str | None, dataset: Any) -> Tensor | None:
    """Returns the weights of the samples as numbers.

    Raises:
        ArgumentError: Not one finite number a sample.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        return _balanced(weights, dataset)
    count = len(dataset)
    try:
        values = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            "weights cannot be used", got=error, expected=f"{count} numbers", fix="weights=[…], one a sample"
        ) from error
    if values.shape != (count,) or not bool(torch.isfinite(values).all()) or values.min() < 0 or values.sum() == 0:
        raise ArgumentError(
            "weights cannot be used",
            got=f"{tuple(values.shape)} numbers from {float(values.min()) if values.numel() else '-'}",
            expected=f"{count} finite numbers of at least 0, not all of them 0: one a sample",
            fix='weights="balanced" for as many of each class',
        )
    return values


def _balanced(asked: str, dataset: Any) -> Tensor:
    """Returns weights with which every class is drawn as often."""
    targets = getattr(dataset, "targets", None)
    values = None if targets is None else np.asarray(targets)
    if asked != "balanced" or values is None or values.ndim != 1 or values.dtype.kind not in "iubU":
        raise ArgumentError(
            "weights cannot be used",
            got=repr(asked)
            + ("" if asked != "balanced" else f" for a {type(dataset).__name__} whose targets are no classes"),
            expected='numbers, or "balanced" for a dataset whose targets are classes',
            fix="weights=[…], one a sample",
        )
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return torch.from_numpy(1.0 / counts[places])
