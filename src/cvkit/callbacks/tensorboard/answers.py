"""What the outputs of a batch say beside what would have been right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cvkit.losses import Loss
from cvkit.outputs import Task, decode, task_of_pair
from cvkit.training.state import TrainState

__all__ = ["Answers", "class_names", "first_tensor", "read"]


@dataclass(frozen=True, slots=True)
class Answers:
    """The outputs of ``N`` samples beside what would have been right.

    Attributes:
        task: What they are.
        predicted: As :class:`cvkit.outputs.Decoded` has it; values and images in the shape in which they are compared.
        truth: The same of the targets.
        scores: Probabilities ``(N, C)``; ``None`` for masks, values and images.
        classes: ``C``, where there are classes.
    """

    task: Task
    predicted: Tensor
    truth: Tensor
    scores: Tensor | None = None
    classes: int = 0


def read(outputs: Any, targets: Any, loss: Loss, inputs: Tensor | None = None) -> Answers | None:
    """Reads outputs and targets by their shapes, types and loss.

    Args:
        outputs: What the model gave.
        targets: What would have been right.
        loss: The run's loss, which tells a logit from a number.
        inputs: What the model saw: outputs of its size, flattened or not, are images.

    Returns:
        The answers, or ``None`` for something that has no task.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return None
    targets = targets.detach()
    task = task_of_pair(outputs, targets, loss.spec, inputs)
    if task is None:
        return None
    found = decode(outputs, loss.spec, task)
    if task == "regression":
        count = len(outputs)
        return Answers(task, found.predictions.reshape(count, -1), targets.float().reshape(count, -1))
    if task == "reconstruction":
        shape = outputs.shape if outputs.ndim == 4 or inputs is None else inputs.shape
        return Answers(task, found.predictions.reshape(shape), targets.float().reshape(shape))
    scores = None if task == "segmentation" else found.probabilities
    return Answers(task, found.predictions, _true_classes(targets, found.predictions, task), scores, found.classes)


def _true_classes(targets: Tensor, predicted: Tensor, task: Task) -> Tensor:
    """Returns targets in the form of the predictions: class indices, or which labels hold."""
    if task == "multilabel":
        return targets.reshape(predicted.shape) > 0.5
    if targets.is_floating_point() and targets.numel() != predicted.numel():
        return targets.argmax(1)  # a share of each class
    values = targets.reshape(predicted.shape)
    return (values > 0.5).long() if values.is_floating_point() else values.long()


def first_tensor(batch: Any) -> Tensor | None:
    """Returns the first tensor in a batch of any shape: the inputs, as batches are usually made."""
    if isinstance(batch, Tensor):
        return batch
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return next((found for found in map(first_tensor, parts) if found is not None), None)


def class_names(state: TrainState, count: int) -> list[str]:
    """Returns the name of each class: those of the data where they fit the outputs, else numbers."""
    for loader in (state.val, state.train):
        names = getattr(loader, "classes", None)
        names = getattr(getattr(loader, "dataset", None), "classes", None) if names is None else names
        if names is not None and len(names) == count:
            return [" ".join(str(name).split()) for name in names]
    return [str(index) for index in range(count)]
