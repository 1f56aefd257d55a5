"""Losses by name, and what the loop must know of any loss: how it reduces, and what a batch of it weighs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.outputs import Activation, OutputSpec, Task
from cvkit.registry import Registry

__all__ = ["ALIGNED", "Loss", "LossFunction", "align", "losses", "register_loss", "resolve_loss", "spec_of"]

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

losses: Registry[LossFunction] = Registry("loss")
"""Losses by name; each takes ``(outputs, targets)`` and returns the mean over samples."""

ALIGNED = ("bce", "binary_focal", "mse", "l1", "smooth_l1")
"""The names of losses that take one output a sample, aligned with its target by :func:`align`."""

_LOGITS, _SEPARATE = OutputSpec("classification", "softmax"), OutputSpec("binary", "sigmoid")
_VALUES = OutputSpec("regression", "none")

_UNKNOWN = OutputSpec()

_SPECS = {
    **dict.fromkeys(("cross_entropy", "CrossEntropyLoss", "nll", "nll_loss", "NLLLoss"), _LOGITS),
    **dict.fromkeys(("hinge", "multi_margin_loss", "MultiMarginLoss"), _LOGITS),
    **dict.fromkeys(("bce", "binary_cross_entropy_with_logits", "BCEWithLogitsLoss"), _SEPARATE),
    **dict.fromkeys(("binary_cross_entropy", "BCELoss"), OutputSpec("binary", "none")),
    **dict.fromkeys(("multilabel_soft_margin_loss", "MultiLabelSoftMarginLoss"), OutputSpec("multilabel", "sigmoid")),
    **dict.fromkeys(("mse", "mse_loss", "MSELoss", "l1", "l1_loss", "L1Loss"), _VALUES),
    **dict.fromkeys(("smooth_l1", "smooth_l1_loss", "SmoothL1Loss", "huber_loss", "HuberLoss"), _VALUES),
    **dict.fromkeys(("label_smoothing", "focal"), _LOGITS),
    **dict.fromkeys(("binary_focal", "sigmoid_focal_loss"), _SEPARATE),
    "asymmetric": OutputSpec("multilabel", "sigmoid"),
    "dice": OutputSpec("segmentation"),
}
"""What the outputs are that a loss compares with targets, by its name here and by those of torch's modules and functions."""


def spec_of(name: object) -> OutputSpec:
    """Returns what is known of the outputs of a model that was trained by the loss of a name; of another loss, nothing."""
    return _SPECS.get(name, _UNKNOWN) if isinstance(name, str) else _UNKNOWN


T = TypeVar("T", bound=LossFunction)


def register_loss(name: str, *, task: Task | None = None, activation: Activation | None = None) -> Callable[[T], T]:
    """Returns a decorator that files a loss under a name, for ``fit(loss="name")``.

    Example::

        @cvkit.register_loss("log_cosh", task="regression")
        def log_cosh(outputs, targets):
            return (outputs - targets).cosh().log().mean()

    Args:
        name: The name.
        task: What the outputs are for, e.g. ``"classification"``, as prediction and metrics need to know.
        activation: What makes probabilities of them: ``"softmax"``, ``"sigmoid"`` or ``"none"``.

    Raises:
        ArgumentError: The name is taken by something else.
    """

    def both(function: T) -> T:
        losses.register(name)(function)
        _SPECS[name] = OutputSpec(task, activation)
        return function

    return both


def focal(outputs: Tensor, targets: Tensor, gamma: float = 2.0, ignore_index: int = -100) -> Tensor:
    """The focal loss of classes: cross entropy, times how far each sample's right class is from certain, to a power.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002), equation 4.

    Args:
        outputs: Logits ``(N, C, …)``.
        targets: Classes ``(N, …)``.
        gamma: The power; 0 gives cross entropy.
        ignore_index: A target value that does not count.
    """
    each = F.cross_entropy(outputs, targets, reduction="none", ignore_index=ignore_index)
    known = targets != ignore_index
    certain = (-each).exp()
    return (((1 - certain) ** gamma * each) * known).sum() / known.sum()


_PER_CLASS: set[object] = {F.cross_entropy, F.nll_loss, focal}
_FORWARDS = {nn.CrossEntropyLoss.forward, nn.NLLLoss.forward}

_EXACT_IN_FLOAT32 = 1 << 24
"""Up to here float32 holds every integer."""

