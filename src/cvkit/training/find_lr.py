"""``find_lr``: which learning rate to begin with, from a short run that leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvkit import seeding
from cvkit.arguments import check_integer, check_number
from cvkit.errors import ArgumentError, PreflightError
from cvkit.figures import FAINT, RIGHT, WRONG, new_figure
from cvkit.losses import LossFunction
from cvkit.metrics.async_scalars import AsyncScalars
from cvkit.module_state import train_mode, unchanged, unwrap
from cvkit.training import engine, schedule_free, setup
from cvkit.training.distributed import refuse
from cvkit.training.loader_checks import used_up
from cvkit.training.loaders import adapt
from cvkit.training.optimizers import DEFAULT_LR
from cvkit.training.peer_arguments import answered_calls
from cvkit.training.preflight import TRACED, inspect
from cvkit.training.runtime import Precision, Runtime
from cvkit.training.state import Step, TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LRCurve", "find_lr"]

SMOOTHING = 0.8
"""What an exponential mean keeps of itself at each loss; noise of single batches must not decide."""
NOISE = 1.0
"""By how many standard deviations of a batch's loss the mean must fall to have fallen."""


@dataclass(frozen=True, slots=True, repr=False)
class LRCurve:
    """What :func:`find_lr` has measured.

    Attributes:
        lrs: The learning rates, rising.
        losses: The loss after an update with each of them, of the batch that came next.
        start: The loss before the first update.
        diverged: Whether the loss ran away before the highest rate was reached; the last loss is the one that did.
    """

    lrs: list[float]
    losses: list[float]
    start: float
    diverged: bool

    @property
    def smoothed(self) -> list[float]:
        """The losses without the noise of single batches: an exponential mean, once forwards and once backwards.

        So it lags behind neither way. A loss well above those at the lowest rates counts as no higher: where it runs away
        it would bend what comes before.
        """
        level, noise = self._beginning()
        most = level + 2 * noise
        forwards = _mean([loss if loss < most else most for loss in self.losses])
        return _mean(forwards[::-1])[::-1]

    def _beginning(self) -> tuple[float, float]:
        """Returns the loss at the lowest rates, where nothing is learned yet, and how much it differs from batch to batch."""
        first = [self.start, *self.losses][: max(len(self.losses) // 4, 3)]
        first = [loss for loss in first if math.isfinite(loss)]  # the last one is not, where it has run away that soon
        noise = float(np.std(np.diff(first))) / math.sqrt(2) if len(first) > 1 else 0.0
        return float(np.median(first)), noise

    @property
    def suggestion(self) -> float:
        """The learning rate at which the loss falls steepest, per factor of the rate, on its way down to the minimum.

        A rate to begin with, for a constant one; the highest rate of a schedule may be two or three times as high.

        Source: Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186), section 3.3, for the
        test; Gugger, How Do You Find A Good Learning Rate, 2018, for the steepest point. Of twelve pairs of network and
        optimizer on MNIST it lay nearer to the best rate of an epoch than a tenth of the minimum's, or the longest valley's.

        Raises:
            ArgumentError: The loss has not fallen at any of these rates.
        """
        found = self._steepest()
        if found is None:
            raise ArgumentError(
                "no learning rate can be suggested",
                got=f"a loss that has not fallen from {self.start:.4g} at any of {len(self.lrs)} rates "
                f"from {_short(self.lrs[0])} to {_short(self.lrs[-1])}",
                expected="a loss that falls, and rises when the rate is too high",
                fix="look at plot(); test other rates (low=, high=), more steps, or a model that is not trained already",
            )
        return self.lrs[found]

    def _steepest(self) -> int | None:
        """Returns the place of the suggestion, if the loss falls by more than its noise.

        Where it has fallen and then risen back to where it began, what comes later does not count.
        """
        smooth = self.smoothed
        level, noise = self._beginning()
        least = max(NOISE * noise, 1e-3 * abs(level))
        fallen = next((place for place, loss in enumerate(smooth) if level - loss > least), None)
        if fallen is None or fallen < 2:
            return None
        end = next((place for place in range(fallen, len(smooth)) if smooth[place] >= level), len(smooth))
        lowest = min(range(end), key=smooth.__getitem__)
        slopes = np.gradient(smooth[: lowest + 1], np.log(self.lrs[: lowest + 1]))
        return int(slopes.argmin())

    def plot(self) -> Figure:
        """Draws the losses over the rates, each and smoothed, and the suggestion.

        Returns:
            A figure, as the functions of ``cvkit.plots`` return it.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        figure = new_figure(6.4, 4.0)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.plot(self.lrs, self.losses, color=FAINT, linewidth=1, label="loss of each batch")
        axes.plot(self.lrs, self.smoothed, color=RIGHT, linewidth=2.5, label="smoothed")
        found = self._steepest()
        if found is not None:
            label = f"suggestion: {_short(self.lrs[found])}"
            axes.axvline(self.lrs[found], color=WRONG, linestyle="--", label=label)
            axes.plot([self.lrs[found]], [self.smoothed[found]], "o", color=WRONG, markersize=8)
        else:
            axes.set_title("no suggestion: the loss has not fallen")
        level, noise = self._beginning()
        low = min(loss for loss in (*self.losses, self.start) if math.isfinite(loss))
        room = level + 2 * noise - low or 1.0
        # where it runs away is of no interest, and would hide the rest
        axes.set_ylim(low - 0.08 * room, level + 2 * noise + 0.35 * room)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize=9)
        return figure

    def __repr__(self) -> str:
        found = self._steepest()
        suggestion = "none, the loss has not fallen" if found is None else _short(self.lrs[found])
        return (
            f"LRCurve(suggestion={suggestion}, {len(self.lrs)} rates from {_short(self.lrs[0])} to {_short(self.lrs[-1])}"
            f"{', where the loss ran away' if self.diverged else ''})"
        )


@answered_calls
def find_lr(
    model: nn.Module,
    train: Any,
    *,
    loss: str | nn.Module | LossFunction = "cross_entropy",
    optimizer: str | Optimizer | Sequence[Optimizer] | Callable[[list[nn.Parameter]], Any] = "adamw",
    step: Step | None = None,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    stop_factor: float = 4.0,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> LRCurve:
    """Tests which learning rates a model learns at: each update is made with a higher one, until the loss runs away.

    The model, the optimizer, every random generator and the loader are afterwards as they were, also after an exception
    or Ctrl-C; what is trained is no better for it. As many batches are taken as there are steps (times ``accumulate``),
    from as many epochs as that needs. Parameter groups keep their ratio to the first one, whose rate is what is tested.

    Args:
        model: Any module.
        train: Training batches, as in :func:`cvkit.fit`.
        loss: As in :func:`cvkit.fit`.
        optimizer: As in :func:`cvkit.fit`; the rate that a ready-made one has does not matter.
        step: As in :func:`cvkit.fit`.
        low: The lowest rate.
        high: The highest rate; those between rise by the same factor each.
        steps: How many rates.
        stop_factor: The loss has run away when its mean is this many times the lowest that it was, or is not finite.
        device: As in :func:`cvkit.fit`.
        precision: As in :func:`cvkit.fit`.
        accumulate: As in :func:`cvkit.fit`.
        clip_norm: As in :func:`cvkit.fit`.

    Returns:
        The losses over the rates, with ``suggestion`` and ``plot()``.

    Raises:
        ArgumentError: An argument that cannot work, before anything is touched.
        PreflightError: One batch does not go through model and loss.
        DeviceError: A device or precision that is not there.
    """
    refuse("find_lr")
    setup.check_arguments(1, accumulate, clip_norm, {"train": train})
    rates = _rates(low, high, steps, stop_factor)
    modules = [one for one in (_inner(model), loss) if isinstance(one, nn.Module)]
    batches = adapt(train)
    with unchanged(*modules, optimizers=_ready(optimizer), generators=batches.generators()), batches.kept():
        runtime = Runtime(device, precision)
        state = setup.state(model, train, None, runtime, loss=loss, metrics=(), own_step=step is not None)
        state.accumulate, state.clip_norm, state.seed = accumulate, clip_norm, seeding.peek()
        state.epochs = -(-(steps + 1) // state.steps_per_epoch)
        setup.add_optimizers(state, optimizer, DEFAULT_LR)
        compute = step or setup.usual_step(state)
        inspect(state, compute, own_step=step is not None, only=TRACED).raise_errors()
        start, *losses = _ramp(state, compute, rates, stop_factor)
    if not math.isfinite(start):
        raise PreflightError(
            f"the loss is {start} before the first update",
            got="a first batch on which it was finite when it was tried",
            expected="a finite number each time",
            fix="look for NaN in the other batches of its group (accumulate), and for what is random in the model",
        )
    end = _end([start, *losses], stop_factor)
    return LRCurve(rates[: len(losses[:end])], losses[:end], start, diverged=end is not None)


def _rates(low: float, high: float, steps: int, stop_factor: float) -> list[float]:
    """Returns the rates, from low to high by the same factor each."""
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (low, high))
    if not numbers or not 0 < low < high < math.inf:
        raise ArgumentError(
            "these learning rates cannot be tested",
            got=f"low={low!r}, high={high!r}",
            expected="0 < low < high",
            fix="leave both out for 1e-7 to 10",
        )
    check_integer("steps", steps, at_least=10, fix="steps=100")
    if stop_factor != math.inf:  # which never stops
        check_number("stop_factor", stop_factor, above=1, expected="a number above 1", fix="stop_factor=4")
    return [float(one) for one in np.geomspace(low, high, steps)]


def _inner(model: Any) -> Any:
    return unwrap(model) if isinstance(model, nn.Module) else model


def _ready(optimizer: Any) -> list[Optimizer]:
    """Returns the optimizers that are there already."""
    several = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    return [one for one in several if isinstance(one, Optimizer)]


def _ramp(state: TrainState, step: Step, rates: list[float], stop_factor: float) -> list[float]:
    """Trains with each rate in turn.

    Returns:
        The loss before the first update and after each, until some time after it has run away: how soon that is seen
        depends on the device, which is never waited for.
    """
    ratios = _ratios(state)
    coming, seen = AsyncScalars(), list[float]()
    group: list[tuple[Tensor, Tensor | float]] = []
    train_mode(state.model)
    state.model.zero_grad()
    schedule_free.start(state.optimizers)
    with closing(_endless(state)) as batches:
        for batch in batches:
            state.batch = batch
            engine.forward_backward(step, batch, state)
            if state.loss is not None:
                group.append((state.loss, state.engine.weight))
            if not state.at_update():
                continue
            coming.put(None, _mean_loss(group, state))
            group = []
            seen += [value for _, value in coming.arrived()]
            if state.step == len(rates) or _end(seen, stop_factor) is not None:
                break
            for settings, ratio in ratios:
                _set_rate(settings, rates[state.step] * ratio)
            engine.finish_gradients(state)
            engine.update(state)
    return seen + [value for _, value in coming.all()]


def _endless(state: TrainState) -> Generator[Any]:
    """Yields the batches of one epoch after the other."""
    while True:
        state.begin_epoch()
        yield from engine.feed(state.engine.train, state)
        if state.batch_index == 0:
            raise used_up(state.engine.train, state.epoch)
        state.epoch, state.batch_index = state.epoch + 1, 0


def _mean_loss(group: list[tuple[Tensor, Tensor | float]], state: TrainState) -> Tensor:
    """Returns the mean over some batches, each by what it counts for, on the device."""
    whole = sum(weight for _, weight in group)
    if state.engine.loss_spec.reduction == "sum":
        return torch.stack([loss for loss, _ in group]).sum() / whole
    if len(group) == 1:
        return group[0][0]
    parts = [
        (loss.where(weight != 0, 0) if isinstance(weight, Tensor) else loss) * (weight / whole)
        for loss, weight in group
    ]
    return torch.stack(parts).sum()


def _ratios(state: TrainState) -> list[tuple[dict[str, Any], float]]:
    """Returns every parameter group with its rate as a part of the first one's."""
    groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
    first = float(groups[0]["lr"])
    return [(group, float(group["lr"]) / first if first > 0 else 1.0) for group in groups]


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _mean(losses: Sequence[float]) -> list[float]:
    """Returns the exponential mean up to each loss; the first ones weigh no more than others (as in Adam, 2014)."""
    means, mean = [], 0.0
    for place, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**place))
    return means


def _end(losses: Sequence[float], stop_factor: float) -> int | None:
    """Returns the place of the first loss that has run away, if any has."""
    best = math.inf
    for place, mean in enumerate(_mean(losses)):
        if not math.isfinite(mean) or mean > best + (stop_factor - 1) * abs(best):
            return place
        best = min(best, mean)
    return None


def _short(rate: float) -> str:
    return f"{rate:.2g}"
