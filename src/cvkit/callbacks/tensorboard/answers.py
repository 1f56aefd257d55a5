"""What the outputs of a batch say, in the terms of its task: classes, labels, masks, images or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from cvkit.losses import Loss
from cvkit.training.state import TrainState

__all__ = ["Answers", "class_names", "first_tensor", "read"]

Task: TypeAlias = Literal["classes", "binary", "labels", "masks", "images", "numbers"]

_BINARY = ("bce", "BCEWithLogitsLoss", "BCELoss", "binary_cross_entropy_with_logits", "binary_cross_entropy")
_OVERLAP = ("dice",)


@dataclass(frozen=True, slots=True)
class Answers:
    """The outputs of ``N`` samples beside what would have been right.

    Attributes:
        task: ``"classes"`` (one of several), ``"binary"`` (one of two, from one output), ``"labels"`` (any of several),
            ``"masks"`` (a class for each pixel), ``"images"``, or ``"numbers"``.
        predicted: Class indices ``(N,)``; for labels bool ``(N, C)``; for masks ``(N, H, W)``; else what the model gave.
        truth: The same of the targets.
        scores: Probabilities ``(N, C)`` of classes and labels, ``(N, 2)`` for binary; ``None`` for anything else.
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
        The answers, or ``None`` for something that is none of the above.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or outputs.ndim == 0:
        return None
    outputs, targets = outputs.detach(), targets.detach()
    if not outputs.is_floating_point() or targets.ndim == 0 or len(outputs) != len(targets):
        return None
    outputs = outputs.float()
    if loss.name in (*_BINARY, *_OVERLAP) and _one_each(outputs, targets):
        return _yes_or_no(outputs, targets, loss)
    if loss.name in _BINARY and outputs.shape == targets.shape and outputs.ndim == 2:
        scores = _probabilities(outputs, loss)
        return Answers("labels", scores > 0.5, targets > 0.5, scores, outputs.shape[1])
    if not targets.is_floating_point():
        return _of_classes(outputs, targets)
    if outputs.ndim == 2 and outputs.shape == targets.shape and outputs.shape[1] > 1 and _shares(targets):
        return Answers("classes", outputs.argmax(1), targets.argmax(1), outputs.softmax(1), outputs.shape[1])
    images = _as_images(outputs, targets, inputs)
    if images is not None:
        return images
    if outputs.numel() == targets.numel():
        return Answers("numbers", outputs.reshape(len(outputs), -1), targets.float().reshape(len(outputs), -1))
    return None


def _one_each(outputs: Tensor, targets: Tensor) -> bool:
    """Whether there is one output for each target, e.g. ``(N, 1)`` with ``(N,)``, or ``(N, 1, H, W)`` with ``(N, H, W)``."""
    one = outputs.ndim == 1 or outputs.shape[1] == 1
    return one and outputs.numel() == targets.numel()


def _yes_or_no(outputs: Tensor, targets: Tensor, loss: Loss) -> Answers:
    truth = (targets.reshape(outputs.shape) > 0.5).long()
    chance = _probabilities(outputs, loss)
    if outputs.ndim == 4:
        return Answers("masks", (chance > 0.5).long().squeeze(1), truth.squeeze(1), None, 2)
    chance, truth = chance.reshape(len(outputs), -1), truth.reshape(len(outputs), -1)
    if chance.shape[1] != 1:
        return Answers("labels", chance > 0.5, truth.bool(), chance, chance.shape[1])
    return Answers("binary", (chance[:, 0] > 0.5).long(), truth[:, 0], torch.cat([1 - chance, chance], 1), 2)


def _probabilities(outputs: Tensor, loss: Loss) -> Tensor:
    return outputs if loss.threshold == 0.5 else outputs.sigmoid()


def _of_classes(outputs: Tensor, targets: Tensor) -> Answers | None:
    if outputs.ndim == 2 and targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if outputs.ndim != targets.ndim + 1 or outputs.shape[2:] != targets.shape[1:] or outputs.shape[1] < 2:
        if outputs.numel() == targets.numel():
            return Answers("numbers", outputs.reshape(len(outputs), -1), targets.float().reshape(len(outputs), -1))
        return None
    if outputs.ndim == 2:
        return Answers("classes", outputs.argmax(1), targets.long(), outputs.softmax(1), outputs.shape[1])
    return Answers("masks", outputs.argmax(1), targets.long(), None, outputs.shape[1]) if outputs.ndim == 4 else None


def _shares(targets: Tensor) -> bool:
    """Whether each row is a share of each class, as mixup makes them."""
    sums = targets.sum(1)
    return bool((targets >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _as_images(outputs: Tensor, targets: Tensor, inputs: Tensor | None) -> Answers | None:
    if outputs.ndim == 4 and targets.shape == outputs.shape:
        return Answers("images", outputs, targets.float())
    if inputs is None or inputs.ndim != 4 or not outputs.numel() == targets.numel() == inputs.numel():
        return None
    return Answers("images", outputs.reshape(inputs.shape), targets.float().reshape(inputs.shape))


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
