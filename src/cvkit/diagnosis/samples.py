"""What is known of all samples without reading one: which they are, their labels, and the order in which they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from cvkit.diagnosis.probe import Side

__all__ = [
    "Drawn",
    "confirmed",
    "drawn",
    "getter",
    "labels_of",
    "labels_of_side",
    "parts",
    "parts_of_side",
    "sampler_of",
]

Array = npt.NDArray[Any]

_NAMES = ("targets", "labels", "_labels")
"""Where datasets keep their labels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The order in which a loader takes its samples.

    Attributes:
        kind: ``"replaced"`` is drawn with replacement, ``"unknown"`` by something of the user's own.
        indices: Which samples; ``None`` for all.
    """

    kind: Literal["sequential", "random", "replaced", "unknown"]
    indices: Array | None = None


def sampler_of(loader: DataLoader[Any]) -> Any:
    """Returns what draws the samples of torch's loader, ``None`` where batches are made in a way of their own."""
    held = loader.batch_sampler
    return held.sampler if type(held) is BatchSampler else None


def drawn(loader: Any) -> Drawn:
    """Returns how a loader takes its samples."""
    if isinstance(loader, list | tuple):
        return Drawn("sequential")
    if not isinstance(loader, DataLoader):
        shuffle = getattr(loader, "shuffle", None)
        if not isinstance(shuffle, bool):
            return Drawn("unknown")
        return Drawn(
            "replaced" if getattr(loader, "weights", None) is not None else "random" if shuffle else "sequential"
        )
    sampler = sampler_of(loader) if not isinstance(loader.dataset, IterableDataset) else None
    if type(sampler) is SequentialSampler:
        return Drawn("sequential")
    if type(sampler) is RandomSampler:
        return Drawn("replaced" if sampler.replacement else "random")
    if type(sampler) is SubsetRandomSampler:
        return Drawn("random", np.asarray([int(one) for one in sampler.indices]))
    if type(sampler) is WeightedRandomSampler:
        return Drawn("replaced")
    if type(sampler) is DistributedSampler:
        return Drawn("random" if sampler.shuffle else "sequential")
    return Drawn("unknown")


def getter(dataset: Any) -> str:
    """Returns the package of the class whose ``__getitem__`` a dataset has."""
    owner = next((kind for kind in type(dataset).__mro__ if "__getitem__" in vars(kind)), None)
    return owner.__module__.split(".")[0] if owner is not None else ""


def _inside(dataset: Any) -> tuple[Any, Array] | None:
    """Returns the whole and the indices of a plain subset."""
    if getter(dataset) not in ("torch", "cvkit") or not hasattr(dataset, "dataset") or not hasattr(dataset, "indices"):
        return None
    return dataset.dataset, np.asarray([int(one) for one in dataset.indices], dtype=np.int64)


def parts(dataset: Any, indices: Array | None = None) -> Iterator[tuple[Any, Array]]:
    """Yields the innermost datasets of subsets and joined ones, and which of their samples are in it."""
    if dataset is None or not hasattr(dataset, "__len__"):
        return
    places = np.arange(len(dataset)) if indices is None else indices
    subset = _inside(dataset)
    if subset is not None:
        yield from parts(subset[0], subset[1][places])
        return
    held: Any = dataset.datasets if isinstance(dataset, ConcatDataset) else getattr(dataset, "parts", None)
    if getter(dataset) not in ("torch", "cvkit") or not isinstance(held, list | tuple):
        yield dataset, places
        return
    begin = 0
    for one in held:
        yield from parts(one, places[(places >= begin) & (places < begin + len(one))] - begin)
        begin += len(one)


def parts_of_side(side: Side) -> list[tuple[Any, Array]]:
    """Returns the innermost datasets of a side and which of their samples it takes; nothing where that is not known."""
    how = drawn(side.loader)
    if side.dataset is None or (how.kind == "unknown" and isinstance(side.loader, DataLoader)):
        return []
    return list(parts(side.dataset, how.indices))


def labels_of(dataset: Any) -> Array | None:
    """Returns the label of each sample, ``None`` where it is not known, or is more than one value."""
    subset = _inside(dataset)
    if subset is not None:
        whole = labels_of(subset[0])
        return whole[subset[1]] if whole is not None else None
    if isinstance(dataset, ConcatDataset) and getter(dataset) == "torch":
        held = [labels_of(one) for one in dataset.datasets]
        known = [one for one in held if one is not None]
        return np.concatenate(known) if known and len(known) == len(held) else None
    if isinstance(dataset, TensorDataset):
        return (
            _labels(dataset.tensors[-1], dataset) if getter(dataset) == "torch" and len(dataset.tensors) == 2 else None
        )
    if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return None
    if any(getattr(dataset, name, None) is not None for name in ("target_transform", "transforms")):
        plain = getattr(dataset, "target_transform", None) is None and getter(dataset) == "torchvision"
        if not plain:
            return None
    for name in _NAMES:
        found = _labels(getattr(dataset, name, None), dataset)
        if found is not None:
            return found
    return None


def _labels(values: Any, dataset: Any) -> Array | None:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy() if values.dtype.is_floating_point or not values.is_complex() else None
    if not isinstance(values, list | tuple | np.ndarray) or len(values) != len(dataset) or not len(values):
        return None
    if not isinstance(values, np.ndarray):
        kinds = {type(one) for one in values}
        if not all(issubclass(kind, int | float | str | np.generic) for kind in kinds) or (
            str in kinds and len(kinds) > 1
        ):
            return None
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array if array.ndim == 1 and array.dtype.kind in "iufUb" else None


def labels_of_side(side: Side) -> Array | None:
    """Returns the labels of a side in the order of its samples before any shuffling."""
    if isinstance(side.loader, list | tuple):
        targets = [one[1] for one in side.loader if isinstance(one, tuple | list) and len(one) == 2]
        if len(targets) < len(side.loader) or not all(isinstance(one, Tensor) and one.ndim == 1 for one in targets):
            return None
        return np.concatenate([one.detach().cpu().numpy() for one in targets]) if targets else None
    labels, how = labels_of(side.dataset), drawn(side.loader)
    if labels is None or how.indices is None:
        return labels
    inside = how.indices[(how.indices >= 0) & (how.indices < len(labels))]
    return labels[inside]


def confirmed(dataset: Any, index: int, value: object) -> bool:
    """Whether a sample, read, has the target that was seen: a ``__getitem__`` may number labels anew."""
    if isinstance(dataset, TensorDataset) and getter(dataset) == "torch":
        return True
    try:
        target = dataset[index][1]
        return bool(int(target) == value)
    except Exception:
        return False
