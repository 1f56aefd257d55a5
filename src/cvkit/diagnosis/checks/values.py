"""What the loss of the first batch is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.shapes import shape, some
from cvkit.diagnosis.table import Seen, check


def _where(probe: Probe) -> str:
    return "your step" if probe.own_step else f"the loss {probe.loss.name}"


@check("CV401", "error", "The loss is no single number", needs=["loss"], each=True)
def no_number(probe: Probe, side: Side) -> Iterator[Seen]:
    """A loss that returns a value for each sample."""
    loss = side.trace.loss
    if isinstance(loss, Tensor) and loss.ndim == 0:
        return
    yield Seen(
        f"{_where(probe)} does not give one number",
        got=shape(loss),
        expected="a scalar tensor",
        fix="average it: loss.mean()",
    )


@check("CV402", "error", "A loss without a graph", needs=["loss"])
def no_graph(probe: Probe) -> Iterator[Seen]:
    """Something cuts the way from the parameters to the loss."""
    loss = probe.train.trace.loss
    if not isinstance(loss, Tensor) or loss.ndim != 0 or loss.requires_grad:
        return
    yield Seen(
        f"{_where(probe)} gives a number that no parameter has a part in",
        got="a loss without a graph",
        expected="a loss computed from the model's outputs",
        fix="leave out .detach(), .item() and torch.no_grad() on the way from the outputs to the loss",
    )


@check("CV403", "error", "Metrics without outputs", needs=["loss"])
def no_outputs(probe: Probe) -> Iterator[Seen]:
    """A custom step that returns only the loss."""
    if not probe.settings.metrics or probe.train.trace.outputs is not None:
        return
    yield Seen(
        f"the metrics {', '.join(probe.settings.metrics)} have nothing to look at",
        got="a step that returns only the loss",
        expected="(loss, outputs, targets)",
        fix="return loss, outputs, targets from the step, or leave metrics out",
    )


@check("CV404", "error", "The loss is not finite", needs=["loss"], each=True)
def not_finite(probe: Probe, side: Side) -> Iterator[Seen]:
    """NaN or infinity on the first batch."""
    loss = side.trace.loss
    if not isinstance(loss, Tensor) or loss.ndim != 0 or bool(torch.isfinite(loss)) or side.trace.weight == 0:
        return
    yield Seen(
        f"the loss of the first batch of {side.name} is {float(loss.detach())}",
        got=f"a batch {shape(side.batch)}{_not_finite(side)}",
        expected="a finite number",
        fix="look at these samples in the dataset: a log or a division of 0, a missing value"
        if _not_finite(side)
        else "look for a log of zero in the loss, or take precision='fp32'",
    )


def _not_finite(side: Side) -> str:
    """Returns which tensor of a batch holds NaN or infinity, in how many values and samples."""
    for name, tensor in (("inputs", side.inputs), ("targets", side.targets)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.ndim:
            continue
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            samples = bad.flatten(1).any(1).nonzero() if tensor.ndim > 1 else bad.nonzero()
            first = ", ".join(str(int(one)) for one in samples.flatten()[:5])
            return (
                f"; its {name} hold {int(bad.sum())} values that are NaN or infinite, in {len(samples)} of {len(tensor)} "
                f"samples: {first}"
            )
    return ""


@check("CV405", "warning", "No target counts", needs=["loss"], each=True)
def none_counts(probe: Probe, side: Side) -> Iterator[Seen]:
    """All targets are ignored: the loss is 0 / 0, and the mean leaves the batch out."""
    if side.trace.weight != 0:
        return
    yield Seen(
        f"no target of the first batch of {side.name} counts: all are ignore_index={probe.loss.ignore_index}, or of "
        "classes of weight 0; its loss is NaN, and such a batch counts nothing in the mean and trains nothing"
    )


@check("CV406", "warning", "A gradient that is not finite", needs=["gradients"])
def gradient_not_finite(probe: Probe) -> Iterator[Seen]:
    """The loss is a number and its gradient is none: a square root at 0, a norm of zeros, a division."""
    found = [
        name
        for name, one in probe.train.trace.gradients.items()
        if one is not None and not one.is_sparse and not bool(torch.isfinite(one).all())
    ]
    loss = probe.train.trace.loss
    if not found or not bool(torch.isfinite(loss)) or probe.train.trace.weight == 0:
        return
    yield Seen(
        f"the gradient of {some(found)} is not finite, though the loss is",
        got=f"loss {float(loss.detach()):.4g}, and NaN or infinity in {len(found)} gradients",
        expected="finite gradients",
        fix="add a small number below roots, norms and divisions: torch.sqrt(x + 1e-8); where() hides values, not gradients",
    )
