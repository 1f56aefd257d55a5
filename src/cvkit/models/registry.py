"""Models by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cvkit.errors import ArgumentError, CvkitWarning, ModelError, unknown_name
from cvkit.models.adapt import freeze as freeze_
from cvkit.registry import Registry

__all__ = ["create", "from_config", "names", "register"]

_builders: Registry[Callable[..., nn.Module]] = Registry("model")


def register(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Returns a decorator that files a builder under a name, for :func:`create`.

    Args:
        name: The name; one of torchvision's is taken over.

    Returns:
        A decorator for a builder ``(*, num_classes, in_channels, …) -> nn.Module``.

    Raises:
        ArgumentError: The name is registered already.
    """
    return _builders.register(name)


def names() -> list[str]:
    """Returns every name that :func:`create` knows: the built-in ones and torchvision's classification models."""
    from cvkit.models import torchvision as zoo  # torchvision takes seconds to import: only where a name needs it

    return sorted({*_builders.names(), *zoo.names()})


def create(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool | str | Path | Enum = False,
    freeze: bool = False,
    stem: Literal["auto", "small"] = "auto",
    **kwargs: Any,
) -> nn.Module:
    """Builds a model.

    Args:
        name: A built-in name or torchvision's own; see :func:`names`.
        num_classes: Outputs.
        in_channels: Channels of the input pictures: 3 for RGB, 1 for grey.
        pretrained: ``True`` for torchvision's default weights (downloaded once), an entry of its weights enums, or the path of
            a file with a state dict. Where the file has another number of classes, the head is new.
        freeze: Whether everything but the head is frozen, batch-norm statistics too.
        stem: ``"small"`` gives a torchvision ResNet a fresh 3×3 stem of stride 1 without pooling, for small pictures;
            ``"auto"`` is the model's own.
        **kwargs: Arguments of the builder, e.g. ``size=32``.

    Returns:
        The model, in training mode but for what is frozen. ``model.cvkit_config`` holds the arguments that build the same
        architecture again, so that a checkpoint can describe itself.

    Raises:
        UnknownNameError: No such model, or no such argument of its builder.
        ArgumentError: A value out of range.
        ModelError: Weights that are not there or do not fit.
    """
    for label, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(
                f"create({name!r}): {label} cannot be used",
                got=repr(value),
                expected="a whole number of 1 or more",
                fix=f"pass e.g. {label}=3",
            )
    if stem not in ("auto", "small"):
        raise unknown_name("stem", stem, ("auto", "small"))
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    if stem != "auto":
        arguments["stem"] = stem
    arguments |= kwargs
    if name in _builders:
        model = _build(name, arguments, pretrained)
    else:
        from cvkit.models import torchvision as zoo

        if name not in zoo.names():
            raise unknown_name("model", name, names())
        model = zoo.build(name, pretrained=pretrained, **arguments)
    model.cvkit_config = _describe(name, arguments)  # type: ignore[assignment]
    return freeze_(model) if freeze else model


def from_config(config: Mapping[str, Any]) -> nn.Module:
    """Builds a model, without weights, from the ``cvkit_config`` of one that :func:`create` made.

    Raises:
        ModelError: No such configuration.
        UnknownNameError: A model that is not known, e.g. one registered by a script that has not been imported.
    """
    if "name" not in config or "num_classes" not in config:
        raise ModelError(
            "this is no configuration of a model",
            got=dict(config),
            expected="name, num_classes and the builder's arguments",
            fix="pass model.cvkit_config of a model that cvkit.models.create made",
        )
    return create(**dict(config))


def _build(name: str, arguments: dict[str, Any], pretrained: bool | str | Path | Enum) -> nn.Module:
    """Builds a registered model, with arguments that its builder takes."""
    builder = _builders.get(name)
    accepted = inspect.signature(builder).parameters
    if pretrained is True and "pretrained" not in accepted:
        raise ModelError(
            f"there are no pretrained weights for {name!r}",
            got="pretrained=True",
            expected="a model of torchvision's, or the path of a state dict",
            fix='train it from scratch, or take e.g. "resnet18"',
        )
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        for argument in arguments:
            if argument not in accepted:
                raise unknown_name(f"argument of the model {name!r}:", argument, accepted)
    if "pretrained" in accepted:
        return builder(**arguments, pretrained=pretrained)
    model = builder(**arguments)
    if isinstance(pretrained, Enum):
        raise ModelError(
            f"{pretrained} are no weights of {name!r}", expected="the path of a state dict", fix="leave pretrained out"
        )
    if not isinstance(pretrained, bool):
        from cvkit.models.torchvision import load_weights

        load_weights(model, Path(pretrained))
    return model


def _describe(name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the arguments as plain types; None, with a warning, where one of them has no plain form."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    odd = [key for key, value in plain.items() if not _is_plain(value)]
    if odd:
        warnings.warn(
            f"create({name!r}): checkpoints of this model will not describe it, because of {', '.join(odd)}=…; "
            "they load into a model that you build yourself",
            CvkitWarning,
            stacklevel=3,
        )
        return None
    return {"name": name, **plain}


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)
