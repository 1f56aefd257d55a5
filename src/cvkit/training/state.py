"""What a run knows: the state that every hook gets, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvkit.losses import LossFunction
from cvkit.metrics.core import Metric
from cvkit.training.history import History
from cvkit.training.internals import Internals
from cvkit.training.optimizers import current_lrs
from cvkit.training.runtime import Runtime

__all__ = ["FitResult", "History", "Step", "TrainState"]

Step: TypeAlias = "Callable[[nn.Module, Any, TrainState], Tensor | tuple[Tensor, Any, Any]]"
"""What computes the loss of a batch: ``step(model, batch, state) -> loss`` or ``(loss, outputs, targets)``."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """What ``fit`` returns.

    Attributes:
        history: One row an epoch.
        model: The model with its final weights, unwrapped, on the device it was trained on.
        epochs: Epochs finished, those before a resume included.
        steps: Optimizer updates made, those before a resume included.
        stop_reason: ``"finished"``, ``"early_stopping"``, ``"interrupted"`` (Ctrl-C), ``"terminated"`` (SIGTERM),
            ``"max_steps"``, or whatever a callback gave to ``request_stop``.
        best_checkpoint: The file of the best epoch, if a ``Checkpoint`` callback wrote one.
        last_checkpoint: The newest file, if a ``Checkpoint`` callback wrote one.
        skipped: How many samples were left out because they could not be read (``on_error="skip"``), those before a resume
            included.
    """

    history: History
    model: nn.Module
    epochs: int
    steps: int
    stop_reason: str
    best_checkpoint: Path | None = None
    last_checkpoint: Path | None = None
    skipped: int = 0

    def __repr__(self) -> str:
        """Names the model only: a notebook shows the result of a cell, and a network has hundreds of lines."""
        rest = "".join(f", {name}={getattr(self, name)!r}" for name in ("epochs", "steps", "stop_reason"))
        kept = f", best_checkpoint={str(self.best_checkpoint)!r}" if self.best_checkpoint is not None else ""
        return f"FitResult({self.history!r}, model={type(self.model).__name__}{rest}{kept})"


@dataclass(slots=True, eq=False)
class TrainState:
    """Everything about a run, as every hook and every ``step`` of a user's own gets it.

    Attributes:
        model: The user's module, unwrapped, on the device.
        train: The training batches as given.
        val: The validation batches as given, or ``None``.
        runtime: Device, precision and compilation.
        engine: What the engine keeps for itself; not for users, its names may change in any version.
        epochs: Total number of epochs.
        max_steps: Bound on the number of optimizer updates, or ``None``.
        optimizers: All optimizers; ``state.optimizer`` is the first.
        schedules: Learning-rate schedules, one an optimizer, or none.
        accumulate: Batches to one update.
        clip_norm: Bound on the gradient norm, or ``None``.
        seed: The run's seed, given or drawn.
        epoch: Index of the epoch under way, from 0.
        epochs_done: Epochs finished.
        step: Optimizer updates made; the one x-axis everywhere.
        batch_index: Batches of this epoch that were trained on.
        training: Whether this is a training batch rather than a validation one.
        batch: The current batch, on the device.
        loss: Loss of the current batch, a detached device scalar: reading it waits for the device.
        outputs: Outputs of the current batch, detached; ``None`` where a step returns only the loss.
        targets: Targets of the current batch; ``None`` where a step returns only the loss.
        samples: Number of samples in the current batch.
        logs: The row that is being logged: what callbacks add here goes into the history.
        history: The rows of the epochs finished.
        stop_reason: Why the run is to end, or ``None`` while it goes on.
        exception: What ended the run, in ``on_exception``.
        data_seconds: How long this epoch has waited for batches so far, those of the validation and their transforms
            included; on a GPU that is until they are queued. What is left of :attr:`epoch_seconds` went into the model and
            the callbacks.
    """

    model: nn.Module
    train: Any
    val: Any
    runtime: Runtime
    engine: Internals
    epochs: int = 1
    max_steps: int | None = None
    optimizers: list[Optimizer] = field(default_factory=list)
    schedules: list[LRScheduler] = field(default_factory=list)
    accumulate: int = 1
    clip_norm: float | None = None
    seed: int = 0
    epoch: int = 0
    epochs_done: int = 0
    step: int = 0
    batch_index: int = 0
    training: bool = True
    batch: Any = None
    loss: Tensor | None = None
    outputs: Any = None
    targets: Any = None
    samples: int = 0
    logs: dict[str, float] = field(default_factory=dict)
    history: History = field(default_factory=History)
    stop_reason: str | None = None
    exception: BaseException | None = None
    data_seconds: float = 0.0

    @property
    def epoch_seconds(self) -> float:
        """How long this epoch has taken so far."""
        return time.perf_counter() - self.engine.epoch_began

    @property
    def skipped(self) -> tuple[dict[int, str], dict[int, str]]:
        """The samples that training and validation batches had to leave out in the whole run so far: messages by index."""
        train, val = self.engine.skipped_before
        now = self.engine.val.skipped if self.engine.val is not None else {}
        return train | self.engine.train.skipped, val | now

    @property
    def loss_fn(self) -> LossFunction:
        """The loss, ``(outputs, targets) -> scalar``."""
        return self.engine.loss_spec.function

    @property
    def metrics(self) -> dict[str, Metric]:
        """Metrics of the phase under way, by name."""
        return self.engine.meters.metrics

    @property
    def optimizer(self) -> Optimizer:
        """The first optimizer."""
        return self.optimizers[0]

    @property
    def lr(self) -> float:
        """Learning rate of the update at hand, in the first parameter group of the first optimizer.

        Before an update it is the rate that the update will be made with, and from then until the next batch begins, at the end
        of the epoch too, the one that it was made with, though a schedule has set the next one by then. It is what is logged.
        """
        return float(
            self.optimizers[0].param_groups[0]["lr"] if self.engine.used_lrs is None else self.engine.used_lrs[0][0]
        )

    @property
    def lrs(self) -> list[list[float]]:
        """Learning rates of the update at hand, as :attr:`lr`, of each parameter group of each optimizer."""
        return [[float(rate) for rate in rates] for rates in self.engine.used_lrs or current_lrs(self.optimizers)]

    @property
    def batches_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        return len(self.engine.train)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer updates in an epoch, a short last group included."""
        return -(-len(self.engine.train) // self.accumulate)

    @property
    def total_steps(self) -> int:
        """Number of optimizer updates of the whole run."""
        whole = self.steps_per_epoch * self.epochs
        return whole if self.max_steps is None else min(whole, self.max_steps)

    def stop_at_most(self) -> None:
        """Ends a run that has made as many updates as it may."""
        if self.max_steps is not None and self.step >= self.max_steps < self.steps_per_epoch * self.epochs:
            self.request_stop("max_steps")

    @property
    def log_names(self) -> list[str]:
        """The names that each epoch's row will hold, known before training.

        Those of callbacks are among them where a callback says them, in an attribute ``logs``.
        """
        names = [f"train_{name}" for name in ("loss", *self.metrics)]
        if self.val is not None:
            names += [f"val_{name}" for name in ("loss", *self.metrics)]
        return [*names, "lr", *(self.engine.hooks.logs if self.engine.hooks is not None else ())]

    @property
    def finite(self) -> bool:
        """Whether every loss of this epoch that has arrived on the host so far is finite."""
        return self.engine.train_meters.losses.first_nonfinite is None

    def remaining_epochs(self) -> Iterator[int]:
        """Yields the index of each epoch that is still to be trained, until the end or a request to stop."""
        self.stop_at_most()
        while self.epoch < self.epochs and self.stop_reason is None:
            yield self.epoch
            if self.epochs_done > self.epoch:
                self.epoch, self.batch_index = self.epochs_done, 0

    @property
    def epochs_begun(self) -> int:
        """How many of the run's epochs the loader has served, one that was left in the middle included."""
        return self.epochs_done + (self.epochs_done == self.epoch and self.batch_index > 0)

    def at_update(self) -> bool:
        """Whether the batch just trained on completes a group of ``accumulate``, or the epoch."""
        at = (
            self.accumulate == 1
            or self.batch_index % self.accumulate == 0
            or self.batch_index == len(self.engine.train)
        )
        self.engine.group_open = not at
        return at

    def request_stop(self, reason: str, *, every_rank: bool = False) -> None:
        """Ends the run at the next step boundary.

        On several processes one rank may ask for it: all of them stop at the same step, one batch later at most.

        Args:
            reason: What ``FitResult.stop_reason`` will say; the first request wins.
            every_rank: Whether every rank asks for it at this very place, as it follows from what all of them know (a logged
                value, the number of steps): then all stop at once.
        """
        world = self.engine.world
        if world is not None and not every_rank:
            world.asked = world.asked or reason
        elif self.stop_reason is None:
            self.stop_reason = reason

    def settle_stop(self) -> None:
        """Agrees with the other ranks whether the run is to stop; all of them must call it. Nothing with one process."""
        world = self.engine.world
        if world is not None and self.stop_reason is None:
            self.stop_reason = world.agree()

    def begin_epoch(self) -> None:
        """Forgets what was summed and logged in the epoch before, unless this one is entered in the middle."""
        self.training, self.engine.meters = True, self.engine.train_meters
        self.data_seconds, self.engine.epoch_began = 0.0, time.perf_counter()
        if self.batch_index == 0:
            self.logs, self.engine.used_lrs = {}, None
            self.engine.train_meters.reset()
