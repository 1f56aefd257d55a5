"""Which parameters the gradient reaches, and which an optimizer holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check


def _called(probe: Probe) -> set[int]:
    """Returns the parameters of the layers that were called on the first batch."""
    return {id(one) for call in probe.train.trace.layers for one in call.module.parameters(recurse=False)}


@check("CV601", "warning", "Parameters that take no part in the loss", needs=["gradients"])
def no_part(probe: Probe) -> Iterator[Seen]:
    """Layers that forward never uses."""
    found, called = probe.trainable(), _called(probe)
    unused = [
        name
        for name, gradient in probe.train.trace.gradients.items()
        if gradient is None and name in found and id(found[name]) not in called
    ]
    if unused:
        yield Seen(
            f"{some(unused)} took no part in the loss and will not be trained",
            got=f"no gradient for {len(unused)} of {len(found)} parameters, whose layers were not called",
            expected="a loss that depends on each trainable parameter",
            fix="use them in forward, or remove them; requires_grad_(False) if they are meant to stay as they are",
        )


@check("CV608", "warning", "The graph is cut between a layer and the loss", needs=["gradients"])
def cut(probe: Probe) -> Iterator[Seen]:
    """A detach, .data, .item(), a NumPy array or torch.no_grad() on the way: the layers before it are not trained."""
    found, trace, called = probe.trainable(), probe.train.trace, _called(probe)
    lost = [name for name, one in found.items() if trace.gradients.get(name) is None and id(one) in called]
    if not lost or not trace.gradients:
        return
    ids = {id(found[name]) for name in lost}
    calls = [call.path for call in trace.layers if any(id(one) in ids for one in call.module.parameters(recurse=False))]
    yield Seen(
        f"{some(lost)} were used in forward, and no gradient comes back to them: they will not be trained",
        got=f"a graph that is cut somewhere after {calls[-1]!r}",
        expected="a gradient for each trainable parameter that forward uses",
        fix="leave out .detach(), .data, .item(), .numpy() and torch.no_grad() there, and use what the layer returns; "
        "requires_grad_(False) if these layers are meant to stay as they are",
    )


@check("CV602", "warning", "Parameters that no optimizer holds", needs=["gradients", "settings"])
def forgotten(probe: Probe) -> Iterator[Seen]:
    """Trainable parameters outside of every optimizer, those of the loss included."""
    if not probe.settings.optimizers:
        return
    held = {id(p) for one in probe.settings.optimizers for group in one.param_groups for p in group["params"]}
    missing = [name for name, parameter in probe.trainable().items() if id(parameter) not in held]
    if missing:
        yield Seen(
            f"no optimizer holds {some(missing)}",
            got=f"{len(missing)} of {len(probe.trainable())} trainable parameters that no update changes",
            expected="each trainable parameter in an optimizer",
            fix="build the optimizer after the last change to the model, or add them to it; "
            "requires_grad_(False) if they are meant to stay as they are",
        )
    module = probe.loss.function
    own = [p for p in module.parameters() if p.requires_grad] if isinstance(module, nn.Module) else []
    if own and not any(id(p) in held for p in own):
        yield Seen("the loss has trainable parameters that no optimizer holds", fix="add them to an optimizer")


@check("CV604", "warning", "The head is frozen and the rest is trained", needs=["gradients"])
def frozen_head(probe: Probe) -> Iterator[Seen]:
    """Freezing the wrong way round: the new layer stays random, and what was trained before is changed."""
    outputs = probe.train.trace.outputs
    if probe.own_step or not isinstance(outputs, Tensor) or not probe.trainable():
        return
    last = next((one for one in reversed(probe.train.trace.layers) if list(one.module.parameters(recurse=False))), None)
    if last is None or last.output is None or last.output.data_ptr() != outputs.data_ptr():
        return
    head = last.module
    if any(one.requires_grad for one in head.parameters()) or not _untrained(head):
        return
    yield Seen(
        f"the last layer, {last.path}, is frozen with the weights that it was initialised with, and layers before it are "
        "trained",
        got=f"requires_grad=False for {last.path}, True for {some(probe.trainable())}",
        expected="a new last layer that is trained; it is the layers before it that are frozen",
        fix="model.requires_grad_(False), and then "
        + (f"model.get_submodule({last.path!r}).requires_grad_(True)" if last.path else "model.requires_grad_(True)"),
    )


def _untrained(layer: nn.Module) -> bool:
    """Whether a layer's weights look as they do before any training."""
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    if layer.bias is not None and not bool(layer.bias.any()):
        return True
    weight = layer.weight.detach().float()
    bound = 1 / math.sqrt(weight[0].numel())
    return bool(weight.abs().max() <= 1.001 * bound) and float(weight.std()) > 0.45 * bound
