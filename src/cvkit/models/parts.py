"""What a model is made of: its heads, its first convolution, and its blocks from the input to the head."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from cvkit.errors import ModelError
from cvkit.registry import model_tools

__all__ = ["Head", "find_blocks", "find_head", "find_heads", "find_input", "inside", "outputs_of"]

Head: TypeAlias = "nn.Linear | nn.Conv2d"

_FEW = 3
"""A model of fewer blocks than this before its head is looked into, e.g. VGG's ``features`` and ``classifier``."""


def inside(name: str, path: str) -> bool:
    """Whether a module or parameter of this name is at or below a path; everything is below ``""``."""
    return not path or name == path or name.startswith(f"{path}.")


def outputs_of(head: nn.Module) -> int:
    """Returns how many outputs a head has."""
    return head.out_features if isinstance(head, nn.Linear) else int(head.out_channels)  # type: ignore[arg-type]


def find_head(model: nn.Module) -> tuple[str, Head]:
    """Returns the path and the module of a classifier's head: the last layer with weights, as the model lists them.

    Auxiliary classifiers (top-level modules named ``aux…``) are passed over.

    Raises:
        ModelError: That layer is neither linear nor a convolution.
    """
    path, last = next(iter(reversed(_layers(model))), ("", model))
    if not _is_head(last):
        raise ModelError(
            f"no head found in {type(model).__name__}",
            got=f"{type(last).__name__} {path!r} as its last layer" if _holds(last) else "no layer with weights",
            expected="a classifier whose last layer is linear or a convolution",
            fix="replace or freeze its layers by hand",
        )
    return path, last  # type: ignore[return-value]


def find_heads(model: nn.Module) -> list[tuple[str, Head]]:
    """Returns every head of a classifier, the main one first.

    Beside it those that a model adds up with it (LRASPP's ``low_classifier``, the ``head`` beside a ``head_dist`` of timm's
    distilled models), and the last layers of auxiliary classifiers (GoogLeNet, Inception, the segmentation models).

    Raises:
        ModelError: There is no head.
    """
    path, head = find_head(model)
    found = [(path, head)]
    parent, _, name = path.rpartition(".")
    beside = [f"{parent}.{other}" if parent else other for other, _ in model.get_submodule(parent).named_children()]
    twins = [other for other in beside if name.endswith("_classifier") and other.endswith("_classifier")]
    modules = dict(model.named_modules())
    for other in [*twins, path.replace("_dist", "", 1)]:
        layer = modules.get(other)
        if other != path and layer is not None and _is_head(layer) and outputs_of(layer) == outputs_of(head):
            found.append((other, layer))
    for child, module in model.named_children():
        if _auxiliary(child) and (layers := _layers(module)):
            below, last = layers[-1]
            if _is_head(last) and outputs_of(last) == outputs_of(head):
                found.append((f"{child}.{below}" if below else child, last))  # type: ignore[arg-type]
    return found


def find_input(model: nn.Module) -> tuple[str, _ConvNd]:
    """Returns the path and the module of the convolution that the input goes into: the first layer with weights.

    Raises:
        ModelError: That layer is no convolution, or one of several groups.
    """
    layers = [(path, one) for path, one in _layers(model) if next(one.children(), None) is None]
    path, first = next(iter(layers), ("", model))
    if not isinstance(first, _ConvNd) or isinstance(first, LazyModuleMixin) or first.transposed or first.groups != 1:
        raise ModelError(
            f"no convolution found that the input of {type(model).__name__} goes into",
            got=f"{type(first).__name__} {path!r} as its first layer" if layers else "no layer with weights",
            expected="a model whose first layer with weights is a convolution of one group",
            fix="build it with the channels that it is to take, or change its first layer by hand",
        )
    return path, first


