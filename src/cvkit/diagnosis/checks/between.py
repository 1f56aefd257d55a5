"""What lies between the last layer and the loss: found in the autograd graph, so also inside of ``forward`` and ``step``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import number
from cvkit.diagnosis.table import Seen, check

_PASSING = (
    *("View", "Reshape", "Squeeze", "Unsqueeze", "Permute", "Transpose", "T", "ToCopy", "Clone", "Alias", "Select"),
    *("Slice", "Expand", "UnsafeView", "ReshapeAlias", "SqueezeBackward1"),
)
"""Operations that leave values as they are."""

_ACTIVATIONS = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "logsigmoid",
    "Relu": "ReLU",
    "Tanh": "tanh",
}

_COMPARING = {
    "NllLoss": "nll",
    "NllLoss2D": "nll",
    "NllLossNd": "nll",
    "BinaryCrossEntropyWithLogits": "bce",
    "BinaryCrossEntropy": "plain_bce",
    "MseLoss": "values",
    "L1Loss": "values",
    "SmoothL1Loss": "values",
    "HuberLoss": "values",
}
"""What the end of a loss is, by the name of its operation."""


def _name(node: Any) -> str:
    return str(node.name()).rstrip("0123456789").removesuffix("Backward")


def _through(node: Any) -> Any:
    """Returns the first operation below that changes values."""
    while node is not None and _name(node) in _PASSING and node.next_functions:
        node = node.next_functions[0][0]
    return node


def _below(node: Any) -> Any:
    return _through(node.next_functions[0][0]) if node is not None and node.next_functions else None


def ends(loss: Tensor) -> Iterator[tuple[str, Any, Any]]:
    """Yields each comparison with targets that a loss is made of: its kind, itself, and the operation that it compares.

    Args:
        loss: A loss with its graph.
    """
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting and len(seen) < 300:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = _COMPARING.get(_name(node))
        below = node.next_functions[0][0] if node.next_functions else None
        if _name(node) == "Abs" and below is not None and _name(below) == "Sub":  # what l1_loss is made of
            yield "abs", below, _below(below)
            continue
        if kind is None:
            waiting += [one for one, _ in node.next_functions]
            continue
        yield kind, node, _below(node)


def _activation(node: Any) -> str | None:
    return _ACTIVATIONS.get(_name(node)) if node is not None else None


def comparisons(probe: Probe) -> list[tuple[str, Any, Any]]:
    """Returns what :func:`ends` finds in the loss of the first training batch."""
    loss = probe.train.trace.loss
    return list(ends(loss)) if isinstance(loss, Tensor) and loss.grad_fn is not None else []


def _dimension(node: Any) -> int | None:
    """Returns the dimension that a softmax runs over."""
    found = getattr(node, "_saved_dim", None)
    return found - 2**64 if isinstance(found, int) and found > 2**63 else found


@check("CV311", "warning", "An activation before cross entropy, which has its own", needs=["loss"])
def softmax_twice(probe: Probe) -> Iterator[Seen]:
    """Cross entropy takes logits; after a softmax its loss can hardly fall, and gradients are tiny."""
    for kind, _, node in comparisons(probe):
        above = _activation(node)
        if kind != "nll" or above != "log_softmax":
            continue
        before = _activation(_below(node))
        if before not in ("softmax", "sigmoid", "tanh"):
            continue
        name = "the outputs pass through a " + before + " before cross entropy, which takes logits"
        yield Seen(
            name,
            got=f"{before}, then the log-softmax of cross entropy{_range(probe)}",
            expected="logits: the last layer's values as they are",
            fix=f"remove the {before} in training; cvkit's predictions apply a softmax themselves",
        )
        return


def _range(probe: Probe) -> str:
    outputs = probe.train.trace.outputs
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or not outputs.numel():
        return ""
    low, high = outputs.detach().aminmax()
    return f"; outputs from {number(float(low))} to {number(float(high))}"


@check("CV312", "warning", "A ReLU on logits", needs=["loss"])
def relu_on_logits(probe: Probe) -> Iterator[Seen]:
    """Logits below 0 are cut off, and with them their gradient."""
    for kind, _, node in comparisons(probe):
        last = node if kind == "bce" else _below(node) if kind == "nll" and _activation(node) == "log_softmax" else None
        if _activation(last) == "ReLU":
            yield Seen(
                "a ReLU stands between the last layer and the loss, which takes logits",
                got=f"logits that cannot be below 0{_range(probe)}",
                expected="logits of either sign",
                fix="remove the ReLU after the last layer",
            )
            return


@check("CV313", "warning", "A sigmoid before a loss that has its own", needs=["loss"])
def sigmoid_twice(probe: Probe) -> Iterator[Seen]:
    """Binary cross entropy on logits applies a sigmoid itself."""
    for kind, _, node in comparisons(probe):
        before = _activation(node)
        if kind == "bce" and before in ("sigmoid", "softmax", "tanh", "log_softmax", "logsigmoid"):
            yield Seen(
                f"the outputs pass through a {before} before a binary cross entropy that takes logits",
                got=f"{before}, then the loss's own sigmoid{_range(probe)}",
                expected="logits: the last layer's values as they are",
                fix=f"remove the {before}, or take loss=nn.BCELoss() for probabilities",
            )
            return


@check("CV314", "warning", "Logits into a loss that takes log-probabilities", needs=["loss"])
def missing_log_softmax(probe: Probe) -> Iterator[Seen]:
    """nll_loss without log_softmax only pushes one output up, without end."""
    trace = probe.train.trace
    outputs = trace.outputs
    for kind, _, node in comparisons(probe):
        if kind != "nll" or _activation(node) == "log_softmax":
            continue
        if isinstance(outputs, Tensor) and outputs.ndim > 1 and _are_logs(outputs):
            continue  # made in another way, e.g. by log() of a softmax
        before = _activation(node)
        yield Seen(
            "nll takes log-probabilities, and gets none",
            got=f"{before or 'the last layer'}{_range(probe)}",
            expected="the result of log_softmax: values below 0 whose exponentials sum to 1",
            fix='take loss="cross_entropy", which applies log_softmax itself'
            + (f", and remove the {before}" if before else ""),
        )
        return


def _are_logs(outputs: Tensor) -> bool:
    sums = outputs.detach().float().exp().sum(1)
    return bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-2))


@check("CV315", "warning", "A softmax over the batch", needs=["loss"])
def softmax_over_the_batch(probe: Probe) -> Iterator[Seen]:
    """dim=0 compares the samples of a batch with each other instead of the classes."""
    for returned in probe.train.trace.returned[:1]:
        node = _through(returned.grad_fn) if isinstance(returned, Tensor) else None
        if _activation(node) not in ("softmax", "log_softmax") or returned.ndim != 2 or len(returned) < 2:
            continue
        if _dimension(node) in (0, -2):
            yield Seen(
                f"the model ends in a {_activation(node)} over the batch (dim=0)",
                got="outputs that sum to 1 over the samples of a batch",
                expected="outputs of one sample that do not depend on the others",
                fix='remove it and take loss="cross_entropy", or write dim=1',
            )


@check("CV316", "warning", "A range of outputs that the targets leave", needs=["loss"])
def cannot_reach(probe: Probe) -> Iterator[Seen]:
    """A sigmoid, tanh or ReLU at the end, and regression targets outside of its range."""
    targets = probe.train.trace.targets
    if not isinstance(targets, Tensor) or targets.is_complex() or not targets.numel():
        return
    low, high = (float(one) for one in targets.detach().float().aminmax())
    for kind, _, node in comparisons(probe):
        ends_in = _activation(node)
        reach = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "ReLU": (0.0, float("inf"))}.get(
            ends_in or ""
        )
        compared = kind == "values" or (kind == "abs" and probe.loss.spec.task == "regression")
        if not compared or reach is None or (low >= reach[0] - 1e-3 and high <= reach[1] + 1e-3):
            continue
        yield Seen(
            f"the outputs end in a {ends_in} and cannot reach the targets",
            got=f"targets from {number(low)} to {number(high)}",
            expected=f"targets from {number(reach[0])} to {number(reach[1])}",
            fix=f"remove the {ends_in} at the end, or scale the targets into its range",
        )
        return


@check("CV317", "warning", "The same activation twice", needs=["loss"])
def twice(probe: Probe) -> Iterator[Seen]:
    """A sigmoid of a sigmoid, or a softmax of a softmax: the loss applies its own."""
    loss = probe.train.trace.loss
    seen, waiting = set[Any](), [loss.grad_fn if isinstance(loss, Tensor) else None]
    while waiting and len(seen) < 300:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = _activation(node)
        if name in ("sigmoid", "softmax") and _activation(_below(node)) == name:
            yield Seen(
                f"a {name} is applied to the result of a {name}",
                got=f"{name}, and once more in the loss{_range(probe)}",
                expected="one of the two",
                fix=f"remove the {name} at the model's end",
            )
            return
        waiting += [one for one, _ in node.next_functions]


def _shape(node: Any) -> tuple[int, ...]:
    """Returns the shape of an operation's result; of no operation, and where torch does not tell, that of a number."""
    known = getattr(node, "_input_metadata", None) if node is not None else None
    return tuple(known[0].shape) if known else ()


