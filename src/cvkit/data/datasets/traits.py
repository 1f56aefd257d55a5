"""What can be said of any dataset: what it consists of, and how its samples may be read."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset
from torch.utils.data import Subset as TorchSubset

__all__ = ["fingerprint_of", "is_deterministic", "reads"]


def fingerprint_of(*parts: object) -> str:
    """Returns a short stable hash of what a dataset consists of: of an array its bytes, of all else its ``repr``."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)  # no copy of what is contiguous
            continue
        data = repr(part).encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def is_deterministic(dataset: Any) -> bool:
    """Whether a sample is known to be the same each time it is asked for.

    Datasets of this room say so themselves (``deterministic``; it does not hold for a subclass with a ``__getitem__`` of its
    own, unless that says so again); torchvision's are, unless they carry transforms; so are parts of such.
    """
    if type(dataset) is TorchSubset:
        return is_deterministic(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(is_deterministic(one) for one in dataset.datasets)
    if type(dataset).__module__.startswith("torchvision.datasets."):
        return all(getattr(dataset, name, None) is None for name in ("transform", "target_transform", "transforms"))
    for kind in type(dataset).__mro__:
        if "deterministic" in vars(kind):
            return bool(dataset.deterministic)
        if "__getitem__" in vars(kind):
            return False
    return False


def reads(dataset: Any) -> bool:
    """Whether a dataset's ``read`` gives its samples; a subclass with a ``__getitem__`` of its own gives others.

    A dataset made of others says so itself (``reads``).
    """
    for kind in type(dataset).__mro__:
        if "reads" in vars(kind):
            return bool(dataset.reads)
        if "read" in vars(kind) or "__getitem__" in vars(kind):
            return "read" in vars(kind)
    return False
