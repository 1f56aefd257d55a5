"""Parameters that belong to no module: layers in a list, plain tensors, layers that forward makes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from cvkit.diagnosis.graph import leaves
from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check

MOST_VALUES = 20_000
DEEPEST = 5
_TORCH_OWN = {"_parameters", "_modules"}


@check("CV603", "warning", "Parameters that belong to no module", needs=["loss"])
def hidden(probe: Probe) -> Iterator[Seen]:
    """Layers in a Python list or dict, tensors that are no nn.Parameter: they are neither trained, moved nor saved."""
    unknown = _unknown(probe)
    if not unknown:
        return
    places = _places(probe.model, set(unknown))
    layers = {key: path for key, (path, _) in places.items() if isinstance(unknown[key], nn.Parameter)}
    plain = {key: path for key, (path, _) in places.items() if key not in layers}
    kept = [path for key, path in layers.items() if places[key][1]]
    if kept:
        yield Seen(
            f"{some(kept)} belong to no module: they are not trained, not moved to a device and not saved",
            got="layers or parameters in a list, a dict or another object that nn.Module does not look into",
            expected="layers that are attributes of the model, or in an nn.ModuleList, nn.ModuleDict or nn.ParameterList",
            fix=f"self.{_attribute(kept[0])} = nn.ModuleList([…]), nn.ModuleDict({{…}}) or nn.ParameterList([…])",
        )
    elif plain:
        first = next(iter(plain.values()))
        yield Seen(
            f"{some(plain.values())} require a gradient and are no nn.Parameter: they are neither trained nor saved",
            got=f"a plain tensor {tuple(unknown[next(iter(plain))].shape)} with requires_grad=True",
            expected="an nn.Parameter, which model.parameters() gives to the optimizer",
            fix=f"self.{_attribute(first)} = nn.Parameter(…)",
        )
    else:
        yield from _nowhere([one for key, one in unknown.items() if key not in places])


def _unknown(probe: Probe) -> dict[int, Tensor]:
    """Returns what the gradient goes to and neither the model, the loss nor an optimizer holds."""
    known = {id(one) for one in probe.model.parameters()}
    if isinstance(probe.loss.function, nn.Module):
        known |= {id(one) for one in probe.loss.function.parameters()}
    known |= {id(p) for one in probe.settings.optimizers for group in one.param_groups for p in group["params"]}
    return {id(one): one for one in leaves(probe.train.trace.loss) if id(one) not in known}


def _nowhere(unknown: list[Tensor]) -> Iterator[Seen]:
    """What is no attribute of the model: made in forward, or a layer beside the model."""
    found = [one for one in unknown if isinstance(one, nn.Parameter)]
    owners = [_owner(one) for one in found]
    loose = [one for one, owner in zip(found, owners, strict=True) if owner is None]
    beside = sorted({type(one).__name__ for one in owners if one is not None and one.training})
    if loose:
        yield Seen(
            "forward or the step makes layers anew for every batch: they stay as they were initialised",
            got=f"{len(loose)} parameters that no module holds, e.g. of shape {tuple(loose[0].shape)}",
            expected="layers that are made once, in __init__",
            fix="make the layer in __init__ (self.layer = …) and call it in forward",
        )
    elif beside:
        yield Seen(
            f"layers beside the model take part in the loss, and no optimizer holds them: {some(beside)}",
            got=f"{len(found)} parameters that are in neither the model nor an optimizer",
            expected="every layer that is to be trained inside of the model",
            fix="make them attributes of the model; if they are not to be trained, layer.eval().requires_grad_(False)",
        )


def _owner(parameter: Tensor) -> nn.Module | None:
    """Returns the module that holds a parameter, ``None`` where that is gone."""
    for held in gc.get_referrers(parameter):
        if isinstance(held, dict):
            for one in gc.get_referrers(held):
                if isinstance(one, nn.Module) and one._parameters is held:
                    return one
                if isinstance(one, dict) and one.get("_parameters") is held:
                    return next((each for each in gc.get_referrers(one) if isinstance(each, nn.Module)), None)
    return None


def _places(model: nn.Module, wanted: set[int]) -> dict[int, tuple[str, bool]]:
    """Returns where in the model tensors are, and whether what holds them is in training mode."""
    found: dict[int, tuple[str, bool]] = {}
    seen: set[int] = {id(one) for one in model.modules()}
    waiting: list[tuple[str, Any, bool, int]] = []
    for path, module in model.named_modules():
        before = f"{path}." if path else ""
        mine: dict[str, Any] = {
            key: value
            for one in type(module).__mro__
            if one.__module__[:6] != "torch."
            for key, value in vars(one).items()
        }
        mine |= {key: value for key, value in vars(module).items() if key not in _TORCH_OWN} | dict(module._buffers)
        waiting += [(before + key, value, True, 0) for key, value in mine.items() if not key.startswith("__")]
    while waiting and len(seen) < MOST_VALUES:
        path, value, training, depth = waiting.pop(0)
        if id(value) in seen or depth > DEEPEST or isinstance(value, str | bytes | int | float | None):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if id(value) in wanted:
                found[id(value)] = path, training
            continue
        waiting += [(path + step, inner, kept, depth + 1) for step, inner, kept in _inside(value, training)]
    return found


def _inside(value: Any, training: bool) -> Iterator[tuple[str, Any, bool]]:
    """Yields what an object holds."""
    if isinstance(value, nn.Module):
        for name, one in value.named_parameters():
            yield f".{name}", one, training and value.training
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", one, training) for key, one in list(value.items())[:1000])
    elif isinstance(value, list | tuple | set):
        yield from ((f"[{place}]", one, training) for place, one in enumerate(list(value)[:1000]))
    elif getattr(value, "__closure__", None):
        yield from (("", cell.cell_contents, training) for cell in value.__closure__ if _filled(cell))
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        yield from ((f".{key}", one, training) for key, one in list(vars(value).items())[:1000])


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _attribute(path: str) -> str:
    """Returns the attribute that a path begins with."""
    return path.split("[")[0]
