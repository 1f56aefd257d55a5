"""Changing a model that is there: its head, and the channels that it takes.

What of it is trained is decided in :mod:`cvkit.models.freezing`, and how fast in :mod:`cvkit.models.groups`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.calls import warn
from cvkit.errors import ArgumentError, ModelError
from cvkit.models.freezing import freeze, thaw, unfreeze
from cvkit.models.parts import find_head, find_heads, find_input, outputs_of

__all__ = [
    "adapt_input",
    "adapted",
    "append_head",
    "find_head",
    "freeze",
    "like",
    "replace_head",
    "unfreeze",
]


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Gives a classifier a new head with ``num_classes`` outputs, in place; its weights are fresh and trainable.

    Auxiliary classifiers (GoogLeNet, Inception, segmentation models) get new last layers too. ``model.cvkit_config`` follows,
    so that a checkpoint goes on describing the model.

    Args:
        model: A classifier or segmentation model whose last layer is linear or a convolution.
        num_classes: The new number of outputs.

    Returns:
        The same model.

    Raises:
        ArgumentError: Fewer than one class.
        ModelError: No such layer, or the model is nothing but this layer.
    """
    _check_count("replace_head", "num_classes", num_classes)
    heads = find_heads(model)
    path, head = heads[0]
    if not path:
        raise ModelError(
            "a model that is its own head cannot be given another",
            got=type(model).__name__,
            expected="a model with the head as one of its layers",
            fix=f"build it with {num_classes} outputs",
        )
    before = outputs_of(head)
    for place, old in heads:
        new: nn.Module
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
        else:
            new = like(old, out_channels=num_classes)
        _put(model, place, new.to(old.weight.device, old.weight.dtype))
    _note_outputs(model, before, num_classes)
    return model


def append_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Puts a new layer behind a classifier's head, in place: the pretrained outputs are its inputs.

    The head becomes ``Sequential(pretrained=…, appended=…)``; the appended layer, linear or a 1×1 convolution as the head is,
    has fresh and trainable weights. ``model.cvkit_config["appended"]`` says so, for checkpoints to describe the model.
    Two linear layers in a row can do no more than one of the smaller size; where nothing speaks for keeping the pretrained
    classes, take :func:`replace_head`.

    Args:
        model: A classifier whose last layer is linear or a convolution, e.g. VGG16 with its 1,000 classes.
        num_classes: Outputs of the new layer.

    Returns:
        The same model.

    Raises:
        ArgumentError: Fewer than one class.
        ModelError: No such layer, a model that is nothing but this layer, or one with auxiliary classifiers.
    """
    _check_count("append_head", "num_classes", num_classes)
    heads = find_heads(model)
    path, head = heads[0]
    if not path or len(heads) > 1:
        raise ModelError(
            f"nothing can be appended to {type(model).__name__}",
            got="a model that is its own head" if not path else f"several heads: {', '.join(at for at, _ in heads)}",
            expected="a model with one head as one of its layers",
            fix="put it into nn.Sequential(model, nn.Linear(…))"
            if not path
            else "use replace_head, or build it without",
        )
    before = outputs_of(head)
    layer: nn.Module
    if isinstance(head, nn.Linear):
        layer = nn.Linear(before, num_classes)
    else:
        layer = nn.Conv2d(before, num_classes, 1)
    layer = layer.to(head.weight.device, head.weight.dtype)
    _put(model, path, nn.Sequential(OrderedDict(pretrained=head, appended=layer)))
    config = getattr(model, "cvkit_config", None)
    if config is not None:
        model.cvkit_config = {**config, "appended": [*config.get("appended", []), num_classes]}  # type: ignore[assignment]
    return model


def adapt_input(model: nn.Module, in_channels: int) -> nn.Module:
    """Makes a model take images of another number of channels, in place; its first convolution keeps what it has learnt.

    The weights are changed as :func:`adapted` says; ``model.cvkit_config`` follows.

    Args:
        model: A model whose first layer with weights is a convolution.
        in_channels: Channels of the images: 1 for grey, 4 for RGB and one more.

    Returns:
        The same model.

    Raises:
        ArgumentError: Fewer than one channel.
        ModelError: The first layer is no such convolution.
    """
    _check_count("adapt_input", "in_channels", in_channels)
    _, layer = find_input(model)
    before = layer.in_channels
    if in_channels == before:
        return model
    with torch.no_grad():
        weight = adapted(layer.weight, in_channels)
    # in the layer itself: it may be of a class of its own, e.g. one that pads
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    layer.in_channels = in_channels
    if hasattr(model, "transform_input"):
        model.transform_input = False  # type: ignore[assignment]  # it re-normalises exactly three channels
    config = getattr(model, "cvkit_config", None)
    if config is not None:
        true = config.get("in_channels") == before
        _describe(model, {**config, "in_channels": in_channels} if true else None)
    return model


def adapted(weight: Tensor, in_channels: int) -> Tensor:
    """Makes the trained weights of a convolution take another number of channels.

    One channel: the sum, so that a grey image gives what it gave as RGB. More: the old ones repeated in order, scaled by
    their number over ``in_channels``, so that outputs keep their size. Source: ``timm.models.adapt_input_conv``.

    Args:
        weight: ``(O, C, …)``, e.g. ``(O, 3, h, w)``.
        in_channels: The new number of channels.

    Returns:
        ``(O, in_channels, …)``.
    """
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    before = weight.shape[1]
    times = -(-in_channels // before)
    repeated = weight.repeat(1, times, *[1] * (weight.ndim - 2))[:, :in_channels]
    return repeated * (before / in_channels)


def like(
    layer: nn.Conv2d, *, in_channels: int | None = None, out_channels: int | None = None, groups: int | None = None
) -> nn.Conv2d:
    """Returns a fresh convolution that differs from ``layer`` in what is given only."""
    return nn.Conv2d(
        in_channels or layer.in_channels,
        out_channels or layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        groups or layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )


def _check_count(function: str, label: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(
            f"{function}: {label} cannot be used",
            got=value,
            expected="1 or more",
            fix="count the classes" if label == "num_classes" else "count the channels of the images",
        )


def _put(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Puts a trainable layer at a path; what is around it is not wholly frozen any more."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)
    thaw(model, [path] if not isinstance(layer, nn.Sequential) else [f"{path}.appended"])


def _note_outputs(model: nn.Module, before: int, after: int) -> None:
    """Writes a new number of outputs where the model and its configuration keep it."""
    if getattr(model, "num_classes", None) == before:
        model.num_classes = after  # type: ignore[assignment]
    config = getattr(model, "cvkit_config", None)
    if config is None:
        return
    if appended := config.get("appended"):
        _describe(model, {**config, "appended": [*appended[:-1], after]})
    else:
        _describe(model, {**config, "num_classes": after} if config.get("num_classes") == before else None)


def _describe(model: nn.Module, config: dict[str, Any] | None) -> None:
    """Sets a model's configuration; none, with a warning, where its builder has no argument for what was changed."""
    if config is None:
        warn(
            f"checkpoints of this {type(model).__name__} will not describe it: {model.cvkit_config['name']!r} "  # type: ignore[index]
            "has no argument for this change; they load into a model that you build yourself"
        )
    model.cvkit_config = config  # type: ignore[assignment]
