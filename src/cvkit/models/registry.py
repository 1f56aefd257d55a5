"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torchvision
from torch import nn

from cvkit.errors import ArgumentError, ModelError, unknown_name
from cvkit.models.adapt import freeze as freeze_
from cvkit.registry import Registry

__all__ = ["create", "from_config", "names", "register"]

_builders: Registry[Callable[..., nn.Module]] = Registry("model")


def register(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Returns a decorator that files a builder under a name, for :func:`create`.

    Args:
        name: The name.

    Returns:
        A decorator for a builder ``(*, num_classes, in_channels, …) -> nn.Module``.

    Raises:
        ArgumentError: The name is taken.
    """
    return _builders.register(name)


def _torchvision_names() -> list[str]:
    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    return known


def names() -> list[str]:
    """Returns every name that :func:`create` knows: the built-in ones and torchvision's classification models."""
    return sorted({*_builders.names(), *_torchvision_names()})


def create(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool | str | Path = False,
    freeze: bool = False,
    stem: Literal["auto", "small"] = "auto",
    **kwargs: Any,
) -> nn.Module:
    """Builds a model.

    Args:
        name: A built-in name or torchvision's own; see :func:`names`.
        num_classes: Outputs.
        in_channels: Channels of the input pictures.
        pretrained: ``True`` for torchvision's default weights (downloaded once), or the path of a file with a state dict.
            The head is new where the number of classes differs.
        freeze: Whether everything but the head is frozen, batch-norm statistics too.
        stem: ``"small"`` gives a torchvision ResNet a 3×3 stem without pooling, for small pictures.
        **kwargs: Arguments of the builder, e.g. ``size=32``.

    Returns:
        The model, in training mode, with the arguments that build it again in ``model.cvkit_config``.

    Raises:
        UnknownNameError: No such model.
        ArgumentError: An argument out of range, or one that the builder does not take.
        ModelError: Weights that are not there or do not fit.
    """
    for label, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(
                f"create({name!r}): {label} cannot be used",
                got=repr(value),
                expected="1 or more",
                fix=f"pass {label}=3",
            )
    if stem not in ("auto", "small"):
        raise ArgumentError("stem cannot be used", got=repr(stem), expected='"auto" or "small"', fix="leave it out")
    arguments = {"num_classes": num_classes, "in_channels": in_channels, **kwargs}
    if name in _builders:
        model = _build(name, arguments, pretrained, stem)
    elif name in _torchvision_names():
        from cvkit.models.torchvision import build  # importing torchvision's builders takes a second

        model = build(name, pretrained=pretrained, stem=stem, **arguments)
    else:
        raise unknown_name("model", name, names())
    model.cvkit_config = {"name": name, **arguments, **({"stem": stem} if stem != "auto" else {})}  # type: ignore[assignment]
    if freeze:
        freeze_(model)
    return model


def from_config(config: Mapping[str, Any]) -> nn.Module:
    """Builds a model, without weights, from the ``cvkit_config`` of one that :func:`create` made.

    Raises:
        ModelError: No such configuration.
        UnknownNameError: A model that is not known, e.g. one registered by a script that has not been imported.
    """
    try:
        return create(**dict(config))
    except TypeError as error:
        raise ModelError(
            "this is no configuration of a model", got=dict(config), expected="model.cvkit_config"
        ) from error


def _build(name: str, arguments: dict[str, Any], pretrained: bool | str | Path, stem: str) -> nn.Module:
    builder = _builders.get(name)
    if stem != "auto":
        raise ArgumentError(f"the model {name!r} has no stem to choose", got=f"stem={stem!r}", fix="leave stem out")
    taken = inspect.signature(builder).parameters
    for key in arguments:
        if key not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            raise unknown_name(f"argument of the model {name!r}:", key, taken)
    model = builder(**arguments)
    if pretrained is True:
        raise ModelError(
            f"there are no pretrained weights for {name!r}",
            got="pretrained=True",
            expected="a model of torchvision's, or the path of a state dict",
            fix='train it from scratch, or take e.g. "resnet18"',
        )
    if pretrained:
        from cvkit.models.torchvision import load_weights

        load_weights(model, Path(pretrained))
    return model
