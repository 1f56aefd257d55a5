"""All labels, without reading an image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check


@check("CV101", "error", "Train and val number their classes differently", needs=["both_datasets"])
def numbered_differently(probe: Probe) -> Iterator[Seen]:
    """The same number means another class."""
    train, val = (getattr(side.loader, "classes", None) for side in (probe.train, probe.val or probe.train))
    if train is None or val is None or list(train) == list(val):
        return
    yield Seen(
        "train and val number their classes differently",
        got=f"train: {some(map(str, train))}; val: {some(map(str, val))}",
        expected="the same classes in the same order",
        fix="build the validation set with classes=train.classes",
    )


@check("CV102", "warning", "Samples in the order of their classes", needs=["labels"])
def class_by_class(probe: Probe) -> Iterator[Seen]:
    """A batch then shows one class, and the model forgets the others."""
    loader = probe.train.loader
    shuffled = (
        not isinstance(loader.sampler, SequentialSampler)
        if isinstance(loader, DataLoader)
        else getattr(loader, "shuffle", None)
    )
    targets = getattr(probe.train.dataset, "targets", None)
    size = getattr(loader, "batch_size", None)
    if not probe.loss.classification or probe.own_step:
        return
    if shuffled is not False or getattr(loader, "weights", None) is not None or targets is None or not size:
        return
    targets = targets.tolist() if isinstance(targets, Tensor | np.ndarray) else list(targets)
    if len(targets) <= size or not any(all(isinstance(one, kind) for one in targets) for kind in (int, str)):
        return
    if targets != sorted(targets) or targets[0] == targets[-1]:
        return
    yield Seen(
        "the training samples come class by class: the dataset is in the order of its classes, and the loader does not "
        "shuffle",
        fix="pass shuffle=True to the loader",
    )
