"""What a layer takes, and what to do where it is given something else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cvkit.diagnosis.shapes import dtype_name
from cvkit.registry import model_tools

__all__ = ["expects", "mend"]


def expects(module: nn.Module, args: tuple[Any, ...]) -> str:
    """Returns what a layer takes."""
    if (other := _other_dtype(module, args)) is not None:
        return f"{dtype_name(other)}, as its weights are"
    if isinstance(module, nn.Linear):
        return f"(N, …, {module.in_features}), which is its in_features"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return f"(N, {module.in_channels}, …), which is its in_channels"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return f"(N, {module.num_features}, …) with more than one value a channel"
    return f"what {module} takes"


def mend(path: str, module: nn.Module, args: tuple[Any, ...], model: nn.Module, batch: Any) -> str | None:
    """Returns what to do about a layer that refused its input.

    Args:
        path: The layer's name.
        module: The layer.
        args: What it was given.
        model: The model that it belongs to.
        batch: The batch that went into the model.
    """
    given = args[0] if args and isinstance(args[0], Tensor) else None
    if (other := _other_dtype(module, args)) is not None:
        how = "inputs.float()" if other == torch.float32 else f"inputs.to({other})"
        return f"convert the inputs: {how} (NumPy's numbers are float64)"
    if given is not None and isinstance(module, nn.modules.batchnorm._BatchNorm) and given.shape[0] == 1:
        return "batch norm needs more than one sample in training: a larger batch_size, or drop_last=True"
    conv = module if isinstance(module, nn.Conv2d) and given is not None and given.ndim == 4 else None
    if given is not None and conv is not None and given.shape[1] != conv.in_channels == given.shape[3]:
        return "put the channels first: inputs.permute(0, 3, 1, 2)"
    if (built := _as_built(model, batch)) is not None:
        return built
    if given is not None and isinstance(module, nn.Linear) and (flat := _unflattened(path, module, given)) is not None:
        return flat
    if given is not None and isinstance(module, nn.Linear) and given.shape[-1] != module.in_features:
        return (
            f"build {path} with in_features={given.shape[-1]}, or feed images of the size that the model was built for"
        )
    if given is not None and conv is not None and given.shape[1] != conv.in_channels:
        channels = f"{conv.in_channels} channel" + ("s" if conv.in_channels > 1 else "")
        how = (
            f" (channels={module.in_channels} in a preset of cvkit.transforms)" if module.in_channels in (1, 3) else ""
        )
        return f"build the model with in_channels={given.shape[1]}, or load images with {channels}{how}"
    return None


def _unflattened(path: str, module: nn.Linear, given: Tensor) -> str | None:
    """Returns what to do where images reach a linear layer."""
    if given.ndim < 3:
        return None
    each = torch.Size(given.shape[1:]).numel()
    flatten = f"put nn.Flatten() (or x.flatten(1)) before {path or 'it'}"
    if each == module.in_features:
        return f"{flatten}: each sample is {tuple(given.shape[1:])}, which are {each} values"
    if given.ndim == 4:
        return f"{flatten} and build it with in_features={each}"
    return None


def _as_built(model: nn.Module, batch: Any) -> str | None:
    """Returns which arguments build a model of :func:`cvkit.models.create` for a batch, where others have built it."""
    config = getattr(model, "cvkit_config", None)
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(config, dict) or not isinstance(inputs, Tensor) or "arguments" not in model_tools:
        return None
    has = model_tools.get("arguments")(config["name"]) | config
    if isinstance(sides := has.get("size"), list):
        has["size"] = sides[0] if sides[0] == sides[-1] else tuple(sides)
    fits: dict[str, Any] = {}
    if inputs.ndim == 4:
        _, channels, height, width = inputs.shape
        fits = {"in_channels": channels, "size": height if height == width else (height, width)}
    elif inputs.ndim == 2:
        fits = {"in_features": inputs.shape[1]}
    other = [key for key, value in fits.items() if key in has and has[key] != value]
    if not other:
        return None
    now, then = (", ".join(f"{key}={values[key]}" for key in other) for values in (fits, has))
    built = "for images" if has.get("in_features", "") is None and inputs.ndim == 2 else f"with {then}"
    return f"build the model for these inputs: create({config['name']!r}, …, {now}); it was built {built}"


def _other_dtype(module: nn.Module, args: tuple[Any, ...]) -> torch.dtype | None:
    """Returns the type of a layer's weights where the input has another one."""
    weight, given = getattr(module, "weight", None), args[0] if args else None
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
    if not isinstance(module, kinds) or not isinstance(weight, Tensor) or not isinstance(given, Tensor):
        return None
    return weight.dtype if weight.dtype != given.dtype else None
