"""Samples that are in train and in val: the same objects and indices, the same files, the same contents."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import TensorDataset

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.samples import parts_of_side
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check

Array = npt.NDArray[Any]
Parts = list[tuple[Any, Array]]

FEW = 32
"""A validation set of fewer samples, all of them in train, is a program that is tried out; half as many of a larger train."""
BYTES = 128 * 2**20
"""Tensors up to this size are compared."""
SECONDS = 0.15
"""Looking at files ends after this time."""

_SPLIT = "split once: train, val = cvkit.data.split(dataset, 0.2); or take indices of one permutation for both"


def _sides(probe: Probe) -> tuple[Parts, Parts, int] | None:
    """Returns what train and val are made of, and how many samples val has; ``None`` where nothing can be said."""
    if probe.val is None or probe.val.loader is probe.train.loader:  # the very same loader is meant
        return None
    train, val = parts_of_side(probe.train), parts_of_side(probe.val)
    count = sum(len(places) for _, places in val)
    return (train, val, count) if train and count else None


def _matters(probe: Probe, count: int, total: int) -> bool:
    """Whether so many common samples are a leak, and not the one batch that a program is tried out on."""
    if count == total:
        seen = sum(len(places) for _, places in parts_of_side(probe.train))
        return count >= (FEW if seen < 1.5 * total else FEW // 2) and _batches(probe.train) > 1
    return count >= max(3, 0.02 * total)


def _batches(side: Side) -> int:
    return len(side.loader) if hasattr(side.loader, "__len__") else 2


def _array(dataset: Any) -> Array | None:
    """Returns what a dataset holds in memory as its inputs, a row for each sample."""
    names = ("images", "data", "inputs", "x", "X")
    held = dataset.tensors[0] if isinstance(dataset, TensorDataset) else None
    for name in names if held is None else ():
        held = getattr(dataset, name, None)
        if isinstance(held, Tensor | np.ndarray):
            break
    if not isinstance(held, Tensor | np.ndarray) or held.ndim < 2 or len(held) != len(dataset):
        return None
    if isinstance(held, np.ndarray):
        return held if held.dtype.kind in "iuf" else None
    return held.detach().numpy() if held.device.type == "cpu" and str(held.dtype) != "torch.bfloat16" else None


def _key(dataset: Any) -> object:
    """Returns what two datasets have in common that hold the same samples."""
    if isinstance(dataset, TensorDataset):
        one = dataset.tensors[0]
        return one.data_ptr() or id(one), tuple(one.shape), one.stride()
    return id(dataset)


def _common(train: Parts, val: Parts) -> list[int]:
    """Returns the indices of samples that both sides take of the same dataset."""
    found: list[int] = []
    for dataset, places in val:
        held = [others for other, others in train if other is dataset or _key(other) == _key(dataset)]
        if held:
            size = len(dataset)
            found += np.intersect1d(places % size, np.concatenate(held) % size).tolist()
    return found


@check("CV251", "warning", "The same samples in train and val", needs=["both_datasets"])
def same_samples(probe: Probe) -> Iterator[Seen]:
    """One dataset for both, or two subsets whose indices overlap."""
    sides = _sides(probe)
    if sides is None:
        return
    train, val, total = sides
    common = _common(train, val)
    if not _matters(probe, len(common), total):
        return
    yield Seen(
        f"{len(common)} of the {total} validation samples are training samples, too",
        got="val is made of the dataset of train"
        if len(common) == total
        else f"subsets of one dataset whose indices overlap: {some(map(str, sorted(common)))}",
        expected="validation samples that the model has not seen",
        fix=_SPLIT,
    )


def paths_of(dataset: Any) -> list[str] | None:
    """Returns the file of each sample, where a sample is a file of its own; ``None`` where that is not known."""
    root = getattr(dataset, "root", "")
    for name in ("samples", "paths", "imgs", "files", "image_paths", "image_files"):
        listed = getattr(dataset, name, None)
        if listed is None or not hasattr(listed, "__len__") or len(listed) != len(dataset) or not len(listed):
            continue
        first = listed[0][0] if isinstance(listed[0], tuple | list) and listed[0] else listed[0]
        if not isinstance(first, str | os.PathLike) or len(listed) > 200_000:
            continue
        plain = [one[0] if isinstance(one, tuple | list) else one for one in listed]
        base = root if isinstance(root, str | os.PathLike) else ""
        found = [os.path.abspath(os.path.join(base, one)) for one in plain]
        return found if os.path.isfile(found[0]) and len(set(found)) == len(found) else None
    return None


def _files(parts: Parts) -> list[str]:
    found: list[str] = []
    for dataset, places in parts:
        paths = paths_of(dataset)
        if paths is not None:
            found += [paths[int(place)] for place in places]
    return found


@check("CV252", "warning", "The same files in train and val", needs=["both_datasets"])
def same_files(probe: Probe) -> Iterator[Seen]:
    """Two datasets that list the same files, or files that were copied from one folder to the other."""
    sides = _sides(probe)
    if sides is None or _matters(probe, len(_common(*sides[:2])), sides[2]):
        return  # said already
    train, val = _files(sides[0]), _files(sides[1])
    if not train or not val:
        return
    both = set(train)
    same = [one for one in val if one in both]
    copies = [] if same else _copies(train, val)
    count = len(same) or len(copies)
    if not _matters(probe, count, len(val)):
        return
    yield Seen(
        f"{count} of the {len(val)} validation files are in train, too",
        got=f"the same paths: {some(_short(one) for one in same[:5])}"
        if same
        else "files of the same content: " + "; ".join(f"{_short(a)} = {_short(b)}" for a, b in copies[:3]),
        expected="validation images that the model has not seen",
        fix=_SPLIT if same else "delete the copies, or split the images anew",
    )


def _short(path: str) -> str:
    return os.path.join(*path.split(os.sep)[-3:])


def _copies(train: list[str], val: list[str]) -> list[tuple[str, str]]:
    """Returns files of val with one of train of the same content; only those of equal size are read, and not for long."""
    end = time.perf_counter() + SECONDS
    sizes: dict[int, list[str]] = {}
    for path in val:
        sizes.setdefault(_size(path), []).append(path)
    equal: dict[int, list[str]] = {}
    for path in train:
        if (size := _size(path)) in sizes and size > 0:
            equal.setdefault(size, []).append(path)
        if time.perf_counter() > end:
            return []
    found: list[tuple[str, str]] = []
    for size, others in sorted(equal.items()):
        held: dict[bytes, str] = {}
        for path in others:
            held.setdefault(_digest(path), path)
        found += [(path, held[one]) for path in sizes[size] if (one := _digest(path)) in held]
        if time.perf_counter() > end:
            break
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()


@check("CV253", "warning", "The same tensors in train and val", needs=["both_datasets"])
def same_contents(probe: Probe) -> Iterator[Seen]:
    """Rows that are equal, though they belong to two datasets."""
    sides = _sides(probe)
    if sides is None or _matters(probe, len(_common(*sides[:2])), sides[2]):
        return
    held = [[(array, places) for one, places in side if (array := _array(one)) is not None] for side in sides[:2]]
    if sum(array[0].nbytes * len(places) for side in held for array, places in side) > BYTES:
        return
    rows: dict[int, Array] = {}
    for array, places in held[0]:
        for place in places.tolist():
            rows.setdefault(hash(array[place].tobytes()), array[place])
    total, equal = 0, []
    for array, places in held[1]:
        for number, place in enumerate(places.tolist(), total):
            row = array[place]
            other = rows.get(hash(row.tobytes()))
            if other is not None and row.size >= 16 and row.min() < row.max() and np.array_equal(row, other):
                equal.append(number)
        total += len(places)
    if not _matters(probe, len(equal), total) or len(equal) < 0.05 * total:
        return
    yield Seen(
        f"{len(equal)} of the {total} validation samples are in train, too",
        got=f"tensors of the same values: samples {some(map(str, equal))} of val",
        expected="validation samples that the model has not seen",
        fix=_SPLIT,
    )
