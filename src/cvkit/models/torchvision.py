"""torchvision's classification models, by their own names, with any number of classes and input channels."""

from __future__ import annotations

import inspect
import pickle
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as zoo

from cvkit.errors import ArgumentError, ModelError, unknown_name
from cvkit.models.adapt import find_head, like, replace_head

__all__ = ["build", "load_weights", "names"]


def names() -> list[str]:
    """Returns the names of torchvision's classification models."""
    known: list[str] = zoo.list_models(module=zoo)
    return known


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    pretrained: bool | str | Path | Enum,
    stem: str = "auto",
    **kwargs: Any,
) -> nn.Module:
    """Builds a torchvision model.

    GoogLeNet and Inception are built without their auxiliary classifiers unless asked for: those return tuples.

    Args:
        name: torchvision's name.
        num_classes: Outputs.
        in_channels: Channels of the input pictures. Where it is not 3 the first convolution is new; pretrained weights go into
            it as :func:`adapted` says.
        pretrained: ``False``, ``True`` for the default weights, an entry of the model's weights enum, or the path of a
            state dict.
        stem: ``"small"`` for a fresh 3×3 first convolution of stride 1 without pooling, where the model is a ResNet.
        **kwargs: torchvision's own arguments.

    Raises:
        ArgumentError: Arguments that torchvision refuses, or a stem that the model does not have.
        ModelError: Weights that cannot be had or do not fit, or a model without a first convolution to change.
    """
    if name in ("googlenet", "inception_v3"):
        # transform_input as with pretrained weights, so that a model built again from its configuration computes the same
        defaults: dict[str, Any] = {"transform_input": in_channels == 3}
        if pretrained is False or isinstance(pretrained, str | Path):
            defaults |= {"aux_logits": False, "init_weights": pretrained is False}
        kwargs = defaults | kwargs
    if pretrained is True or isinstance(pretrained, zoo.WeightsEnum):
        model = _with_weights(name, zoo.get_model_weights(name).DEFAULT if pretrained is True else pretrained, kwargs)
        if find_head(model)[1].weight.shape[0] != num_classes:
            replace_head(model, num_classes)
        if "aux_logits" not in kwargs:
            _drop_auxiliary(model)
    else:
        model = _call(name, {"weights": None, "num_classes": num_classes, **kwargs})
    if stem == "small":
        _small_stem(name, model)
    if in_channels != 3:
        _change_input(model, in_channels, fresh=pretrained is False)
    if isinstance(pretrained, str | Path):
        load_weights(model, Path(pretrained))
    return model


