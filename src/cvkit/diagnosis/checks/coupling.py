"""Outputs in evaluation mode that depend on the other samples of a batch, on chance, or not on the inputs."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import number, some
from cvkit.diagnosis.table import Seen, check
from cvkit.module_state import train_mode

_ATTENTION = "scaled_dot_product_attention"

_INSTALLED = "cvkit", "torch"

_FEW = 8
"""Samples that are enough to see whether they mix."""


@check("CV711", "warning", "Samples of a batch mix in evaluation mode", needs=["evaluation"], cost="forward")
def coupled(probe: Probe) -> Iterator[Seen]:
    """A reshape that scrambles samples, a mean over the batch, attention over it: an answer depends on the neighbours."""
    inputs = probe.train.inputs
    pair = _first_pair(probe)
    if pair is None or not isinstance(inputs, Tensor):
        return
    whole, other = pair
    changed = _differ(whole[::2], other[::2])
    if changed is None:
        return
    layers = dict(probe.model.named_modules())
    norms = [path for path, one in layers.items() if _mixing_norm(one)]
    yield Seen(
        "in evaluation mode the outputs of a sample depend on the other samples of its batch",
        got=f"the outputs of samples that stay the same change by up to {number(changed)} when the others do"
        + (f"; {some(norms)} normalise by the batch in evaluation, too" if norms else ""),
        expected="the same outputs for a sample, whatever else is in its batch",
        fix="keep the batch at dimension 0: x.flatten(1) rather than reshape or view with other sizes, mean(dim=(2, 3)), "
        "softmax(dim=1), nn.MultiheadAttention(…, batch_first=True)"
        + ("; and track_running_stats=True for batch norm" if norms else ""),
    )


@check("CV712", "warning", "Dropout stays on in evaluation mode", needs=["evaluation"], cost="forward")
def drops_in_evaluation(probe: Probe) -> Iterator[Seen]:
    """F.dropout without training=self.training, nn.Dropout made in forward or kept in a list, dropout_p of attention."""
    if _without_inputs(probe):
        return
    with _Drops() as seen:
        _evaluate(probe, _few(probe))
    if seen.found:
        name, p, line = seen.found[0]
        attention = name == _ATTENTION
        yield Seen(
            f"{name} drops {100 * p:g} % of the values in evaluation mode, too",
            got=f"{name} with {'dropout_p' if attention else 'p'}={p:g} and the model in evaluation mode",
            expected="dropout in training only: predictions that do not depend on chance",
            fix="dropout_p=self.p if self.training else 0.0"
            if attention
            else "self.dropout = nn.Dropout(p) in __init__, or F.dropout(x, p, training=self.training)",
            where=line,
        )


@check("CV713", "warning", "The model ignores its inputs", needs=["evaluation"], cost="forward")
def ignores(probe: Probe) -> Iterator[Seen]:
    """Other inputs, the same outputs, also with weights in place of what is zero at first."""
    pair = _first_pair(probe)
    if pair is None or not _same(pair[0][1::2], pair[1][1::2]):
        return
    # what begins at zero on purpose gives nothing yet
    empty = [one for one in probe.model.parameters() if one.is_floating_point() and not bool(one.any())]
    with torch.no_grad():
        for one in empty:
            one.uniform_(-0.1, 0.1)
        try:
            pairs = [_pair(probe), _pair(probe, training=True)]  # many layers may swallow a signal in evaluation alone
        finally:
            for one in empty:
                one.zero_()
    if all(again is not None and _same(again[0][1::2], again[1][1::2]) for again in pairs):
        yield Seen(
            "the model ignores its inputs: other images give exactly the same outputs",
            got="inputs changed by as much as they vary, and outputs that are the same in every digit",
            expected="outputs that depend on the inputs",
            fix="look for a variable in forward that is overwritten or not used, a multiplication by 0, units that are all "
            "off, or an index that takes always the same",
        )


@check("CV702", "warning", "Layers in training mode while the model is evaluated", needs=["evaluation"], cost="forward")
def stays_in_training(probe: Probe) -> Iterator[Seen]:
    """A train() of the user's own that does not pass the mode on, or a .train() of a layer in forward."""
    if _without_inputs(probe):
        return
    model = probe.model
    modes = [(one, one.training) for one in model.modules()]
    try:
        model.eval()
        before = [path for path, one in model.named_modules() if one.training and _minds(one)]
        _run(probe)
        after = [path for path, one in model.named_modules() if one.training and _minds(one)]
    finally:
        for module, mode in modes:
            module.training = mode
    if after:
        yield Seen(
            f"{some(after)} are in training mode while the model is evaluated",
            got="training=True after model.eval()" if before else "training=True after forward in evaluation mode",
            expected="dropout and batch norm in evaluation mode: fit and cvkit.predict call model.eval()",
            fix="in a train() of your own, call super().train(mode) and return self"
            if before
            else "leave out .train() in forward",
        )


