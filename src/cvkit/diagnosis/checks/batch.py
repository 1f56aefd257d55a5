"""Whether a batch is one that the usual step can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.shapes import shape
from cvkit.diagnosis.table import Seen, check
from cvkit.numbering import classes_keyword, known_classes, text_among


@check("CV201", "error", "A batch is no pair of inputs and targets", needs=["batch"], each=True)
def no_pair(probe: Probe, side: Side) -> Iterator[Seen]:
    """A batch that the usual step cannot take apart."""
    batch = side.batch
    if probe.own_step or side.inputs is not None:
        return
    yield Seen(
        f"a batch of {side.name} is not (inputs, targets)",
        got=type(batch).__name__
        + (f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else "")
        + (f", {shape(batch)}" if isinstance(batch, Tensor) else ""),
        expected="a pair of tensors",
        fix=(
            "wrap inputs and targets: DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True); or "
            if isinstance(batch, Tensor)
            else ""
        )
        + "pass step=…: a function (model, batch, state) -> loss, or (loss, outputs, targets)",
    )


@check("CV202", "error", "A dataset in place of a loader", needs=["batch"], each=True)
def single_samples(probe: Probe, side: Side) -> Iterator[Seen]:
    """What is iterated gives samples, not batches."""
    if probe.own_step or not _is_sample(side):
        return
    yield Seen(
        f"{side.name} gives single samples, not batches",
        got=f"{type(side.loader).__name__}, whose first item is {shape(side.batch)}",
        expected="a loader, which makes batches of a dataset",
        fix="wrap the dataset: cvkit.data.Loader(dataset, batch_size=64, shuffle=True, transform=…) or torch's DataLoader",
    )


def _is_sample(side: Side) -> bool:
    inputs, targets, loader = side.inputs, side.targets, side.loader
    if isinstance(inputs, Image.Image) or isinstance(targets, int | float | str | np.generic):
        return True
    holds_samples = hasattr(loader, "__getitem__") and not isinstance(loader, list | tuple)
    return holds_samples and isinstance(targets, Tensor) and targets.ndim == 0


@check("CV203", "error", "Labels as text", needs=["batch"], each=True)
def text_labels(probe: Probe, side: Side) -> Iterator[Seen]:
    """Targets that are names of classes."""
    labels = text_among(side.targets)
    if probe.own_step or _is_sample(side) or not labels:
        return
    classes = classes_keyword(labels, known_classes(side.dataset))
    place = "in the dataset, " if isinstance(side.loader, DataLoader) else ""
    yield Seen(
        f"the targets of {side.name} are labels as text",
        got=", ".join(map(repr, labels[:5])) + (", …" if labels[5:] else ""),
        expected="the number of each sample's class",
        fix=f"number them: {place}with {classes} for all classes, return classes.index(label) instead of the label; or take "
        f"cvkit.data.Loader(dataset, batch_size=…, {classes}), which numbers them",
    )


@check("CV204", "error", "Batches as NumPy arrays", needs=["batch"], each=True)
def arrays(probe: Probe, side: Side) -> Iterator[Seen]:
    """A batch of arrays instead of tensors."""
    if probe.own_step or not any(isinstance(one, np.ndarray) for one in (side.inputs, side.targets)):
        return
    yield Seen(
        f"the batches of {side.name} are NumPy arrays",
        got=shape(side.batch),
        expected="tensors",
        fix="convert them: torch.from_numpy(array); or cvkit.data.Loader(cvkit.data.ArrayDataset(images, targets), …)",
    )


@check("CV205", "error", "Integer images", needs=["batch"], each=True)
def integer_inputs(probe: Probe, side: Side) -> Iterator[Seen]:
    """Bytes as they are on disk."""
    inputs: Any = side.inputs
    if probe.own_step or not isinstance(inputs, Tensor) or inputs.dtype != torch.uint8:
        return
    yield Seen(
        f"the inputs of {side.name} are integers, as images are on disk",
        got=shape(inputs),
        expected="floating-point inputs, normalised",
        fix="give the loader a transform preset, or convert: images.float() / 255",
    )
