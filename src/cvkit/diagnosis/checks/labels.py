"""All labels, without reading an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import DataLoader, WeightedRandomSampler

from cvkit.diagnosis.checks.pairs import classes_of
from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.samples import confirmed, drawn, labels_of, labels_of_side, sampler_of
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check
from cvkit.numbering import known_classes, whole_of

Array = npt.NDArray[Any]

MANY = 16
"""Of fewer samples nothing is said."""


@check("CV101", "error", "Train and val number their classes differently", needs=["both_datasets"])
def numbered_differently(probe: Probe) -> Iterator[Seen]:
    """The same number means another class."""
    if probe.val is None:
        return
    train, val = (getattr(side.loader, "classes", None) for side in probe.sides)
    if train is None or val is None:
        train, val = (_named(side) for side in probe.sides)
        if train is None or val is None or probe.own_step or all(a == b for a, b in zip(train, val, strict=False)):
            return
    if list(train) == list(val):
        return
    alike = [str(one).strip().lower() for one in train] == [str(one).strip().lower() for one in val]
    ours = isinstance(getattr(probe.val.loader, "classes", None), list)
    yield Seen(
        "train and val number their classes differently",
        got=f"train: {some(map(str, train))}; val: {some(map(str, val))}",
        expected="the same classes in the same order",
        fix="build the validation set with classes=train.classes"
        if ours and not alike
        else "spell the classes alike in train and val"
        if alike
        else "give both sides the same class folders, also empty ones (allow_empty=True in ImageFolder); or take "
        "cvkit.data.FolderDataset(root, classes=train.classes) for the validation set",
    )


def _named(side: Side) -> list[str] | None:
    """Returns the class names behind a loader, where nothing numbers them anew."""
    whole = whole_of(side.dataset)
    if whole is None or getattr(whole, "target_transform", None) is not None:
        return None
    return known_classes(side.dataset)


@check("CV102", "warning", "Samples in the order of their classes", needs=["labels"])
def class_by_class(probe: Probe) -> Iterator[Seen]:
    """A batch then shows one class, and the model forgets the others."""
    loader = probe.train.loader
    size = (
        len(loader[0][1])
        if isinstance(loader, list | tuple) and _is_pair(loader)
        else getattr(loader, "batch_size", None)
    )
    if not _supervised(probe) or drawn(loader).kind != "sequential" or not size:
        return
    labels = labels_of_side(probe.train)
    if labels is None or labels.dtype.kind not in "iuU" or len(labels) <= size or not _come_together(labels, size):
        return
    if isinstance(loader, list | tuple) and len(loader) < 4:
        return
    yield Seen(
        "the training samples come class by class: the dataset is in the order of its classes, and the loader does not "
        "shuffle",
        fix="shuffle the samples before they are put into batches, or pass a DataLoader with shuffle=True"
        if isinstance(loader, list | tuple)
        else "pass shuffle=True to the loader",
    )


def _is_pair(loader: Any) -> bool:
    return (
        bool(loader)
        and isinstance(loader[0], tuple | list)
        and len(loader[0]) == 2
        and hasattr(loader[0][1], "__len__")
    )


def _come_together(labels: Array, size: int) -> bool:
    """Whether the labels are sorted, or most batches show one class though chance would mix them."""
    if bool((labels[:-1] <= labels[1:]).all()):
        return bool(labels[0] != labels[-1])
    if size < 2:
        return False
    whole = len(labels) // size
    batches = labels[: whole * size].reshape(whole, size)
    alone = float((batches == batches[:, :1]).all(1).mean())
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return whole >= 4 and alone >= 0.5 and float((shares**size).sum()) < 0.05


def _numbers(side: Side) -> Array | None:
    """Returns the class numbers of all samples of a side, where they are numbers."""
    labels = labels_of_side(side)
    return labels if labels is not None and labels.dtype.kind in "iu" and len(labels) else None


def _place(side: Side, number: int) -> int:
    """Returns where in the dataset the first sample of a class is, -1 where that is not known."""
    whole = labels_of(side.dataset)
    return int(np.flatnonzero(whole == number)[0]) if whole is not None else -1


def _is_told(side: Side, number: int) -> bool:
    """Whether a sample of a class has that number when it is read."""
    if isinstance(side.loader, list | tuple):
        return True
    place = _place(side, number)
    return place >= 0 and confirmed(side.dataset, place, number)


def _classes(probe: Probe) -> int:
    """Returns the number of outputs of a classifier by cross entropy, 0 where it is none."""
    outputs = probe.train.trace.outputs
    usual = not probe.own_step and probe.loss.spec.task == "classification"
    return outputs.shape[1] if usual and isinstance(outputs, Tensor) and outputs.ndim == 2 else 0


@check("CV103", "error", "A class index beyond the outputs, further on in the data", needs=["outputs"], each=True)
def beyond_anywhere(probe: Probe, side: Side) -> Iterator[Seen]:
    """The first batch holds none of it; the epoch fails in the middle."""
    classes, labels, first = _classes(probe), _numbers(side), side.targets
    if not classes or labels is None or not isinstance(first, Tensor) or first.is_floating_point():
        return
    labels = labels[labels != probe.loss.ignore_index]
    shown = first[first != probe.loss.ignore_index]
    if not len(labels) or (shown.numel() and (int(shown.min()) < 0 or int(shown.max()) >= classes)):
        return  # the first batch shows it
    low, high = int(labels.min()), int(labels.max())
    wrong = low if low < 0 else high
    if (low >= 0 and high < classes) or not _is_told(side, wrong):
        return
    count = int(((labels < 0) | (labels >= classes)).sum())
    if low < 0:
        fix = "count the classes from 0; str.find() gives -1 for an unknown name"
    elif low == 1 and high == classes:
        fix = f"the classes are counted from 1: subtract 1 from the targets; or end the model in {high + 1} outputs"
    else:
        fix = f"create the model with num_classes={high + 1}"
    yield Seen(
        f"{count} targets of {side.name}, none of them in the first batch, are no class of the model's {classes} outputs",
        got=f"class indices from {low} to {high} in {len(labels)} samples",
        expected=f"indices from 0 to {classes - 1}",
        fix=fix,
        where=f"sample {place} of the dataset" if (place := _place(side, wrong)) >= 0 else None,
    )


@check("CV104", "warning", "One class only", needs=["labels"])
def one_class(probe: Probe) -> Iterator[Seen]:
    """The model learns to give one answer."""
    labels = labels_of_side(probe.train)
    if labels is None or labels.dtype.kind not in "iufU" or len(labels) < MANY or not _supervised(probe):
        return
    value = labels[0].item()
    if value == probe.loss.ignore_index:
        return
    if not bool((labels == labels[0]).all()) or (isinstance(value, int) and not _is_told(probe.train, value)):
        return
    yield Seen(
        f"all {len(labels)} training samples have one label",
        got=f"the label {value!r} for each of them",
        expected="samples of at least two classes",
        fix="look at how the labels are made, or how the dataset was split: shuffle before you take a part of it",
    )


def _supervised(probe: Probe) -> bool:
    return probe.loss.classification and not probe.own_step


@check("CV105", "warning", "A class that only one side has", needs=["both_datasets"])
def one_sided(probe: Probe) -> Iterator[Seen]:
    """A dataset in the order of its classes that was cut in two, or a folder that is missing."""
    if probe.val is None or not _supervised(probe):
        return
    train, val = _numbers(probe.train), _numbers(probe.val)
    if train is None or val is None or min(int(train.min()), int(val.min())) < 0 or len(val) < MANY:
        return
    size = max(int(train.max()), int(val.max())) + 1
    if size > 10**6:
        return
    ours, theirs = (np.bincount(one.astype(np.int64), minlength=size) for one in (train, val))
    for name, here, there in (("train", ours, theirs), ("val", theirs, ours)):
        share = there / there.sum()
        missing = np.flatnonzero((here == 0) & (here.sum() * np.log1p(-np.minimum(share, 0.999999)) < np.log(1e-4)))
        if len(missing):
            other = "val" if name == "train" else "train"
            yield Seen(
                f"{name} has no sample of class {some(str(one) for one in missing)}, of which {other} has "
                f"{int(there[missing].sum())}",
                got=f"{int((ours > 0).sum())} classes in train's {len(train)} samples, "
                f"{int((theirs > 0).sum())} in val's {len(val)}",
                expected="every class on both sides",
                fix="split each class by the same share: cvkit.data.split(dataset, 0.2), or shuffle the indices before cutting",
            )
            return


@check("CV106", "warning", "Many more outputs than classes", needs=["loss"])
def head_of_other_data(probe: Probe) -> Iterator[Seen]:
    """A head of 1000 outputs on data of few classes."""
    classes, labels = _classes(probe), _numbers(probe.train)
    if classes < 100 or labels is None or classes_of(probe.train):
        return
    if not isinstance(probe.train.loader, list | tuple):
        whole = labels_of(whole_of(probe.train.dataset))
        labels = whole if whole is not None and whole.dtype.kind in "iu" else labels
    high = int(labels.max())
    if (
        len(labels) < MANY
        or high < 1
        or classes < 10 * (high + 1)
        or not _is_told(probe.train, int(probe.train.targets[0]))
    ):
        return
    yield Seen(
        f"the model has {classes} outputs, and the labels go up to {high}",
        got=f"{len(labels)} samples with labels from {int(labels.min())} to {high}",
        expected=f"{high + 1} outputs",
        fix=f"build the model with num_classes={high + 1}, or replace its last layer",
    )


@check("CV107", "error", "A sampler for other data", needs=["labels"], each=True)
def sampler_of_other_data(probe: Probe, side: Side) -> Iterator[Seen]:
    """Weights for each class, or for the whole of which this is a part."""
    loader = side.loader
    if not isinstance(loader, DataLoader) or not hasattr(loader.dataset, "__len__"):
        return
    sampler, count = sampler_of(loader), len(loader.dataset)
    if type(sampler) is WeightedRandomSampler and len(sampler.weights) != count:
        given = len(sampler.weights)
        yield Seen(
            f"the sampler of {side.name} has weights for {given} samples, and the dataset has {count}",
            got=f"WeightedRandomSampler of {given} weights",
            expected=f"{count} weights, one a sample",
            fix="give each sample the weight of its class: weights = class_weights[targets]"
            if given < count
            else "compute the weights from the labels of this very part: targets[subset.indices]",
        )
    indices = drawn(loader).indices
    if indices is not None and len(indices) and not -count <= indices.min() <= indices.max() < count:
        yield Seen(
            f"the sampler of {side.name} draws samples that the dataset does not have",
            got=f"indices up to {int(indices.max())}",
            expected=f"indices from 0 to {count - 1}",
            fix="give the sampler the places in this dataset: range(len(dataset))",
        )
