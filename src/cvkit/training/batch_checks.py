"""Whether a batch, a layer, the outputs and the targets fit each other; what to do where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from cvkit.errors import PreflightError
from cvkit.losses import ALIGNED, align
from cvkit.numbering import classes_keyword, known_classes, text_among
from cvkit.registry import model_tools
from cvkit.training.state import TrainState

__all__ = ["check_batch", "check_outputs", "expects", "in_order", "mend", "shape", "text_labels"]

_BROADCAST = (
    *(*ALIGNED, "MSELoss", "L1Loss", "SmoothL1Loss", "KLDivLoss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div"),
)


def check_batch(name: str, loader: Any, batch: Any) -> None:
    """Refuses a batch that the usual step cannot take.

    Args:
        name: ``"train"`` or ``"val"``.
        loader: What gave it.
        batch: What it gave.

    Raises:
        PreflightError: No pair, a single sample, labels that are text, or inputs that are no floating-point tensors.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise PreflightError(
            f"a batch of {name} is not (inputs, targets)",
            got=type(batch).__name__
            + (f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else "")
            + (f", {shape(batch)}" if isinstance(batch, Tensor) else ""),
            expected="a pair of tensors",
            fix=(
                "wrap inputs and targets: DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True); or "
                if isinstance(batch, Tensor)
                else ""
            )
            + "pass step=…: a function (model, batch, state) -> loss, or (loss, outputs, targets)",
        )
    inputs, targets = batch
    if _is_sample(loader, inputs, targets):
        raise PreflightError(
            f"{name} gives single samples, not batches",
            got=f"{type(loader).__name__}, whose first item is {shape(batch)}",
            expected="a loader, which makes batches of a dataset",
            fix="wrap the dataset: cvkit.data.Loader(dataset, batch_size=64, shuffle=True, transform=…) or torch's DataLoader",
        )
    if (found := text_labels(name, loader, batch)) is not None:
        raise found
    if isinstance(inputs, np.ndarray) or isinstance(targets, np.ndarray):
        raise PreflightError(
            f"the batches of {name} are NumPy arrays",
            got=shape(batch),
            expected="tensors",
            fix="convert them: torch.from_numpy(array); or cvkit.data.Loader(cvkit.data.ArrayDataset(images, targets), …)",
        )
    if isinstance(inputs, Tensor) and inputs.dtype == torch.uint8:
        raise PreflightError(
            f"the inputs of {name} are integers, as images are on disk",
            got=shape(inputs),
            expected="floating-point inputs, normalised",
            fix="give the loader a transform preset, or convert: images.float() / 255",
        )


def _is_sample(loader: Any, inputs: Any, targets: Any) -> bool:
    """Whether a pair is one sample of a dataset."""
    if isinstance(inputs, Image.Image) or isinstance(targets, int | float | str | np.generic):
        return True
    holds_samples = hasattr(loader, "__getitem__") and not isinstance(loader, list | tuple)
    return holds_samples and isinstance(targets, Tensor) and targets.ndim == 0


def text_labels(name: str, loader: Any, batch: Any) -> PreflightError | None:
    """Returns the error on a batch ``(inputs, targets)`` whose targets are labels as text; ``None`` where they are not."""
    labels = text_among(batch[1]) if isinstance(batch, tuple | list) and len(batch) == 2 else []
    return _text(name, loader, labels) if labels else None


def _text(name: str, loader: Any, labels: list[str]) -> PreflightError:
    dataset = getattr(loader, "dataset", None)
    classes = classes_keyword(labels, known_classes(dataset))
    place = "in the dataset, " if isinstance(loader, DataLoader) else ""
    return PreflightError(
        f"the targets of {name} are labels as text",
        got=", ".join(map(repr, labels[:5])) + (", …" if labels[5:] else ""),
        expected="the number of each sample's class",
        fix=f"number them: {place}with {classes} for all classes, return classes.index(label) instead of the label; or take "
        f"cvkit.data.Loader(dataset, batch_size=…, {classes}), which numbers them",
    )


def in_order(loader: Any) -> list[str]:
    """Returns a note where samples come class by class: a batch then shows one class, and the model forgets the others."""
    shuffled = (
        not isinstance(loader.sampler, SequentialSampler)
        if isinstance(loader, DataLoader)
        else getattr(loader, "shuffle", None)
    )
    targets = getattr(getattr(loader, "dataset", None), "targets", None)
    size = getattr(loader, "batch_size", None)
    if shuffled is not False or getattr(loader, "weights", None) is not None or targets is None or not size:
        return []
    targets = targets.tolist() if isinstance(targets, Tensor | np.ndarray) else list(targets)
    if len(targets) <= size or not any(all(isinstance(one, kind) for one in targets) for kind in (int, str)):
        return []
    if targets != sorted(targets) or targets[0] == targets[-1]:
        return []
    return [
        "the training samples come class by class: the dataset is in the order of its classes, and the loader does not "
        "shuffle; pass shuffle=True to the loader"
    ]