@model_tools.register("find_blocks")
def find_blocks(model: nn.Module) -> list[tuple[str, ...]]:
    """Returns the blocks of a model from its input to its head: what is unfrozen, or given a learning rate, together.

    A block is a top-level module with weights; where there are fewer than three of them before the head, the largest is
    opened (``features`` of VGG, ``encoder`` and its ``layers`` of ViT, a ``backbone``), as is a row of blocks between a stem
    and a last layer; what holds the head always is. Norms and other layers that only scale go with the layer before them,
    further heads and auxiliary classifiers with the head. So ResNet has the blocks ``conv1`` and ``bn1``, ``layer1`` …
    ``layer4`` and ``fc``, and VGG16 one for each of its sixteen layers.

    Returns:
        The paths of each block's modules. Parameters outside all of them, such as a class token, belong with the first.
    """
    layers = _layers(model)
    heads = [path for path, _ in find_heads(model)] if layers and _is_head(layers[-1][1]) else []
    head = heads[0] if heads else None
    parts = _children(model, "")
    if not parts or head == "":
        return [("",)]
    while head is not None and len(parts) == 1 and parts[0] != head:  # a wrapper around all
        parts = _children(model, parts[0])
    while True:
        body = [part for part in parts if head is None or not inside(head, part)]
        openable = [part for part in body if _opens(model.get_submodule(part), alone=len(body) == 1)]
        rows = [part for part in body if len(_children(model, part)) >= _FEW and part in openable]
        few = len(_joined(model, body, []))
        if few == _FEW and len(rows) == 1:
            openable = rows
        if few > _FEW or (few == _FEW and len(rows) != 1) or not openable:
            break
        _open(model, parts, max(openable, key=lambda part: _size(model.get_submodule(part))))
    while head is not None and head not in parts:
        _open(model, parts, next(part for part in parts if inside(head, part)))
    return _joined(model, parts, heads[1:])


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns what holds parameters itself, as the model lists it, without the auxiliary classifiers."""
    return [(path, one) for path, one in model.named_modules() if _holds(one) and not _auxiliary(path)]


def _holds(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _auxiliary(path: str) -> bool:
    return path.partition(".")[0].lower().startswith("aux")


def _is_head(layer: nn.Module) -> bool:
    """Whether a layer can be a head; a lazy one has no size yet, and that inside an attention is not called as a layer."""
    odd = isinstance(layer, LazyModuleMixin | NonDynamicallyQuantizableLinear)
    return isinstance(layer, nn.Linear | nn.Conv2d) and not odd


def _children(model: nn.Module, path: str) -> list[str]:
    """Returns the paths of a module's children that hold anything."""
    return [
        f"{path}.{name}" if path else name
        for name, child in model.get_submodule(path).named_children()
        if next(child.parameters(), None) is not None or next(child.buffers(), None) is not None
    ]


def _open(model: nn.Module, parts: list[str], part: str) -> None:
    """Puts the children of a part in its place."""
    index = parts.index(part)
    parts[index : index + 1] = _children(model, part)


def _opens(module: nn.Module, *, alone: bool) -> bool:
    """Whether a module is a row of blocks rather than a block: a container, or what is little else than one."""
    children = [child for child in module.children() if _size(child)]
    if alone or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return bool(children)
    rows = [child for child in children if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)]
    return any(2 * _size(row) >= _size(module) for row in rows)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _joined(model: nn.Module, parts: list[str], further: list[str]) -> list[tuple[str, ...]]:
    """Puts what only scales with the part before it, and what holds further heads with the last."""
    blocks: list[tuple[str, ...]] = []
    late: list[str] = []
    for part in parts:
        module = model.get_submodule(part)
        scales = all(one.ndim <= 1 for one in module.parameters())
        if any(inside(head, part) for head in further):
            late.append(part)
        elif blocks and scales:
            blocks[-1] = (*blocks[-1], part)
        else:
            blocks.append((part,))
    if late:
        blocks[-1] = (*blocks[-1], *late)
    return blocks
