"""Whether outputs and targets fit each other, before the loss sees them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.shapes import shape
from cvkit.diagnosis.table import Seen, check
from cvkit.losses import ALIGNED, align
from cvkit.numbering import known_classes, whole_of

BROADCAST = (
    *(*ALIGNED, "MSELoss", "L1Loss", "SmoothL1Loss", "KLDivLoss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div"),
)
"""The losses that compare each output with a target of its own, and broadcast where the shapes differ."""


def _tensors(probe: Probe, side: Side) -> tuple[Tensor, Tensor] | None:
    """Returns outputs and targets where the usual step has compared two tensors."""
    outputs, targets = side.trace.outputs, side.trace.targets
    usual = not probe.own_step and isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    return (outputs, targets) if usual else None


def classes_of(side: Side) -> int:
    """Returns how many classes the data name, 0 where they name none."""
    named = getattr(side.loader, "classes", None)
    if named is None and side.dataset is not None and getattr(whole_of(side.dataset), "target_transform", None) is None:
        named = known_classes(side.dataset)
    return len(named) if isinstance(named, list | tuple) else 0


@check("CV301", "error", "Outputs or targets that are no tensors", needs=["outputs"], each=True)
def no_tensors(probe: Probe, side: Side) -> Iterator[Seen]:
    """A forward without a return, or one that returns a pair or a dict."""
    outputs, targets = side.trace.outputs, side.trace.targets
    if probe.own_step or _tensors(probe, side) is not None:
        return
    yield Seen(
        f"the model's outputs or the targets of {side.name} are no tensors",
        got=f"outputs: {shape(outputs)}; targets: {shape(targets)}",
        expected="one tensor each",
        fix=_pick(outputs),
    )


def _pick(outputs: object) -> str:
    """Returns how to get at a tensor."""
    if outputs is None:
        return "end the model's forward with return …"
    if isinstance(outputs, np.ndarray):
        return "return the tensor itself: leave out .detach().cpu().numpy() at the end of forward"
    how = "pass step=…: a function (model, batch, state) -> (loss, outputs, targets) that picks out what the loss needs"
    if isinstance(outputs, dict) and (keys := [str(key) for key, one in outputs.items() if isinstance(one, Tensor)]):
        return f"{how}, here model(batch[0])[{keys[0]!r}]"
    if isinstance(outputs, tuple | list) and any(isinstance(one, Tensor) for one in outputs):
        return f"{how}, here model(batch[0])[0]; a torchvision model with an auxiliary head takes aux_logits=False"
    return how


@check("CV302", "error", "Outputs and targets are broadcast against each other", needs=["outputs"], each=True)
def broadcast(probe: Probe, side: Side) -> Iterator[Seen]:
    """(N, 1) with (N,) makes (N, N) differences."""
    pair = _tensors(probe, side)
    if pair is None or probe.loss.spec.task == "classification":
        return
    outputs, targets = pair
    aligned = align(outputs, targets) if probe.loss.name in ALIGNED else pair
    if probe.loss.name not in BROADCAST or aligned[0].shape == aligned[1].shape:
        return
    indices = outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
    yield Seen(
        f"outputs and targets of {side.name} would be broadcast against each other: the loss would be silently wrong",
        got=f"outputs {shape(outputs)}, targets {shape(targets)}",
        expected="the same shape",
        fix='take loss="cross_entropy" for class indices'
        if indices and outputs.shape[1] > 1
        else 'reshape one of them; loss="mse", "l1", "smooth_l1" and "bce" by name align (N, 1) with (N,) themselves',
    )


@check("CV303", "error", "Targets of another kind than the loss takes", needs=["outputs"], each=True)
def kind_of_targets(probe: Probe, side: Side) -> Iterator[Seen]:
    """Floats or small integers where class indices are expected."""
    pair = _tensors(probe, side)
    if pair is None or probe.loss.spec.task != "classification":
        return
    outputs, targets = pair
    if targets.is_floating_point() and targets.shape != outputs.shape:
        yield Seen(
            f"the targets of {side.name} do not fit a classification loss",
            got=f"targets {shape(targets)}, outputs {shape(outputs)}",
            expected="class indices (int64) or probabilities of the outputs' shape",
            fix='convert the targets to int64, or take loss="mse" for a regression',
        )
    elif not targets.is_floating_point() and _fit(outputs, targets) and targets.dtype not in (torch.int64, torch.uint8):
        yield Seen(
            f"the targets of {side.name} do not fit a classification loss",
            got=f"targets {shape(targets)}",
            expected="class indices as int64",
            fix="convert them: targets.long()",
        )


def _wanted(outputs: Tensor) -> tuple[int, ...]:
    return (outputs.shape[0], *outputs.shape[2:]) if outputs.ndim else ()


def _fit(outputs: Tensor, targets: Tensor) -> bool:
    return outputs.ndim >= 2 and tuple(targets.shape) == _wanted(outputs)


@check("CV304", "error", "Outputs and targets of shapes that do not fit", needs=["outputs"], each=True)
def shapes_fit(probe: Probe, side: Side) -> Iterator[Seen]:
    """Logits (N, C, …) need class indices (N, …)."""
    pair = _tensors(probe, side)
    if pair is None or probe.loss.spec.task != "classification":
        return
    outputs, targets = pair
    if targets.is_floating_point() or _fit(outputs, targets):
        return
    yield Seen(
        f"outputs and targets of {side.name} do not fit each other",
        got=f"outputs {shape(outputs)}, targets {shape(targets)}",
        expected=f"logits (N, C, …) and class indices {_wanted(outputs) if outputs.ndim > 1 else '(N,)'}",
        fix=_reshape(outputs, targets),
    )


def _reshape(outputs: Tensor, targets: Tensor) -> str:
    if targets.shape == outputs.shape:
        return "the targets look one-hot: pass targets.argmax(1), or targets.float() for probabilities"
    if targets.ndim == 2 and targets.shape[1] == 1:
        return "end the model in one output a class, and squeeze the targets' last dimension"
    if targets.ndim == 3 and outputs.ndim == 2:
        return 'the targets are masks: take a model for segmentation, e.g. create("unet", …)'
    if targets.ndim == 1 and outputs.ndim > 2:
        return "end the model in one output a class: pool or flatten before its last layer"
    return "end the model in one output a class"


@check("CV305", "error", "A class index beyond the outputs", needs=["outputs"], each=True)
def beyond_the_outputs(probe: Probe, side: Side) -> Iterator[Seen]:
    """Indices of the first batch, or more classes in the data than outputs."""
    pair = _tensors(probe, side)
    if pair is None or probe.loss.spec.task != "classification" or pair[1].is_floating_point() or not _fit(*pair):
        return
    classes, indices = pair[0].shape[1], pair[1]
    targets = indices[indices != probe.loss.ignore_index]
    known = classes_of(probe.train)
    low, high = (int(targets.min()), int(targets.max())) if targets.numel() else (0, 0)
    if low >= 0 and high < classes and known <= classes:
        return
    needed = max(high + 1, known)
    yield Seen(
        f"the model has {classes} outputs and the targets of {side.name} need {needed}",
        got=f"class indices from {low} to {high}" + (f", {known} classes in the data" if known else ""),
        expected=f"indices from 0 to {classes - 1}",
        fix=_renumber(targets, classes, needed, known),
    )


def _renumber(targets: Tensor, classes: int, needed: int, known: int) -> str:
    """Returns what to do about indices that are no classes."""
    low, high = (int(targets.min()), int(targets.max())) if targets.numel() else (0, 0)
    masks = targets.ndim > 1 or targets.numel() > 4096
    values = torch.unique(targets).tolist()
    if high == 255 and values == [0, 255]:
        return "map 255 to 1: masks // 255, or mask_values=(0, 255) in cvkit.data.ParallelDataset"
    if high == 255 and classes < 255 and max((one for one in values if one != 255), default=0) < classes:
        return "255 marks pixels without a label: loss=torch.nn.CrossEntropyLoss(ignore_index=255)"
    if low == -1 and high < classes:
        marks = "pixels" if masks else "samples"
        return (
            f"count the classes from 0; or, if -1 marks {marks} without a label, "
            "loss=torch.nn.CrossEntropyLoss(ignore_index=-1); str.find() gives -1 for an unknown name"
        )
    if low < 0:
        return "count the classes from 0"
    fix = f"create the model with num_classes={needed}"
    if low > 0 and high == classes and not known:
        fix += "; or, if the classes are counted from 1, subtract 1 from the targets"
    return fix


@check("CV306", "warning", "More outputs than classes", needs=["loss"])
def surplus(probe: Probe) -> Iterator[Seen]:
    """A head that was made for other data."""
    outputs, known = probe.train.trace.outputs, classes_of(probe.train)
    if (
        probe.own_step
        or probe.loss.name not in ("cross_entropy", "CrossEntropyLoss")
        or not isinstance(outputs, Tensor)
    ):
        return
    if not known or outputs.ndim < 2 or outputs.shape[1] <= known:
        return
    yield Seen(
        f"the model has {outputs.shape[1]} outputs and the data {known} classes",
        fix=f"build the model with num_classes={known}",
    )
