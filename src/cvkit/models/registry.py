"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cvkit.calls import warn
from cvkit.errors import ArgumentError, ModelError, unknown_name
from cvkit.models import configuration
from cvkit.models.adapt import append_head
from cvkit.models.adapt import freeze as freeze_
from cvkit.models.blocks import check_size, no_small_stem
from cvkit.models.weight_loading import load_weights
from cvkit.plain_values import WEIGHTS, oddity
from cvkit.registry import Registry, model_tools

__all__ = ["create", "from_config", "is_known", "names", "register"]

_builders: Registry[Callable[..., nn.Module]] = Registry("model")


def register(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Returns a decorator that files a builder under a name, for :func:`create`.

    A file may ask for the builder: :func:`cvkit.load` calls it with ``num_classes``, ``in_channels`` and those of its named
    arguments that the checkpoint describes, each a plain value that whoever wrote the file has chosen. So a builder should take
    sizes and names from a list, and should open, download and import nothing that an argument names. An argument called
    ``pretrained`` or ``weights`` is never taken from a file, nor is one that only ``**kwargs`` would take.

    Args:
        name: The name; one of torchvision's is taken over.

    Returns:
        A decorator for a builder ``(*, num_classes, in_channels, …) -> nn.Module``.

    Raises:
        ArgumentError: The name is registered already.
    """
    return _builders.register(name)


def names() -> list[str]:
    """Returns every name that :func:`create` knows: the built-in ones and torchvision's.

    timm's, where it is installed, are ``"timm:"`` and a name of ``timm.list_models()``.
    """
    from cvkit.models import torchvision as zoo  # torchvision takes seconds to import: only where a name needs it

    return sorted({*_builders.names(), *zoo.names()})


def is_known(name: str) -> bool:
    """Whether :func:`create` knows a name; of timm's models, which may not be installed, whether it begins as they do."""
    if name in _builders or name.startswith(configuration.TIMM):
        return True
    from cvkit.models import torchvision as zoo

    return name in zoo.names()


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    pretrained: bool | str | Path | Enum = False,
    freeze: bool = False,
    stem: Literal["auto", "small"] = "auto",
    **kwargs: Any,
) -> nn.Module:
    """Builds a model.

    Args:
        name: A built-in name, one of torchvision's, or ``"timm:"`` with one of timm's; see :func:`names`.
        num_classes: Outputs; maps out of a segmentation model. Every model needs it but an autoencoder.
        in_channels: Channels of the input images: 3 for RGB, 1 for grey.
        pretrained: ``True`` for torchvision's or timm's default weights (downloaded once), an entry of torchvision's weights
            enums, or the path of a file with a state dict. Where the file has another number of classes, the head is new; the
            first convolution is adapted to other channels.
        freeze: Whether everything but the head is frozen, batch-norm statistics too.
        stem: ``"small"`` takes stride and pooling out of the stem of a torchvision model, for small images (ResNet, DenseNet,
            GoogLeNet, ShuffleNet, SqueezeNet, RegNet, MobileNet, MNASNet, EfficientNet); ``"auto"`` is the model's own.
        **kwargs: Arguments of the builder, e.g. ``size=32``.

    Returns:
        The model, in training mode but for what is frozen. ``model.cvkit_config`` holds the arguments that build the same
        architecture again, so that a checkpoint can describe itself; where its weights came from is no part of that.

    Raises:
        UnknownNameError: No such model, or no such argument of its builder.
        ArgumentError: A value out of range.
        ModelError: Weights that are not there or do not fit.
        MissingDependencyError: A model of timm's, and timm is not installed.
    """
    arguments: dict[str, Any] = {"in_channels": check_size(f"create({name!r})", "in_channels", in_channels)}
    if num_classes is not None:
        arguments = {"num_classes": check_size(f"create({name!r})", "num_classes", num_classes), **arguments}
    if stem not in ("auto", "small"):
        raise unknown_name("stem", stem, ("auto", "small"))
    if stem != "auto":
        arguments["stem"] = stem
    arguments |= kwargs
    model = _build(name, arguments, pretrained)
    model.cvkit_config = _describe(name, arguments)  # type: ignore[assignment]
    return freeze_(model) if freeze else model


