"""timm's models as ``timm:NAME``, where timm is installed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from cvkit.errors import ArgumentError, MissingDependencyError, ModelError, unknown_name
from cvkit.models.weight_loading import load_weights

__all__ = ["PREFIX", "build"]

PREFIX = "timm:"


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    pretrained: bool | str | Path | Enum,
    stem: str = "auto",
    **kwargs: Any,
) -> nn.Module:
    """Builds a model of timm's.

    Args:
        name: ``"timm:"`` and timm's name, e.g. ``"timm:resnet18"``, or with the training that its weights are from,
            ``"timm:resnet18.a1_in1k"``.
        num_classes: Outputs.
        in_channels: Channels of the input images; pretrained weights of the first convolution are adapted.
        pretrained: ``False``, ``True`` for timm's own weights (downloaded once), or the path of a file with a state dict.
        stem: ``"auto"``; timm has arguments and names of its own for small images.
        **kwargs: timm's own arguments, e.g. ``drop_rate=0.1``.

    Raises:
        MissingDependencyError: timm is not installed.
        UnknownNameError: A name that timm does not know.
        ArgumentError: Arguments that timm refuses, a stem, or weights of torchvision's.
        ModelError: Weights that cannot be had or do not fit.
    """
    timm = _timm(name)
    bare = name.removeprefix(PREFIX)
    if not timm.is_model(bare):
        raise unknown_name("model of timm's", bare, timm.list_models())
    if stem != "auto" or isinstance(pretrained, Enum):
        raise ArgumentError(
            f"create({name!r}): timm's models have no such argument",
            got=f"stem={stem!r}" if stem != "auto" else f"pretrained={pretrained}",
            expected='stem="auto", and pretrained=True or a file',
            fix="leave it out",
        )
    arguments = {"num_classes": num_classes, "in_chans": in_channels, **kwargs}
    if pretrained is True:
        return _trained(timm, bare, arguments)
    model = _made(timm, bare, arguments)
    if not isinstance(pretrained, bool):
        load_weights(model, pretrained)
    return model


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"the model {name!r} needs timm", got=str(error), expected="the package timm", fix="pip install timm"
        ) from error
    return timm


def _made(timm: Any, bare: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(bare, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ArgumentError(
            f"timm cannot build {bare!r} with these arguments",
            got=", ".join(f"{key}={value!r}" for key, value in arguments.items()),
            expected="arguments of timm.create_model",
            fix=error,
        ) from error
    return model


def _trained(timm: Any, bare: str, arguments: dict[str, Any]) -> nn.Module:
    """Builds a model with timm's own weights, which timm adapts to head and input itself."""
    try:
        model: nn.Module = timm.create_model(bare, pretrained=True, **arguments)
    except Exception as error:  # the hub's client raises errors of several libraries
        place = getattr(_made(timm, bare, arguments), "pretrained_cfg", {})  # wrong arguments are answered here
        hub, url = place.get("hf_hub_id"), place.get("url")
        source = f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else url or "the weights"
        raise ModelError(
            f"the pretrained weights of timm's {bare!r} are not to be had",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected="a connection to download them, or their file",
            fix=f"download {source} elsewhere, and pass the file: pretrained='model.safetensors'",
        ) from error
    return model
