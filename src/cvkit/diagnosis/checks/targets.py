"""The loss against the targets: ranges, chance, and what switches it off."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.diagnosis.checks.between import comparisons
from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import number
from cvkit.diagnosis.table import Seen, check


@check("CV411", "warning", "Binary targets that are not 0 and 1", needs=["loss"])
def binary_range(probe: Probe) -> Iterator[Seen]:
    """Binary cross entropy with 255, or with -1 and 1, has no lowest value."""
    for kind, node, _ in comparisons(probe):
        targets = _saved_targets(node) if kind == "bce" else None
        if not isinstance(targets, Tensor) or not targets.numel():
            continue
        low, high = (float(one) for one in targets.detach().float().aminmax())
        if low >= -1e-6 and high <= 1 + 1e-6:
            continue
        fix = "pass targets from 0 to 1"
        if low >= 0 and high == 255:
            fix = "divide the targets by 255 (mask_values=(0, 255) in cvkit.data.ParallelDataset maps them)"
        elif low == -1 and high == 1:
            fix = "map -1 and 1 to 0 and 1: (targets + 1) / 2"
        yield Seen(
            "binary cross entropy got targets outside of 0 to 1",
            got=f"targets from {number(low)} to {number(high)}",
            expected="0 and 1, or probabilities between",
            fix=fix,
        )
        return


def _saved_targets(node: Any) -> Any:
    """Returns the targets that an operation keeps for its backward pass; a step that ran one itself has freed them."""
    try:
        return getattr(node, "_saved_target", None)
    except RuntimeError:
        return None


@check("CV412", "warning", "The loss begins far above chance", needs=["loss"])
def far_above_chance(probe: Probe) -> Iterator[Seen]:
    """Logits that are far too large, most often of inputs that are not normalised."""
    trace = probe.train.trace
    outputs, loss = trace.outputs, trace.loss
    if (
        probe.loss.name not in ("cross_entropy", "CrossEntropyLoss")
        or not isinstance(outputs, Tensor)
        or outputs.ndim < 2
    ):
        return
    if outputs.shape[1] < 2 or probe.loss.reduction != "mean" or not isinstance(loss, Tensor):
        return
    chance = math.log(outputs.shape[1])
    value = float(loss.detach())
    if not math.isfinite(value) or value <= 8 * chance + 10:
        return
    inputs = probe.train.inputs
    seen = ""
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        low, high = inputs.aminmax()
        seen = f"; inputs from {number(float(low))} to {number(float(high))}"
    yield Seen(
        f"the loss begins at {number(value)}, where guessing gives {number(chance)}",
        got=f"outputs up to {number(float(outputs.detach().abs().max()))}{seen}",
        expected=f"a loss near ln({outputs.shape[1]}) = {number(chance)} before training",
        fix="normalise the inputs (divide bytes by 255, subtract mean, divide by std), or begin with smaller weights",
    )


@check("CV413", "warning", "The sign of the loss is wrong", needs=["loss"])
def wrong_sign(probe: Probe) -> Iterator[Seen]:
    """Minimising minus a loss maximises it."""
    loss = probe.train.trace.loss
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not float(loss.detach()) < 0:
        return
    node = loss.grad_fn
    known = {id(one): kind for kind, one, _ in comparisons(probe)}
    for _ in range(8):
        if node is None:
            return
        if id(node) in known:
            yield Seen(
                "the loss is negative: it is minus a loss that cannot fall below 0",
                got=f"{number(float(loss.detach()))} on the first batch",
                expected="a loss that is lower the better the outputs are",
                fix="leave out the minus sign",
            )
            return
        below = [one for one, _ in node.next_functions if one is not None]
        if len(below) != 1:
            return
        node = below[0]


@check("CV414", "warning", "Class numbers as amounts", needs=["loss"])
def classes_regressed(probe: Probe) -> Iterator[Seen]:
    """Class 2 is not twice class 1: a regression on class numbers learns an order that is none."""
    targets, outputs = probe.train.targets, probe.train.trace.outputs
    if probe.own_step or probe.loss.spec.task != "regression" or not isinstance(targets, Tensor):
        return
    if targets.is_floating_point() or not isinstance(outputs, Tensor) or outputs.numel() != targets.numel():
        return
    counts = torch.unique(targets, return_counts=True)
    known = len(getattr(probe.train.loader, "classes", None) or ())
    kinds = len(counts[0])
    contiguous = kinds >= 3 and int(counts[0].min()) == 0 and int(counts[0].max()) == kinds - 1
    even = contiguous and kinds <= 20 and targets.numel() >= 3 * kinds and counts[1].max() <= 4 * counts[1].min()
    if known < 3 and not even:
        return
    yield Seen(
        "class numbers are regressed: a class is no amount",
        got=f"integer targets from {int(targets.min())} to {int(targets.max())}, one output, loss {probe.loss.name}",
        expected="one output for each class, and a classification loss",
        fix=f'end the model in {known or kinds} outputs, take loss="cross_entropy"; if they are amounts: targets.float()',
    )


@check("CV415", "warning", "A class weight of 0", needs=["loss"])
def weight_of_zero(probe: Probe) -> Iterator[Seen]:
    """A class whose weight is 0 is never learned."""
    weight = getattr(probe.loss.function, "weight", None)
    if not isinstance(probe.loss.function, nn.CrossEntropyLoss | nn.NLLLoss) or not isinstance(weight, Tensor):
        return
    zeros = [place for place, one in enumerate(weight.tolist()) if one == 0]
    background = zeros == [0] and len(set(weight.tolist()[1:])) == 1
    if not zeros or background:
        return
    yield Seen(
        f"the loss gives class {', '.join(map(str, zeros[:5]))} the weight 0: it is never learned",
        got=f"weight={[round(one, 4) for one in weight.tolist()[:10]]}",
        expected="weights above 0",
        fix="compute them with / instead of //: total / (classes * count)",
    )


@check("CV416", "warning", "Label smoothing that leaves nothing", needs=["settings"])
def smoothed_away(probe: Probe) -> Iterator[Seen]:
    """With label_smoothing=1 all targets are the same."""
    smoothing = getattr(probe.loss.function, "label_smoothing", 0.0)
    if isinstance(smoothing, float) and smoothing >= 0.9:
        yield Seen(
            f"label_smoothing={smoothing} leaves next to nothing of the labels",
            got=f"targets that are {round(100 * smoothing)} % the same for each class",
            expected="about 0.1",
            fix="label_smoothing=0.1",
        )


@check("CV417", "warning", "A real class is ignored", needs=["loss"])
def class_ignored(probe: Probe) -> Iterator[Seen]:
    """ignore_index names a class of the data."""
    targets, ignored = probe.train.trace.targets, probe.loss.ignore_index
    outputs = probe.train.trace.outputs
    if not isinstance(targets, Tensor) or not isinstance(outputs, Tensor) or targets.ndim != 1 or outputs.ndim != 2:
        return
    known = len(getattr(probe.train.loader, "classes", None) or ())
    if not 0 <= ignored < min(outputs.shape[1], known) or probe.loss.spec.task != "classification":
        return
    share = float((targets == ignored).float().mean())
    yield Seen(
        f"ignore_index={ignored} is the number of a class: it is never learned",
        got=f"{round(100 * share)} % of the first batch's targets are left out",
        expected="a number that no class has",
        fix="leave ignore_index out",
    )


@check("CV418", "warning", "A regression target that is not scaled", needs=["loss"])
def unscaled(probe: Probe) -> Iterator[Seen]:
    """Outputs begin near 0 and reach targets in the thousands only after many updates."""
    outputs, targets = probe.train.trace.outputs, probe.train.trace.targets
    if probe.loss.spec.task != "regression" or not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return
    if not outputs.is_floating_point() or not targets.numel():
        return
    far, near = float(targets.detach().float().abs().mean()), float(outputs.detach().float().abs().mean())
    if far > 1000 and near < far / 50:
        yield Seen(
            "the regression target is not scaled",
            got=f"targets of {number(far)} on average, outputs of {number(near)}",
            expected="targets of about 1",
            fix="train on (targets - mean) / std of the training targets, and undo it in predictions",
        )
