"""torchvision's classification and segmentation models, by their own names, for any number of classes and input channels."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models.segmentation.lraspp import LRASPPHead

from cvkit.errors import ArgumentError, ModelError, unknown_name
from cvkit.models.adapt import like
from cvkit.models.blocks import no_small_stem
from cvkit.models.weight_loading import fill, first_convolution
from cvkit.serialization import state_dicts

__all__ = ["Segmenter", "build", "names", "settings"]

_STEMS: dict[type[nn.Module], tuple[str, str | None]] = {
    zoo.ResNet: ("conv1", "maxpool"),
    zoo.DenseNet: ("features.conv0", "features.pool0"),
    zoo.GoogLeNet: ("conv1.conv", "maxpool1"),
    zoo.ShuffleNetV2: ("conv1.0", "maxpool"),
    zoo.SqueezeNet: ("features.0", "features.2"),
    zoo.RegNet: ("stem.0", None),
    zoo.MobileNetV2: ("features.0.0", None),
    zoo.MobileNetV3: ("features.0.0", None),
    zoo.EfficientNet: ("features.0.0", None),
    zoo.MNASNet: ("layers.0", None),
}
"""Where a family's first convolution is, of stride 2 in all of them, and the pooling behind it, if there is any."""


def names() -> list[str]:
    """Returns the names of torchvision's classification and segmentation models."""
    return sorted([*zoo.list_models(module=zoo), *_segmentation()])


def _segmentation() -> list[str]:
    known: list[str] = zoo.list_models(module=zoo.segmentation)
    return known


class Segmenter(nn.Module):
    """A segmentation network of torchvision's that returns a tensor: ``(N, C, H, W)`` to logits ``(N, num_classes, H, W)``.

    The names of its weights are torchvision's. With an auxiliary head, and in training only, it returns torchvision's
    dictionary ``{"out": …, "aux": …}`` of two such tensors.

    Args:
        model: The network, whose parts are taken over.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone: nn.Module = model.get_submodule("backbone")
        self.classifier: nn.Module = model.get_submodule("classifier")
        self.aux_classifier: nn.Module | None = getattr(model, "aux_classifier", None)
        self._takes_all = isinstance(model.classifier, LRASPPHead)  # fine features too, the others the last only

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Returns the logits of each pixel."""
        features = self.backbone(x)
        out = _enlarged(self.classifier(features if self._takes_all else features["out"]), x)
        if self.aux_classifier is None or not self.training:
            return out
        return {"out": out, "aux": _enlarged(self.aux_classifier(features["aux"]), x)}