IGNORED = -100
"""The target value that torch's losses leave out unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss function and what the loop knows of it.

    Attributes:
        function: ``(outputs, targets) -> scalar``.
        name: For messages.
        reduction: Whether the scalar is a mean or a sum over the batch; ``"batchmean"`` is a mean over samples.
        spec: What the outputs are that it compares with targets, and what makes probabilities of them.
        weight: What the mean over a batch was divided by, as a function of its targets, when that is not the number of
            samples (class weights or an ignored index); ``None`` otherwise.
        ignore_index: The target value that the loss leaves out.
        class_weighted: Whether the loss has a weight for each class.
    """

    function: LossFunction
    name: str
    reduction: Literal["mean", "sum"] = "mean"
    spec: OutputSpec = _UNKNOWN
    weight: Callable[[Tensor], Tensor | float] | None = None
    ignore_index: int = IGNORED
    class_weighted: bool = False

    @property
    def classification(self) -> bool:
        """Whether it compares outputs with one right class a target, so that accuracy is a sensible metric beside it."""
        return self.spec.task in ("classification", "binary")

    def weigh(self, targets: object, samples: int, loss: Tensor | None = None) -> Tensor | float:
        """Returns what a batch counts for in a mean over batches: what its own mean was divided by.

        So the mean of many batches is that of one large batch. It is the only place that decides this, for what is logged
        and for ``accumulate``. Nothing waits for the device.

        Args:
            targets: The batch's targets; anything but a tensor says nothing.
            samples: The number of samples in the batch.
            loss: The batch's loss with its graph, if at hand: torch's own record of the divisor is then taken from it, which
                costs a twentieth of counting.

        Returns:
            The number of samples; of a loss with class weights or an ignored index the sum of the weights, or the number, of
            the targets that count, as a device scalar. It is 0 where no target counts, and the loss is NaN there.
        """
        if self.weight is None or not isinstance(targets, Tensor):
            return samples
        return self._recorded(targets, loss) if loss is not None else self.weight(targets)

    def _recorded(self, targets: Tensor, loss: Tensor) -> Tensor | float:
        """Returns what torch has divided by, as autograd keeps it for the backward pass, where that is an exact count."""
        divisor: Tensor | None = getattr(loss.grad_fn, "_saved_total_weight", None)
        if (
            divisor is not None
            and not self.class_weighted  # a sum of weights would be of another order, and differ in its last bits
            and divisor.dtype is torch.float32
            and targets.numel() < _EXACT_IN_FLOAT32
        ):
            return divisor
        return self.weight(targets) if self.weight is not None else targets.shape[0]


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
losses.register("label_smoothing")(functools.partial(F.cross_entropy, label_smoothing=0.1))
losses.register("focal")(focal)
losses.register("nll")(F.nll_loss)


@losses.register("binary_focal")
def _binary_focal(outputs: Tensor, targets: Tensor) -> Tensor:
    """The focal loss of one output a sample or label, with the paper's numbers (torchvision's)."""
    from torchvision.ops import sigmoid_focal_loss  # where used: losses load no torchvision

    loss: Tensor = sigmoid_focal_loss(*align(outputs, targets), reduction="mean")
    return loss


@losses.register("asymmetric")
def asymmetric(
    outputs: Tensor, targets: Tensor, positive: float = 0.0, negative: float = 4.0, margin: float = 0.05
) -> Tensor:
    """The asymmetric loss of labels: easy negatives count less, and nothing below a margin; the mean over all labels.

    Source: Ridnik et al., Asymmetric Loss for Multi-Label Classification, 2021 (arXiv:2009.14119), equations 4 to 7.

    Args:
        outputs: Logits ``(N, C)``.
        targets: 0 or 1, ``(N, C)``.
        positive: The focusing power of labels that are there.
        negative: That of labels that are not.
        margin: The probability below which a negative counts nothing.
    """
    outputs, targets = align(outputs, targets)
    there = outputs.sigmoid()
    absent = (1 - there + margin).clamp(max=1)
    gain = targets * there.clamp(min=1e-8).log() * (1 - there) ** positive
    gain = gain + (1 - targets) * absent.clamp(min=1e-8).log() * (1 - absent) ** negative
    return -gain.mean()


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
        return Loss(losses.get(loss), loss, spec=spec_of(loss), weight=_class_weight(losses.get(loss)))
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
    if reduction not in ("mean", "batchmean", "sum"):
        raise ArgumentError(
            f"the loss {name} does not reduce to one number",
            got=f"reduction={reduction!r}",
            expected='reduction="mean", "batchmean" (of nn.KLDivLoss) or "sum"',
            fix="leave reduction out, or weigh the samples in your own step",
        )
    known = (spec_of(name), *(spec_of(kind.__name__) for kind in type(inner).__mro__))  # also of a subclass of torch's
    return Loss(
        loss,
        name,
        reduction="sum" if reduction == "sum" else "mean",
        spec=next((spec for spec in known if spec.task is not None), _UNKNOWN),
        weight=None if reduction == "sum" else _class_weight(loss),
        ignore_index=_ignored(loss),
        class_weighted=isinstance(_option(loss, "weight", None), Tensor),
    )


def _option(loss: object, name: str, default: object) -> object:
    """Reads an option off a loss module or a ``functools.partial`` of a loss function."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get(name, default)
    return getattr(loss, name, default)


def _ignored(loss: object) -> int:
    return int(str(_option(loss, "ignore_index", IGNORED)))


def _class_weight(loss: object) -> Callable[[Tensor], Tensor | float] | None:
    """Returns what the mean of a class-weighted or index-ignoring loss is divided by, as a function of targets.

    ``F.cross_entropy`` divides by the summed weights of the targets that count, so two half batches average to the
    whole one only when weighed by these sums. A subclass with a ``forward`` of its own may divide by anything.
    """
    inner = loss.func if isinstance(loss, functools.partial) else loss
    own = isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and type(loss).forward in _FORWARDS
    if not own and not (callable(inner) and inner in _PER_CLASS):
        return None
    ignored = _ignored(loss)

    def weight(targets: Tensor) -> Tensor | float:
        if targets.is_floating_point():  # soft targets: torch divides by the number of samples, or of pixels
            return targets.numel() // targets.shape[1] if targets.ndim > 1 else targets.shape[0]
        targets = targets.long()  # of bytes no value is -100, and an index of bytes is taken for a mask
        weights = _option(
            loss, "weight", None
        )  # asked for here: moving the loss to a device makes another tensor of it
        if not isinstance(weights, Tensor):
            return torch.count_nonzero(targets.ne(ignored))
        left_out = targets.eq(ignored)  # a selection by mask would wait for the device
        return weights[targets.masked_fill(left_out, 0)].masked_fill(left_out, 0).sum()

    return weight