def from_config(config: Mapping[str, Any]) -> nn.Module:
    """Builds a model, without weights, from the ``cvkit_config`` of one that :func:`create` made.

    The configuration may come from a file that is not trusted: only arguments of an architecture are taken, from a list for
    each family of builders, and nothing is downloaded or opened. Arguments that say where weights come from are left out.

    Raises:
        ModelError: No such configuration.
        UnknownNameError: A model that is not known, e.g. one registered by a script that has not been imported, or an argument
            that is not of its architecture.
        ArgumentError: A value that the model cannot have.
    """
    name = configuration.named(config)
    arguments, appended = configuration.check(config, _builders.get(name) if name in _builders else None)
    model = create(name, **arguments)
    for outputs in appended:  # by append_head, after the model was built
        append_head(model, outputs)
    return model


@model_tools.register("arguments")
def _arguments(name: str) -> dict[str, Any]:
    """Returns the arguments that a registered builder takes, with their defaults; none of torchvision's and timm's."""
    taken = inspect.signature(_builders.get(name)).parameters if name in _builders else {}
    return {key: one.default for key, one in taken.items()}


def _build(name: str, arguments: dict[str, Any], pretrained: bool | str | Path | Enum) -> nn.Module:
    """Builds a model, and notes among the arguments what its weights decide."""
    if name in _builders:
        return _build_own(name, arguments, pretrained)
    if name.startswith(configuration.TIMM):
        from cvkit.models import timm

        _check_classes(name, arguments)
        return timm.build(name, pretrained=pretrained, **arguments)
    from cvkit.models import torchvision as zoo

    if name not in zoo.names():
        raise unknown_name("model", name, names())
    _check_classes(name, arguments)
    for key, value in zoo.settings(name, pretrained).items():
        arguments.setdefault(key, value)
    return zoo.build(name, pretrained=pretrained, **arguments)


def _build_own(name: str, arguments: dict[str, Any], pretrained: bool | str | Path | Enum) -> nn.Module:
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
            if argument == "stem" and argument not in accepted:
                raise no_small_stem(name)
            if argument not in accepted:
                raise unknown_name(f"argument of the model {name!r}:", argument, accepted)
    if "num_classes" in accepted and accepted["num_classes"].default is inspect.Parameter.empty:
        _check_classes(name, arguments)
    if "pretrained" in accepted:
        return builder(**arguments, pretrained=pretrained)
    model = builder(**arguments)
    if isinstance(pretrained, Enum):
        raise ModelError(
            f"{pretrained} are no weights of {name!r}", expected="the path of a state dict", fix="leave pretrained out"
        )
    if not isinstance(pretrained, bool):
        load_weights(model, pretrained)
    return model


def _check_classes(name: str, arguments: Mapping[str, Any]) -> None:
    if "num_classes" not in arguments:
        raise ArgumentError(
            f"create({name!r}) needs num_classes",
            got="no number of outputs",
            expected="as many as there are classes, 1 for a regression of one number",
            fix=f"create({name!r}, num_classes=len(data.classes))",
        )


def _describe(name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the arguments of the architecture; None, with a warning, where one of them could not be read from a file."""
    known = configuration.takes(name, _builders.get(name) if name in _builders else None)
    plain = {key: _listed(value) for key, value in arguments.items() if key not in WEIGHTS}
    odd = [key for key, value in plain.items() if key not in known or oddity(value) is not None]
    if odd:
        warn(
            f"create({name!r}): checkpoints of this model will not describe it, because of {', '.join(odd)}=…; "
            "they load into a model that you build yourself"
        )
        return None
    return {"name": name, **plain}


def _listed(value: object) -> object:
    """Returns tuples as lists, on every level."""
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value