def _drop_auxiliary(model: nn.Module) -> None:
    """Takes the auxiliary classifiers off a pretrained GoogLeNet or Inception, which torchvision builds with them."""
    for name in ("aux1", "aux2", "AuxLogits"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
            model.aux_logits = False  # type: ignore[assignment]


def _call(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Calls torchvision's builder; arguments that it does not take are answered with those that it does."""
    try:
        model: nn.Module = zoo.get_model(name, **arguments)
    except (TypeError, ValueError) as error:
        accepted = _accepted(name)
        for argument in arguments:
            if argument not in accepted:
                raise unknown_name(f"argument of the model {name!r}:", argument, accepted) from error
        raise ArgumentError(
            f"torchvision cannot build {name!r} with these arguments",
            got=arguments,
            expected=f"values that it takes for {', '.join(sorted(accepted))}",
            fix=error,
        ) from error
    return model


def _accepted(name: str) -> set[str]:
    """Returns the keyword arguments of a builder of torchvision's, those that it hands on to the class included."""
    with torch.device("meta"):
        made = type(zoo.get_model(name, weights=None))
    taken = [
        *inspect.signature(zoo.get_model_builder(name)).parameters.values(),
        *inspect.signature(made).parameters.values(),
    ]
    optional = {one.name for one in taken if one.default is not one.empty and one.kind is not one.VAR_KEYWORD}
    return {*optional, "num_classes", "in_channels"} - {"progress"}


def _with_weights(name: str, weights: zoo.WeightsEnum, kwargs: dict[str, Any]) -> nn.Module:
    """Builds a model with weights of torchvision's, downloaded if they are not there yet."""
    try:
        return _call(name, {"weights": weights, **kwargs})
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise ModelError(
            f"the pretrained weights of {name!r} are not to be had",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected=f"a connection to download them, or a sound file {place}",
            fix=f"download {weights.url} elsewhere and place it there",
        ) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a state dict from a file into a model; nothing in the file is run.

    The head stays fresh where the file has another number of classes, and a first convolution of three channels is made to
    fit. Everything else has to match.

    Args:
        model: The model.
        path: A file that ``torch.save(model.state_dict(), path)`` wrote, or a checkpoint of ``fit``.

    Raises:
        ModelError: No such file, no state dict, or one of another model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        model.load_state_dict(_fitted(model, dict(state)))
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the weights in {path} cannot be used",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:400],
            expected=f"a state dict of this {type(model).__name__}",
            fix="write it with torch.save(model.state_dict(), path)",
        ) from error


def _fitted(model: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """Returns a state dict whose head and first convolution have the shapes of the model's."""
    own = model.state_dict()
    prefix = f"{find_head(model)[0]}."
    head = [key for key in own if key.startswith(prefix)]
    if all(key in state for key in head) and any(state[key].shape != own[key].shape for key in head):
        state |= {key: own[key] for key in head}
    first = _first_convolution(model)
    if first is not None:
        key = f"{first[0]}.weight"
        found, wanted = state.get(key), own[key]
        if isinstance(found, Tensor) and found.ndim == 4 and found.shape[1] == 3 != wanted.shape[1]:
            state[key] = adapted(found, wanted.shape[1])
    return state


def adapted(weight: Tensor, in_channels: int) -> Tensor:
    """Makes the trained weights of an RGB convolution take another number of channels.

    One channel: the sum, so that a grey picture gives what it gave as RGB. More: the three repeated in order, scaled by
    ``3 / in_channels``, so that outputs keep their size. Source: ``timm.models.adapt_input_conv``.

    Args:
        weight: ``(O, 3, h, w)``.
        in_channels: The new number of channels.

    Returns:
        ``(O, in_channels, h, w)``.
    """
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // 3), 1, 1)[:, :in_channels]
    return repeated * (3 / in_channels)


def _first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    return next(((path, one) for path, one in model.named_modules() if isinstance(one, nn.Conv2d)), None)


def _change_input(model: nn.Module, in_channels: int, *, fresh: bool) -> None:
    """Replaces the first convolution by one for ``in_channels``; fresh weights have the spread that the model gave its own."""
    first = _first_convolution(model)
    if first is None or first[1].in_channels != 3:
        raise ModelError(
            f"{type(model).__name__} cannot be given {in_channels} input channels",
            got="no first convolution of three channels" if first is None else f"a first layer {first[1]}",
            expected="a convolutional model",
            fix="leave in_channels=3 and load pictures in RGB",
        )
    path, old = first
    new = like(old, in_channels=in_channels)
    with torch.no_grad():
        if fresh:
            new.weight.normal_().mul_(old.weight.std())
        else:
            new.weight.copy_(adapted(old.weight, in_channels))
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    if hasattr(model, "transform_input"):
        model.transform_input = False  # type: ignore[assignment]  # it re-normalises exactly three channels


def _small_stem(name: str, model: nn.Module) -> None:
    """Gives a ResNet a 3×3 first convolution of stride 1 and no pooling. Source: He et al., 2015, section 4.2."""
    if not isinstance(model, zoo.ResNet):
        raise ArgumentError(
            f"the model {name!r} has no small stem",
            got="stem='small'",
            expected="a ResNet of torchvision's",
            fix="leave stem out",
        )
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as the class does
    model.maxpool = nn.Identity()