@check("CV307", "warning", "A custom loss broadcasts outputs and targets", needs=["loss"])
def broadcast_inside(probe: Probe) -> Iterator[Seen]:
    """(N, 1) minus (N,) is (N, N): each output is compared with every target."""
    loss = probe.train.trace.loss
    # what lies inside of the model is its own affair
    seen: set[Any] = {one.grad_fn for one in probe.train.trace.returned if isinstance(one, Tensor)}
    waiting: list[tuple[Any, Any]] = [(None, loss.grad_fn if isinstance(loss, Tensor) else None)]
    while waiting and len(seen) < 100:
        above, node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        made = [one for one, _ in node.next_functions]
        whole, below = _shape(node), next((one for one in made if one is not None), None)
        square = len(whole) == 2 and whole[0] == whole[1] > 1
        one_sided = (_name(node) == "Expand" and above is not None and _name(above) in _COMPARING) or (
            _name(node) == "Sub" and sum(one is not None for one in made) == 1
        )
        if square and one_sided and _shape(below) in ((whole[0], 1), (whole[0],)) and _samples(probe) == whole[0]:
            count = whole[0]
            yield Seen(
                "the loss broadcasts outputs and targets: each output is compared with every target",
                got=f"{_shape(below)} meets {(count,) if len(_shape(below)) == 2 else (count, 1)}, which makes {whole}",
                expected=f"{count} differences for {count} samples",
                fix="bring both to one shape: outputs.squeeze(1), or targets.unsqueeze(1)",
            )
            return
        waiting += [(node, one) for one in made]


def _samples(probe: Probe) -> int | None:
    inputs = probe.train.inputs
    return len(inputs) if isinstance(inputs, Tensor) and inputs.ndim else None