def _run(probe: Probe) -> None:
    """Runs the model on the first batch without a graph, in the mode that it is in."""
    with torch.no_grad():
        probe.runner.forward("val", (_few(probe), None))


def _minds(module: nn.Module) -> bool:
    """Whether a layer does something else in training."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return isinstance(module, kinds) and (not isinstance(module, nn.modules.dropout._DropoutNd) or module.p > 0)


def _mixing_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None


def _without_inputs(probe: Probe) -> bool:
    """Whether it is not known what the model takes: a custom step may call it with anything."""
    return probe.own_step or not isinstance(probe.train.inputs, Tensor) or not probe.train.inputs.ndim


def _few(probe: Probe) -> Tensor:
    """Returns a few samples of the first batch, which show it as well; all where the model takes no other number."""
    inputs: Tensor = probe.train.inputs
    if len(inputs) <= _FEW:
        return inputs
    if "few" not in probe.kept:
        try:
            probe.evaluate(inputs[:_FEW])
            probe.kept["few"] = inputs[:_FEW]
        except Exception:  # whatever a batch size that is written into the model makes of it: CV751 names that
            probe.kept["few"] = inputs
    found: Tensor = probe.kept["few"]
    return found


def _evaluate(probe: Probe, inputs: Any, *, training: bool = False) -> Tensor | None:
    """Returns the outputs, in evaluation mode or in training mode, of several the first; with equal random numbers."""
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        torch.manual_seed(0)
        found = _train(probe, inputs) if training else probe.evaluate(inputs)
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    if isinstance(found, list | tuple):
        found = found[0] if found else None
    return found.detach().float() if isinstance(found, Tensor) and found.ndim and len(found) == len(inputs) else None


def _train(probe: Probe, inputs: Any) -> Any:
    modes = [(one, one.training) for one in probe.model.modules()]
    train_mode(probe.model)
    try:
        with torch.no_grad():
            return probe.runner.forward("train", (inputs, None))
    finally:
        for module, mode in modes:
            module.training = mode


def _first_pair(probe: Probe) -> tuple[Tensor, Tensor] | None:
    """Returns :func:`_pair` in evaluation mode, computed once."""
    if "pair" not in probe.kept:
        probe.kept["pair"] = _pair(probe)
    found: tuple[Tensor, Tensor] | None = probe.kept["pair"]
    return found


def _pair(probe: Probe, training: bool = False) -> tuple[Tensor, Tensor] | None:
    """Returns the outputs of the first samples, and those of the same with every second sample changed."""
    if _without_inputs(probe):
        return None
    inputs = _few(probe)
    if len(inputs) < 2 or not inputs.is_floating_point() or not bool(inputs.isfinite().all()):
        return None
    noise = torch.randn(inputs[1::2].shape, generator=torch.Generator().manual_seed(0)).to(inputs)
    other = inputs.clone()
    other[1::2] += noise * (inputs.std() + 1e-6)
    whole, changed = (_evaluate(probe, one, training=training) for one in (inputs, other))
    if whole is None or changed is None or whole.shape != changed.shape:
        return None
    return (whole, changed) if bool(whole.isfinite().all() & changed.isfinite().all()) else None


def _differ(one: Tensor, other: Tensor) -> float | None:
    """Returns by how much two tensors differ, where it is more than rounding."""
    most = float((one - other).abs().max()) if one.numel() else 0.0
    return most if most > 1e-3 * float(one.abs().max()) + 1e-7 else None


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(one.numel()) and torch.equal(one, other)


class _Drops(TorchFunctionMode):
    """Notes each dropout that drops."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, float, str | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at a call of torch's, and makes it."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == _ATTENTION:
            p, on = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0), True
        elif name.removeprefix("feature_").removeprefix("alpha_").rstrip("123d") in (
            "dropout",
            "feature_alpha_dropout",
        ):
            p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            on = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        else:
            return func(*args, **kwargs)
        place, meant = _caller()
        if on and isinstance(p, int | float) and p > 0 and not meant:
            self.found.append((name, float(p), place))
        return func(*args, **kwargs)


def _caller() -> tuple[str | None, bool]:
    """Returns the line of a user's file that a call comes from, and whether it says that dropout is to stay on."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] not in _INSTALLED:
            file, line = frame.f_code.co_filename, frame.f_lineno
            text = " ".join(linecache.getline(file, line + place).strip() for place in range(4))
            call = text[text.find("dropout") :].split(")")[0] if "dropout" in text else ""
            return f"{file}:{line}, in {frame.f_code.co_name}", "True" in call
        frame = frame.f_back
    return None, False