def expects(module: nn.Module, args: tuple[Any, ...]) -> str:
    """Returns what a layer takes."""
    if (other := _other_dtype(module, args)) is not None:
        return f"{_dtype(other)}, as its weights are"
    if isinstance(module, nn.Linear):
        return f"(N, …, {module.in_features}), which is its in_features"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return f"(N, {module.in_channels}, …), which is its in_channels"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return f"(N, {module.num_features}, …) with more than one value a channel"
    return f"what {module} takes"


def mend(path: str, module: nn.Module, args: tuple[Any, ...], model: nn.Module, batch: Any) -> str:
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
    return "compare the layer's shape with that of the data"


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


def check_outputs(name: str, state: TrainState, outputs: Any, targets: Any) -> None:
    """Refuses outputs and targets that do not fit each other, or would be broadcast.

    Args:
        name: ``"train"`` or ``"val"``.
        state: The run.
        outputs: What the model gave.
        targets: What came with the inputs.

    Raises:
        PreflightError: They do not fit.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        raise PreflightError(
            f"the model's outputs or the targets of {name} are no tensors",
            got=f"outputs: {shape(outputs)}; targets: {shape(targets)}",
            expected="one tensor each",
            fix="end the model's forward with return …"
            if outputs is None
            else "pass step=…: a function (model, batch, state) -> (loss, outputs, targets) that picks out what the loss needs",
        )
    if state.engine.loss_spec.spec.task == "classification":
        _check_classes(name, outputs, targets, state)
        return
    aligned = align(outputs, targets) if state.engine.loss_spec.name in ALIGNED else (outputs, targets)
    if state.engine.loss_spec.name in _BROADCAST and aligned[0].shape != aligned[1].shape:
        indices = outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
        raise PreflightError(
            f"outputs and targets of {name} would be broadcast against each other: the loss would be silently wrong",
            got=f"outputs {shape(outputs)}, targets {shape(targets)}",
            expected="the same shape",
            fix='take loss="cross_entropy" for class indices'
            if indices and outputs.shape[1] > 1
            else 'reshape one of them; loss="mse", "l1", "smooth_l1" and "bce" by name align (N, 1) with (N,) themselves',
        )


def _check_classes(name: str, outputs: Tensor, targets: Tensor, state: TrainState) -> None:
    classes = outputs.shape[1] if outputs.ndim > 1 else 0
    if targets.is_floating_point():
        if targets.shape == outputs.shape:
            return
        raise PreflightError(
            f"the targets of {name} do not fit a classification loss",
            got=f"targets {shape(targets)}, outputs {shape(outputs)}",
            expected="class indices (int64) or probabilities of the outputs' shape",
            fix='convert the targets to int64, or take loss="mse" for a regression',
        )
    wanted = (outputs.shape[0], *outputs.shape[2:])
    if outputs.ndim < 2 or tuple(targets.shape) != wanted:
        raise PreflightError(
            f"outputs and targets of {name} do not fit each other",
            got=f"outputs {shape(outputs)}, targets {shape(targets)}",
            expected=f"logits (N, C, …) and class indices {wanted if outputs.ndim > 1 else '(N,)'}",
            fix=_reshape(outputs, targets),
        )
    if targets.dtype not in (torch.int64, torch.uint8):
        raise PreflightError(
            f"the targets of {name} do not fit a classification loss",
            got=f"targets {shape(targets)}",
            expected="class indices as int64",
            fix="convert them: targets.long()",
        )
    known = len(state.engine.train.said("classes") or ())
    _check_range(name, classes, targets[targets != state.engine.loss_spec.ignore_index], known)


def _reshape(outputs: Tensor, targets: Tensor) -> str:
    if targets.shape == outputs.shape:
        return "the targets look one-hot: pass targets.argmax(1), or targets.float() for probabilities"
    if targets.ndim == 2 and targets.shape[1] == 1:
        return "end the model in one output a class, and squeeze the targets' last dimension"
    if targets.ndim == 3 and outputs.ndim == 2:
        return 'the targets are masks: take a model for segmentation, e.g. create("unet", …)'
    if targets.ndim == 1 and outputs.ndim > 2:
        return "end the model in one output a class: pool or flatten before its last layer"
    return "end the model in one output a class"


def _check_range(name: str, classes: int, targets: Tensor, known: int) -> None:
    low, high = (int(targets.min()), int(targets.max())) if targets.numel() else (0, 0)
    if low >= 0 and high < classes and known <= classes:
        return
    needed = max(high + 1, known)
    fix = f"create the model with num_classes={needed}" if low >= 0 else "count the classes from 0"
    if low > 0 and high == classes and not known:
        fix += "; or, if the classes are counted from 1, subtract 1 from the targets"
    raise PreflightError(
        f"the model has {classes} outputs and the targets of {name} need {needed}",
        got=f"class indices from {low} to {high}" + (f", {known} classes in the data" if known else ""),
        expected=f"indices from 0 to {classes - 1}",
        fix=fix,
    )


def shape(value: Any) -> str:
    """Returns a short description of what a batch holds."""
    if isinstance(value, Tensor):
        return f"{_dtype(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, list | tuple) and len(value) <= 4:
        return f"({', '.join(shape(one) for one in value)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shape(one)}" for key, one in list(value.items())[:6]) + "}"
    return type(value).__name__


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