def _enlarged(logits: Tensor, images: Tensor) -> Tensor:
    return nn.functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


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

    Auxiliary classifiers are left out unless asked for (GoogLeNet's and Inception's with ``aux_logits=True``, a segmentation
    network's with ``aux_loss=True``): with them a model returns several tensors in training, and needs a ``step`` that knows
    what to do with them, e.g.::

        def step(model, batch, state):
            images, masks = batch
            outputs = model(images)
            if isinstance(outputs, dict):  # in training
                aux, outputs = outputs["aux"], outputs["out"]
                return F.cross_entropy(outputs, masks) + 0.4 * F.cross_entropy(aux, masks), outputs, masks
            return F.cross_entropy(outputs, masks), outputs, masks

    Args:
        name: torchvision's name.
        num_classes: Outputs.
        in_channels: Channels of the input images. Where it is not 3 the first convolution is new; pretrained weights go into
            it as :func:`cvkit.models.adapt_input` says.
        pretrained: ``False``, ``True`` for the default weights, an entry of the model's weights enum, or the path of a
            state dict. A segmentation network takes weights of its backbone as well, e.g. ``ResNet50_Weights.IMAGENET1K_V2``.
        stem: ``"small"`` for a first convolution of stride 1 without pooling: one larger than 3×3 becomes a fresh one of
            3×3, others keep their weights.
        **kwargs: torchvision's own arguments.

    Raises:
        UnknownNameError: An argument that torchvision's builder does not take.
        ArgumentError: Values that torchvision refuses, or a stem that the model does not have.
        ModelError: Weights that cannot be had or do not fit.
    """
    if {"weights", "weights_backbone", "progress"} & kwargs.keys():
        raise ArgumentError(
            f"create({name!r}): weights are not named like that here",
            got=", ".join(sorted(kwargs)),
            expected="pretrained=True, pretrained=an entry of torchvision's weights enums, or pretrained=a file",
            fix="pass pretrained",
        )
    weights = _weights(name, pretrained)
    model = _make(name, num_classes, in_channels, fresh=pretrained is False, kwargs=kwargs)
    new = _small_stem(name, model) if stem == "small" else None
    if in_channels != 3:
        _change_input(model, in_channels)
    if weights is not None:
        _load(model, _downloaded(name, weights), f"{weights}", new)
    elif isinstance(pretrained, str | Path):
        path = Path(pretrained).expanduser()
        _load(model, state_dicts.read(path), str(path), new)
    return model


def settings(name: str, pretrained: bool | str | Path | Enum) -> dict[str, Any]:
    """Returns the arguments that torchvision takes from weights, which a configuration has to hold as well.

    Vision transformers are of the images' size that they were trained on.
    """
    weights = _weights(name, pretrained)
    if weights is None or not name.startswith("vit_") or weights.meta["min_size"] == (224, 224):
        return {}
    return {"image_size": weights.meta["min_size"][0]}


def _weights(name: str, pretrained: bool | str | Path | Enum) -> zoo.WeightsEnum | None:
    """Returns the entry of torchvision's weights that is meant, if one is."""
    if isinstance(pretrained, bool | str | Path):
        return zoo.get_model_weights(name).DEFAULT if pretrained is True else None
    entries: dict[str, Any] = {str(one): one for one in zoo.get_model_weights(name)}
    if isinstance(pretrained, zoo.WeightsEnum) and (str(pretrained) in entries or name in _segmentation()):
        return pretrained
    raise ArgumentError(
        f"create({name!r}): pretrained cannot be used",
        got=pretrained,
        expected=f"True, the path of a file, or one of {', '.join(entries)}",
        fix="pretrained=True takes the best of them",
    )


def _make(name: str, num_classes: int, in_channels: int, *, fresh: bool, kwargs: Mapping[str, Any]) -> nn.Module:
    """Makes a model with weights of its own."""
    if name in _segmentation():
        takes = {"aux_loss"} - ({"aux_loss"} if name.startswith("lraspp") else set())
        for argument in kwargs:  # torchvision takes any, and does nothing about it
            if argument not in takes:
                raise unknown_name(f"argument of the model {name!r}:", argument, {*takes, "num_classes", "in_channels"})
        return Segmenter(_call(name, {"weights": None, "weights_backbone": None, "num_classes": num_classes, **kwargs}))
    defaults: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # transform_input as with torchvision's weights, so that a model built again from its configuration computes the same
        defaults = {"transform_input": in_channels == 3, "aux_logits": False, "init_weights": fresh}
    return _call(name, {"weights": None, "num_classes": num_classes, **defaults, **kwargs})


def _call(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Calls torchvision's builder; arguments that it does not take are answered with those that it does."""
    try:
        model: nn.Module = zoo.get_model(name, **arguments)
    except (TypeError, ValueError) as error:
        accepted = _accepted(name)
        fixed = re.search(r"multiple values for (?:keyword )?argument '(\w+)'", str(error))
        if fixed is not None:
            raise ArgumentError(
                f"{name!r} has a {fixed[1]} of its own",
                got=f"{fixed[1]}={arguments.get(fixed[1])!r}",
                expected=f"other arguments than those that make it {name!r}",
                fix="leave it out, or build the class of torchvision's yourself: fit takes any module",
            ) from error
        for argument in arguments.keys() - {"weights"}:
            if argument not in accepted:
                raise unknown_name(f"argument of the model {name!r}:", argument, accepted) from error
        raise ArgumentError(
            f"torchvision cannot build {name!r} with these arguments",
            got=arguments,
            expected=f"values that it takes for {', '.join(sorted(accepted))}",
            fix=error,
        ) from error
    if isinstance(model, zoo.MNASNet):
        model.__class__ = _MNASNet
    return model


class _MNASNet(zoo.MNASNet):  # type: ignore[misc]  # torchvision has no types
    """A MNASNet that loads a plain dictionary too; torchvision's asks for the version that ``state_dict()`` carries along."""

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, {"version": self._version, **metadata}, *rest)


def _accepted(name: str) -> set[str]:
    """Returns the keyword arguments of a builder of torchvision's, those that it hands on to the class included."""
    signature = inspect.signature(zoo.get_model_builder(name))
    taken = list(signature.parameters.values())
    if isinstance(signature.return_annotation, type):
        taken += inspect.signature(signature.return_annotation).parameters.values()
    optional = {one.name for one in taken if one.default is not one.empty and one.kind is not one.VAR_KEYWORD}
    return {*optional, "num_classes", "in_channels"} - {"progress", "weights"}


def _downloaded(name: str, weights: zoo.WeightsEnum) -> dict[str, Any]:
    """Returns torchvision's weights, downloaded if they are not there yet; nothing in the file is run."""
    try:
        state: dict[str, Any] = weights.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise ModelError(
            f"the pretrained weights of {name!r} are not to be had",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected=f"a connection to download them, or a sound file {place}",
            fix=f"download {weights.url} elsewhere and place it there",
        ) from error
    return state


def _load(model: nn.Module, state: Mapping[str, Any], source: str, new: str | None) -> None:
    """Loads weights; those of a backbone alone go into it, and the rest of a segmentation network stays fresh."""
    if isinstance(model, Segmenter):
        own = model.state_dict()
        below = {f"backbone.{state_dicts.bare(key).removeprefix('features.')}": value for key, value in state.items()}
        inside = {key for key in own if key.startswith("backbone.")}
        if inside <= below.keys():
            state = {key: below[key] if key in inside else value for key, value in own.items()}
    fill(model, state, source=source, fresh=[new] if new is not None else [])


def _change_input(model: nn.Module, in_channels: int) -> None:
    """Replaces the first convolution by a fresh one for ``in_channels``, of the spread that the model gave its own."""
    first = first_convolution(model)
    if first is None:
        raise ModelError(
            f"{type(model).__name__} cannot be given {in_channels} input channels",
            got="no convolution",
            expected="a convolutional model",
            fix="leave in_channels=3 and load images in RGB",
        )
    path, old = first
    new = like(old, in_channels=in_channels)
    with torch.no_grad():
        new.weight.normal_().mul_(old.weight.std())
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    _put(model, path, new)
    if hasattr(model, "transform_input"):
        model.transform_input = False  # type: ignore[assignment]  # it re-normalises exactly three channels


def _put(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _small_stem(name: str, model: nn.Module) -> str | None:
    """Takes stride and pooling out of a model's stem. Source: He et al., 2015, section 4.2.

    Returns:
        The name of the first convolution's weight, where it is another than the model's own.
    """
    body = model.backbone if isinstance(model, Segmenter) else model
    places: tuple[str, str | None]
    if isinstance(model, Segmenter):
        places = ("conv1", "maxpool") if hasattr(body, "conv1") else ("0.0", None)
    else:
        places = next((places for family, places in _STEMS.items() if isinstance(model, family)), ("", None))
    path, pool = places
    old = body.get_submodule(path)
    if not isinstance(old, nn.Conv2d):  # the model itself, where it is of no such family
        raise no_small_stem(name)
    if pool is not None:
        _put(body, pool, nn.Identity())
    if old.kernel_size == (3, 3):
        old.stride, old.padding = (1, 1), (1, 1)
        return None
    layer = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=old.bias is not None)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _put(body, path, layer)
    return f"{'backbone.' if isinstance(model, Segmenter) else ''}{path}.weight"
