"""Which parameters the gradient reaches, and which an optimizer holds."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check


@check("CV601", "warning", "Parameters that take no part in the loss", needs=["gradients"])
def no_part(probe: Probe) -> Iterator[Seen]:
    """Layers that forward never uses."""
    unused = [name for name, gradient in probe.train.trace.gradients.items() if gradient is None]
    if unused:
        yield Seen(f"{some(unused)} took no part in the loss and will not be trained")


@check("CV602", "warning", "Parameters that no optimizer holds", needs=["gradients", "settings"])
def forgotten(probe: Probe) -> Iterator[Seen]:
    """Trainable parameters outside of every optimizer, those of the loss included."""
    if not probe.settings.optimizers:
        return
    held = {id(p) for one in probe.settings.optimizers for group in one.param_groups for p in group["params"]}
    missing = [name for name, parameter in probe.trainable().items() if id(parameter) not in held]
    if missing:
        yield Seen(f"no optimizer holds {some(missing)}", fix="freeze them, or add them to an optimizer")
    module = probe.loss.function
    own = [p for p in module.parameters() if p.requires_grad] if isinstance(module, nn.Module) else []
    if own and not any(id(p) in held for p in own):
        yield Seen("the loss has trainable parameters that no optimizer holds", fix="add them to an optimizer")
