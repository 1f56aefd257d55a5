"""Whether a validation sample is the same each time it is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.table import Seen, check
from cvkit.numbering import whole_of

READS, SECONDS = 10, 0.1
"""A sample is read this often, and no longer than this: a random flip leaves it as it is half of the time."""


@check("CV217", "warning", "A validation sample that differs each time", needs=["both_datasets", "batch"])
def augmented_validation(probe: Probe) -> Iterator[Seen]:
    """The training transform on the validation set."""
    side = probe.val
    if side is None or probe.own_step or not probe.loss.classification:
        return
    transform = getattr(side.loader, "transform", None)
    if getattr(transform, "sample_random", None) is True or _name(transform).endswith("_train"):
        found = f"the loader's transform draws random numbers: {_name(transform)}"
    elif _differs(side.dataset):
        found = "sample 0 of val, read several times, gave different images"
    else:
        return
    yield Seen(
        "the validation samples are augmented: each time they are read they differ",
        got=found,
        expected="the same image each time",
        fix="give val the transform of evaluation (resize, crop from the centre, normalise); after random_split, split the "
        "indices instead and build two datasets: Subset(augmented, indices) and Subset(plain, others)",
    )


def _name(transform: Any) -> str:
    return str(getattr(transform, "name", None) or type(transform).__name__)


def _differs(dataset: Any) -> bool:
    """Whether a sample of a dataset differs from reading to reading."""
    if getattr(whole_of(dataset), "deterministic", False) is True or not hasattr(dataset, "__getitem__"):
        return False
    if isinstance(dataset, IterableDataset | TensorDataset):
        return False
    try:
        if not len(dataset):
            return False
        began = time.perf_counter()
        first = _image(dataset[0])
        for _ in range(READS):
            again = _image(dataset[0])
            if first is None or again is None:
                return False
            if first.shape != again.shape or not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
                return True
            if time.perf_counter() - began > SECONDS:
                return False
    except Exception:  # what cannot be read says so elsewhere
        return False
    return False


def _image(item: Any) -> np.ndarray[Any, Any] | None:
    """Returns the image of a sample, copied."""
    image = item[0] if isinstance(item, tuple | list) and len(item) == 2 else None
    if isinstance(image, Image.Image):
        return np.array(image)
    if isinstance(image, Tensor):
        return image.detach().to("cpu", torch.float32, copy=True).numpy()
    return np.array(image) if isinstance(image, np.ndarray) else None
