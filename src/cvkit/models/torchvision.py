"""torchvision's classification models, by their own names, with any number of classes and input channels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from cvkit.errors import ArgumentError, ModelError
from cvkit.models.adapt import replace_head

__all__ = ["build", "load_weights"]


def build(
    name: str, *, num_classes: int, in_channels: int, pretrained: bool | str | Path, stem: str, **kwargs: Any
) -> nn.Module:
    """Builds a torchvision model.

    Args:
        name: torchvision's name.
        num_classes: Outputs.
        in_channels: Channels of the input pictures.
        pretrained: ``True`` for the default weights, or the path of a state dict of the same model.
        stem: ``"small"`` for a 3×3 first convolution without pooling, where the model is a ResNet.
        **kwargs: torchvision's own arguments.

    Raises:
        ArgumentError: Arguments that torchvision refuses, or a stem that the model does not have.
        ModelError: Weights that cannot be downloaded or do not fit.
    """
    try:
        if pretrained is True:
            model = _pretrained(name, **kwargs)
            if num_classes != 1000:
                replace_head(model, num_classes)
        else:
            model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **kwargs)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"torchvision cannot build {name!r}", got=kwargs, expected="its own arguments", fix=error
        ) from error
    if in_channels != 3:
        _adapt_input(model, in_channels)
    if stem == "small":
        _small_stem(name, model)
    if pretrained and pretrained is not True:
        load_weights(model, Path(pretrained))
    built: nn.Module = model
    return built


def _pretrained(name: str, **kwargs: Any) -> nn.Module:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        model: nn.Module = torchvision.models.get_model(name, weights=weights, **kwargs)
    except (URLError, OSError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise ModelError(
            f"the pretrained weights of {name!r} cannot be downloaded",
            got=f"{type(error).__name__}: {error}",
            expected=f"a connection, or the file {place}",
            fix=f"download {weights.url} elsewhere and place it there",
        ) from error
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a state dict from a file into a model; nothing in the file is run.

    Raises:
        ModelError: No such file, no state dict, or one of another model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        model.load_state_dict(state)
    except (OSError, pickle.UnpicklingError, RuntimeError, AttributeError, TypeError) as error:
        raise ModelError(
            f"the weights in {path} cannot be used",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:400],
            expected=f"a state dict of this {type(model).__name__}",
            fix="write it with torch.save(model.state_dict(), path)",
        ) from error


def _adapt_input(model: nn.Module, in_channels: int) -> None:
    """Replaces the first convolution by one that takes ``in_channels``; trained weights are averaged over channels.

    The sum over channels is kept, so that a grey picture gives what the same picture in three channels gave.
    """
    path, first = next(((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d)), (None, None))
    if path is None or first is None or first.in_channels != 3:
        raise ModelError(
            f"{type(model).__name__} cannot be given {in_channels} input channels",
            got="no first convolution of three channels",
            expected="a convolutional model",
            fix="leave in_channels=3 and load pictures in RGB",
        )
    new = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(first.weight.sum(1, keepdim=True).expand_as(new.weight) / in_channels)
        if first.bias is not None and new.bias is not None:
            new.bias.copy_(first.bias)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def _small_stem(name: str, model: nn.Module) -> None:
    """Gives a ResNet a 3×3 first convolution of stride 1 and no pooling, as for CIFAR-10."""
    if not isinstance(model, torchvision.models.ResNet):
        raise ArgumentError(
            f"the model {name!r} has no small stem",
            got='stem="small"',
            expected="a ResNet of torchvision's",
            fix="leave stem out",
        )
    old = model.conv1
    model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
