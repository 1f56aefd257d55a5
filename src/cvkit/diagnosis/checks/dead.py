"""Layers that cannot learn: no gradient, next to none, or units that are all alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import number, some
from cvkit.diagnosis.table import Seen, check
from cvkit.diagnosis.trace import Trace, watched

STEPS = 3
"""As many steps are tried: what is zero-initialised on purpose wakes up layer by layer, from the last one on."""

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@check("CV605", "warning", "No gradient reaches the first layers", needs=["update"], cost="forward")
def dead(probe: Probe) -> Iterator[Seen]:
    """Dead ReLUs, a multiplication by zero: the gradient is exactly 0, and stays so when the weights move."""
    zero = _zero(probe.train.trace.gradients)
    if not zero or _no_loss(probe) or _alike(probe):
        return
    tried = list(_try(probe))
    if len(tried) < STEPS:
        return
    first = _first_layer(probe, tried[0])
    lost = set.intersection(zero, *(_zero(one.gradients) for one in tried))
    # where nothing at all has a gradient, the last activation may be off for this one batch, or the loss may be satisfied
    if not first or not first <= lost or len(lost) == len(probe.train.trace.gradients):
        return
    off = next((one for one in tried[-1].layers if one.output is not None and not bool(one.output.any())), None)
    yield Seen(
        f"no gradient reaches {some(sorted(lost))}: it is exactly 0",
        got=f"a gradient of 0 for {len(lost)} of {len(probe.trainable())} parameters, in {STEPS + 1} tries"
        + (f"; every output of {off.path!r} ({type(off.module).__name__}) is 0" if off is not None else ""),
        expected="a gradient that reaches the first layer",
        fix="look for a ReLU whose inputs are all below 0 (a large negative bias, inputs on the wrong scale), a multiplication "
        "by 0, a clamp, a sign or a rounding on the way",
    )


@check("CV606", "warning", "The gradient vanishes on the way to the first layers", needs=["update"], cost="forward")
def vanishing(probe: Probe) -> Iterator[Seen]:
    """Many sigmoids in a row: each takes at least three quarters of the gradient away."""
    sizes = _sizes(probe.train.trace.gradients)
    if not any(_tiny(one, sizes) for one in sizes.values()) or _no_loss(probe):
        return
    tried = list(_try(probe))
    if len(tried) < STEPS:
        return
    first = _first_layer(probe, tried[0])
    every = [sizes, *(_sizes(one.gradients) for one in tried)]
    if not first or not all(name in each and _tiny(each[name], each) for name in first for each in every):
        return
    largest = max(sizes, key=lambda name: sizes[name])
    smallest = min(first, key=lambda name: sizes[name])
    kinds = [type(one.module).__name__ for one in tried[0].layers if isinstance(one.module, nn.Sigmoid | nn.Tanh)]
    yield Seen(
        f"next to no gradient reaches the first layer: it vanishes on the way to {smallest}",
        got=f"a gradient of {number(sizes[smallest])} in {smallest} and of {number(sizes[largest])} in {largest} (root mean "
        "square)" + (f"; {len(kinds)} layers end in {kinds[0]}" if kinds else ""),
        expected="gradients of about one size in all layers",
        fix="put nn.ReLU() in place of the sigmoids, and a norm (nn.BatchNorm2d, nn.LayerNorm) or skip connections between "
        "the layers",
    )


@check("CV607", "warning", "All units of a layer are alike", needs=["update"], cost="forward")
def alike(probe: Probe) -> Iterator[Seen]:
    """Weights that are all zero, or all the same: each unit gets the same gradient, and they stay equal for ever."""
    with _as_given(probe):
        suspects = _alike(probe)
    if not suspects:
        return
    left = _constant(probe, suspects)
    if not left:
        left = list(suspects)
        tries = 0
        for _ in _try(probe):
            tries += 1
            left = [path for path in _alike(probe) if path in left]
        left = left if tries == STEPS else []
    if left:
        value = float(suspects[left[0]].flatten()[0])
        named = some(one or "the model itself" for one in left)
        yield Seen(
            f"all units of {named} are initialised alike, and stay so: they learn the same",
            got=f"every unit of {left[0] or 'it'} has the same weights"
            + (f" ({number(value)})" if bool((suspects[left[0]] == value).all()) else "")
            + ("" if _constant(probe, suspects) else f", and still has after {STEPS} steps"),
            expected="random weights",
            fix="leave the layer as torch initialises it, or nn.init.kaiming_normal_(layer.weight); zeros are for biases",
        )


def _alike(probe: Probe) -> dict[str, Tensor]:
    """Returns the weights, by the layer's path, whose units are all the same, and which have a part in the loss."""
    gradients, found = probe.train.trace.gradients, {}
    for path, module in probe.model.named_modules():
        if not isinstance(module, _LAYERS) or not module.weight.requires_grad:
            continue
        weight = module.weight.detach()
        axis = 1 if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0
        rows = weight.transpose(0, axis)
        name = f"{path}.weight" if path else "weight"
        if len(rows) < 2 or gradients.get(name) is None:
            continue
        spread = (rows - rows[:1]).abs().max()
        if bool(spread <= 1e-5 * rows.abs().max()):
            found[path] = weight.clone()
    return found


