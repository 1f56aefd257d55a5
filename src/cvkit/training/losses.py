"""Losses by name, and what the loop must know of any loss: how it reduces, and what a batch of it weighs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.registry import Registry

__all__ = ["ALIGNED", "Loss", "LossFunction", "align", "losses", "resolve_loss"]

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

losses: Registry[LossFunction] = Registry("loss")
"""Losses by name; each takes ``(outputs, targets)`` and returns the mean over samples."""

ALIGNED = ("bce", "mse", "l1", "smooth_l1")
"""The names of losses that take one output a sample, aligned with its target by :func:`align`."""

_CLASSIFICATION = {"cross_entropy", "nll", "bce", "hinge"}
_CLASSIFICATION_MODULES = (
    nn.CrossEntropyLoss,
    nn.NLLLoss,
    nn.BCEWithLogitsLoss,
    nn.BCELoss,
    nn.MultiMarginLoss,
)
_PER_CLASS = {F.cross_entropy, F.nll_loss}


IGNORED = -100
"""The target value that torch's losses leave out unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss function and what the loop knows of it.

    Attributes:
        function: ``(outputs, targets) -> scalar``.
        name: For messages.
        reduction: Whether the scalar is a mean or a sum over the batch.
        classification: Whether accuracy is a sensible default metric beside it.
        threshold: The decision threshold on a single output: 0 for logits, 0.5 for probabilities.
        weight: What a batch's mean is divided by, when that is not its number of samples (class weights or an
            ignored index); ``None`` otherwise.
        ignore_index: The target value that the loss leaves out.
    """

    function: LossFunction
    name: str
    reduction: Literal["mean", "sum"] = "mean"
    classification: bool = False
    threshold: float = 0.0
    weight: Callable[[Tensor], Tensor] | None = None
    ignore_index: int = IGNORED


def align(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Aligns one output per sample, ``(N, 1)`` or ``(N,)``, with targets ``(N,)`` or ``(N, 1)``."""
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    elif targets.ndim == outputs.ndim + 1 and targets.shape[-1] == 1:
        targets = targets.squeeze(-1)
    elif outputs.ndim == targets.ndim + 1 and outputs.ndim > 2 and outputs.shape[1] == 1:
        outputs = outputs.squeeze(1)
    return outputs, targets.to(outputs.dtype)


losses.register("cross_entropy")(F.cross_entropy)
losses.register("nll")(F.nll_loss)
losses.register("hinge")(F.multi_margin_loss)


@losses.register("bce")
def _bce(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(*align(outputs, targets))


@losses.register("mse")
def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(*align(outputs, targets))


@losses.register("l1")
def _l1(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.l1_loss(*align(outputs, targets))


@losses.register("smooth_l1")
def _smooth_l1(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.smooth_l1_loss(*align(outputs, targets))


@losses.register("dice")
def _dice(outputs: Tensor, targets: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, per sample and class, then averaged.

    Logits ``(N, C, H, W)`` with class indices ``(N, H, W)``, or one channel ``(N, 1, H, W)`` with a binary mask.
    Source: Milletari et al., V-Net, 2016 (with the squares left out).
    """
    if outputs.shape[1] == 1:
        probabilities = outputs.sigmoid()
        truth = targets.reshape(outputs.shape).to(outputs.dtype)
    else:
        probabilities = outputs.softmax(1)
        truth = F.one_hot(targets.long(), outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)
    over = tuple(range(2, outputs.ndim))
    overlap = (probabilities * truth).sum(over)
    total = probabilities.sum(over) + truth.sum(over)
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def resolve_loss(loss: str | nn.Module | LossFunction) -> Loss:
    """Turns what ``fit`` got as ``loss`` into a :class:`Loss`.

    Raises:
        UnknownNameError: A name that is not known.
        ArgumentError: Not callable, or a loss that does not reduce to a scalar.
    """
    if isinstance(loss, str):
        return Loss(
            losses.get(loss), loss, classification=loss in _CLASSIFICATION, weight=_class_weight(losses.get(loss))
        )
    if isinstance(loss, type) or not callable(loss):
        raise ArgumentError(
            "loss cannot be used",
            got=f"the class {loss.__name__}" if isinstance(loss, type) else repr(loss),
            expected="a name, an nn.Module or a callable (outputs, targets) -> scalar",
            fix=f"pass {loss.__name__}(), an instance" if isinstance(loss, type) else 'pass e.g. loss="cross_entropy"',
        )
    reduction = str(_option(loss, "reduction", "mean"))
    inner = loss.func if isinstance(loss, functools.partial) else loss
    name = getattr(inner, "__name__", type(inner).__name__)
    if reduction not in ("mean", "sum"):
        raise ArgumentError(
            f"the loss {name} does not reduce to one number",
            got=f"reduction={reduction!r}",
            expected='reduction="mean" or "sum"',
            fix="leave reduction out, or weigh the samples in a step of your own",
        )
    probability = isinstance(loss, nn.BCELoss) or inner is F.binary_cross_entropy
    return Loss(
        loss,
        name,
        reduction="sum" if reduction == "sum" else "mean",
        classification=isinstance(loss, _CLASSIFICATION_MODULES) or inner in _PER_CLASS or probability,
        threshold=0.5 if probability else 0.0,
        weight=_class_weight(loss),
        ignore_index=_ignored(loss),
    )


def _option(loss: object, name: str, default: object) -> object:
    """Reads an option off a loss module or a ``functools.partial`` of a loss function."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get(name, default)
    return getattr(loss, name, default)


def _ignored(loss: object) -> int:
    return int(str(_option(loss, "ignore_index", IGNORED)))


def _class_weight(loss: object) -> Callable[[Tensor], Tensor] | None:
    """Returns what the mean of a class-weighted or index-ignoring loss is divided by, as a function of targets.

    ``F.cross_entropy`` divides by the summed weights of the targets that count, so two half batches average to the
    whole one only when weighed by these sums.
    """
    inner = loss.func if isinstance(loss, functools.partial) else loss
    if not (isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or (callable(inner) and inner in _PER_CLASS)):
        return None
    weights = _option(loss, "weight", None)
    ignored = _ignored(loss)

    def weight(targets: Tensor) -> Tensor:
        if targets.is_floating_point():  # soft targets: torch divides by the number of samples
            return torch.tensor(float(targets.shape[0]))
        counted = targets.ne(ignored)
        if isinstance(weights, Tensor):
            total: Tensor = weights[targets[counted]].sum()
            return total
        return counted.sum()

    return weight
