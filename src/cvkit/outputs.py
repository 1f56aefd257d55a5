"""What outputs mean: task and activation to predictions, probabilities and confidence. The only place that knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "TASKS",
    "Activation",
    "Decoded",
    "OutputSpec",
    "Task",
    "decode",
    "is_mixture",
    "task_of_outputs",
    "task_of_pair",
]

Task: TypeAlias = Literal["classification", "binary", "multilabel", "segmentation", "regression", "reconstruction"]
"""One of several classes, one of two from a single output, any of several, a class for each pixel, values, or images."""

Activation: TypeAlias = Literal["softmax", "sigmoid", "none"]
"""What makes probabilities of outputs; ``"none"`` where they are probabilities, or no probabilities are meant."""

TASKS: tuple[str, ...] = get_args(Task)
ACTIVATIONS: tuple[str, ...] = get_args(Activation)

_LABELS = ("classification", "binary", "multilabel", "segmentation")


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What is known of outputs before there are any.

    Attributes:
        task: What they are for; ``None`` where nobody has said, and shapes must tell.
        activation: What makes probabilities of them; ``None`` for what the task usually takes.
    """

    task: Task | None = None
    activation: Activation | None = None

    @property
    def threshold(self) -> float:
        """Where a single output decides between two classes: 0 for a logit, 0.5 for a probability."""
        return 0.5 if self.activation == "none" else 0.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """The outputs of ``N`` samples, read.

    Attributes:
        task: What they are.
        predictions: Class indices ``(N,)``, int64; for ``multilabel`` bool ``(N, C)``; for ``segmentation`` class indices
            ``(N, H, W)``; else the values, float32, of the outputs' shape.
        probabilities: float32 ``(N, C)``, and ``(N, C, H, W)`` for ``segmentation``; ``None`` where there are no classes.
        confidence: float32 ``(N,)``: the probability of the predicted class; for ``multilabel`` of the least certain label, for
            ``segmentation`` the mean over the pixels. ``None`` where there are no classes.
    """

    task: Task
    predictions: Tensor
    probabilities: Tensor | None = None
    confidence: Tensor | None = None

    @property
    def classes(self) -> int:
        """The number of classes, 0 where there are none."""
        return 0 if self.probabilities is None else self.probabilities.shape[1]


def decode(outputs: Tensor, spec: OutputSpec, task: Task | None = None) -> Decoded:
    """Decodes outputs into predictions, probabilities and a confidence.

    Args:
        outputs: ``(N, …)``, detached or not, on any device.
        spec: What is known of them.
        task: What they are, where :func:`task_of_outputs` or :func:`task_of_pair` have found out; by default ``spec.task``.

    Returns:
        All of it on the outputs' device, without a graph.
    """
    found = task if task is not None else spec.task or "regression"
    values = outputs.detach().float()
    if found not in _LABELS:
        return Decoded(found, values)
    chances = probabilities_of(values, replace(spec, task=found))
    if found == "multilabel":
        return Decoded(found, chances > 0.5, chances, torch.maximum(chances, 1 - chances).amin(1))
    best, index = chances.max(1)
    return Decoded(found, index, chances, best.flatten(1).mean(1) if best.ndim > 1 else best)


def probabilities_of(values: Tensor, spec: OutputSpec) -> Tensor:
    """Returns the probability of each class.

    One output a sample, or a map of one channel, stands for the second of two classes.

    Args:
        values: float32 ``(N,)``, ``(N, C, …)``.
        spec: The task, which is one of classes, and the activation.

    Returns:
        ``(N, C)``, or ``(N, C, H, W)`` for ``segmentation``.
    """
    if spec.task != "segmentation":
        values = values.flatten(1) if values.ndim > 1 else values.unsqueeze(1)
    elif values.ndim == 3:
        values = values.unsqueeze(1)
    alone = values.shape[1] == 1 and spec.task != "multilabel"
    activation = spec.activation or ("sigmoid" if spec.task in ("binary", "multilabel") else "softmax")
    if activation == "softmax" and alone:
        activation = "sigmoid"
    if activation == "softmax":
        return values.softmax(1)
    chances = values.sigmoid() if activation == "sigmoid" else values
    return torch.cat([1 - chances, chances], 1) if alone else chances


def task_of_outputs(shape: tuple[int, ...], spec: OutputSpec, classes: int | None) -> Task:
    """Returns what outputs are, from their shape and the number of classes; there need be no targets.

    Args:
        shape: ``(N, …)``.
        spec: What is known of them.
        classes: The number of classes, or ``None`` where there are none.
    """
    if spec.task in ("regression", "reconstruction", "segmentation"):
        return spec.task
    if classes is None:
        return "reconstruction" if len(shape) == 4 else "regression"
    each = torch.Size(shape[1:]).numel()
    if each == 1 and classes == 2:
        return "binary"
    if len(shape) == 4 and each != classes:
        return "segmentation"
    return "multilabel" if spec.task in ("binary", "multilabel") and spec.activation != "softmax" else "classification"


def task_of_pair(outputs: Tensor, targets: Tensor, spec: OutputSpec, inputs: Tensor | None = None) -> Task | None:
    """Returns what outputs are, from the targets that they are compared with.

    Args:
        outputs: ``(N, …)``.
        targets: ``(N, …)``.
        spec: What the loss says of them.
        inputs: What the model saw: outputs of as many values are images, flattened or not.

    Returns:
        The task; ``None`` where outputs and targets fit none.
    """
    if outputs.ndim == 0 or targets.ndim == 0 or len(outputs) != len(targets) or not outputs.is_floating_point():
        return None
    single = outputs.ndim == 1 or outputs.shape[1] == 1
    if spec.task in ("binary", "multilabel", "segmentation") and outputs.numel() == targets.numel():
        return _separate(outputs, single)
    if spec.task not in ("regression", "reconstruction") or not targets.is_floating_point():
        found = _one_class_each(outputs, targets, single)
        if found is not None:
            return found
    if outputs.numel() != targets.numel():
        return None
    images = outputs.ndim == 4 and targets.shape == outputs.shape
    flat = inputs is not None and inputs.ndim == 4 and inputs.numel() == outputs.numel()
    return "reconstruction" if images or flat else "regression"


def _separate(outputs: Tensor, single: bool) -> Task:
    """Returns the task of outputs that each have a target of their own, 0 or 1."""
    if outputs.ndim == 4:
        return "segmentation" if single else "multilabel"
    return "binary" if single and outputs.numel() == len(outputs) else "multilabel"


def _one_class_each(outputs: Tensor, targets: Tensor, single: bool) -> Task | None:
    """Returns the task of outputs of which one for each class is compared with the right class; ``None`` for others."""
    if single:
        return None
    if targets.is_floating_point():
        return (
            "classification" if outputs.ndim == 2 and outputs.shape == targets.shape and is_mixture(targets) else None
        )
    column = outputs.ndim == 2 and targets.ndim == 2 and targets.shape[1] == 1
    if outputs.ndim == 2 and (column or targets.ndim == 1):
        return "classification"
    return "segmentation" if outputs.ndim == 4 and targets.shape == outputs.shape[:1] + outputs.shape[2:] else None


def is_mixture(targets: Tensor) -> bool:
    """Whether each row ``(N, C)`` is a share of each class, as label smoothing and mixup make them."""
    sums = targets.float().sum(-1)
    return bool((targets >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