def _constant(probe: Probe, suspects: dict[str, Tensor]) -> list[str]:
    """Returns several layers of one number each, which no bias makes good; zeros only where there is nothing else."""
    layers = dict(probe.model.named_modules())
    found = [path for path, one in suspects.items() if bool((one == one.flatten()[0]).all())]
    found = [path for path in found if getattr(layers[path], "groups", 1) == 1]
    others = [
        path for path, one in layers.items() if isinstance(one, _LAYERS) and path not in found and len(one.weight) > 1
    ]
    zeros = all(not bool(suspects[path].any()) for path in found)
    return found if len(found) > 1 and not (zeros and others) else []


def _try(probe: Probe) -> Iterator[Trace]:
    """Yields what comes of a few steps down the gradient from the weights that the model was given, each after its step.

    The weights are afterwards as they were before.
    """
    with _as_given(probe) as found:
        for _ in range(STEPS):
            trace = Trace()
            with torch.enable_grad(), watched(probe.model, trace):
                probe.run_forward_only(trace)
                if trace.error is not None or not isinstance(trace.loss, Tensor) or not trace.loss.requires_grad:
                    return
                trace.loss.backward()  # type: ignore[no-untyped-call]
            trace.gradients = {name: one.grad for name, one in found.items()}
            sizes = _sizes(trace.gradients)
            for name, one in found.items():
                gradient, one.grad = one.grad, None
                # what is smaller than rounding is no direction
                if gradient is not None and sizes.get(name, 0.0) > 1e-6 * max(sizes.values()):
                    with torch.no_grad():
                        one.sub_(gradient, alpha=0.01 / sizes[name])
            yield trace


@contextmanager
def _as_given(probe: Probe) -> Iterator[dict[str, nn.Parameter]]:
    """Gives the trainable parameters the values from before the update, without dropout, which would hide what is alike."""
    found = probe.trainable()
    saved = {name: one.detach().clone() for name, one in found.items()}
    drops = [(one, one.p) for one in probe.model.modules() if isinstance(one, _DROPOUT)]
    try:
        with torch.no_grad():
            for name, one in found.items():
                one.copy_(probe.before_update.get(name, one))
        for module, _ in drops:
            module.p = 0.0
        yield found
    finally:
        for module, p in drops:
            module.p = p
        with torch.no_grad():
            for name, one in found.items():
                one.copy_(saved[name])
                one.grad = None


def _first_layer(probe: Probe, trace: Trace) -> set[str]:
    """Returns the trainable parameters of the first layer that has any."""
    names = {id(one): name for name, one in probe.trainable().items()}
    for call in trace.layers:
        mine = {names[id(one)] for one in call.module.parameters(recurse=False) if id(one) in names}
        if mine:
            return mine
    return set()


def _zero(gradients: dict[str, Tensor | None]) -> set[str]:
    return {name for name, one in gradients.items() if one is not None and not one.is_sparse and not bool(one.any())}


def _sizes(gradients: dict[str, Tensor | None]) -> dict[str, float]:
    """Returns the root mean square of each gradient."""
    return {
        name: float(one.detach().double().pow(2).mean().sqrt())
        for name, one in gradients.items()
        if one is not None and not one.is_sparse and one.numel()
    }


def _tiny(size: float, sizes: dict[str, float]) -> bool:
    return 0 < size < 1e-8 and size < 1e-6 * max(sizes.values())


def _no_loss(probe: Probe) -> bool:
    """Whether the loss is 0, so that there is nothing to learn from this batch."""
    loss = probe.train.trace.loss
    return probe.train.trace.weight == 0 or not isinstance(loss, Tensor) or abs(float(loss.detach())) < 1e-12
