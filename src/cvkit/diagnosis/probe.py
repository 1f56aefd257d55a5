"""What checks look at: the model, the loss, the two sides of the data, the settings, and how to run a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvkit.diagnosis.trace import Trace, watched
from cvkit.losses import Loss
from cvkit.module_state import train_mode

__all__ = ["Monitored", "Probe", "Runner", "Settings", "Side"]


class Runner(Protocol):
    """How whoever trains runs a step; the only way in which a check runs the user's program."""

    def first_batch(self, name: str) -> Any:
        """Returns the first batch of ``"train"`` or ``"val"`` as the model gets it."""

    def last_batch(self, name: str) -> Any:
        """Returns the epoch's last batch where it is a smaller one that can be had by itself; else ``None``."""

    def forward(self, name: str, batch: Any) -> Any:
        """Returns the model's outputs for a batch of the usual kind."""

    def finish(self, name: str, batch: Any, outputs: Any) -> tuple[Any, Any, Any, Any]:
        """Runs the step, of which the outputs are there already where it is the usual one.

        Returns:
            Loss, outputs and targets with their graph, and what the batch counts for.
        """

    def update(self) -> None:
        """Makes the update that the gradients ask for: clipped, by every optimizer."""

    def rates(self, which: int, steps: int) -> list[float]:
        """Returns the learning rates that a schedule gives for the first updates; fewer where it fails on the way."""


@dataclass(slots=True, eq=False)
class Monitored:
    """What a callback watches.

    Attributes:
        callback: The callback's class.
        name: The logged name.
        mode: ``"min"``, ``"max"``, or ``None`` where it was left to the metric.
        better: ``"min"`` or ``"max"`` as the metric says, ``None`` where it does not.
    """

    callback: str
    name: str
    mode: str | None
    better: str | None


@dataclass(slots=True, eq=False)
class Settings:
    """What ``fit`` was given besides model and data.

    Attributes:
        epochs: The number of epochs; 0 where nothing is to be trained.
        batches: Batches in an epoch.
        total_steps: Updates of the whole run.
        accumulate: Batches to an update.
        clip_norm: Bound on the gradient's norm.
        optimizers: The optimizers; none in ``evaluate``.
        schedules: What steps the learning rate: the scheduler, and how often it is stepped in the run.
        schedule_name: The schedule, where it was given by name.
        monitored: What callbacks watch.
        metrics: The metrics by name.
        changers: Whether callbacks of the user's own may change the settings during the run.
    """

    epochs: int = 0
    batches: int = 0
    total_steps: int = 0
    accumulate: int = 1
    clip_norm: float | None = None
    optimizers: Sequence[Optimizer] = ()
    schedules: Sequence[tuple[Any, Literal["step", "epoch"]]] = ()
    schedule_name: str | None = None
    monitored: Sequence[Monitored] = ()
    metrics: Sequence[str] = ()
    changers: bool = False


@dataclass(slots=True, eq=False)
class Side:
    """The training or the validation data, and what came of their first batch.

    Attributes:
        name: ``"train"`` or ``"val"``.
        loader: What gives the batches.
        batch: The first batch, as the model gets it.
        trace: What came of it.
        last: The epoch's last batch where it is smaller; else ``None``.
        last_trace: What came of that one.
    """

    name: str
    loader: Any
    batch: Any = None
    trace: Trace = field(default_factory=Trace)
    last: Any = None
    last_trace: Trace | None = None

    @property
    def training(self) -> bool:
        """Whether this is the training side."""
        return self.name == "train"

    @property
    def dataset(self) -> Any:
        """The dataset behind the loader, ``None`` where there is none."""
        return getattr(self.loader, "dataset", None)

    @property
    def inputs(self) -> Any:
        """The inputs of a batch ``(inputs, targets)``; of any other batch ``None``."""
        return self.batch[0] if isinstance(self.batch, tuple | list) and len(self.batch) == 2 else None

    @property
    def targets(self) -> Any:
        """The targets that came with the inputs."""
        return self.batch[1] if isinstance(self.batch, tuple | list) and len(self.batch) == 2 else None


@dataclass(slots=True, eq=False)
class Probe:
    """All that a check may look at; it is gone, without a trace, when the examination ends.

    Attributes:
        model: The user's model, on the device.
        loss: The loss and what is known of it.
        own_step: Whether the step is the user's own: batches and targets may then be anything.
        train: The training side.
        val: The validation side, or ``None``.
        settings: What ``fit`` was given besides.
        runner: How a step is run.
        updated_loss: The loss of the first batch after one update.
        before_update: The trainable parameters by name as they were before that update.
    """

    model: nn.Module
    loss: Loss
    own_step: bool
    train: Side
    val: Side | None
    settings: Settings
    runner: Runner
    updated_loss: float | None = None
    before_update: dict[str, Tensor] = field(default_factory=dict)

    @property
    def sides(self) -> list[Side]:
        """The sides that there are."""
        return [self.train, *([self.val] if self.val is not None else [])]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that take gradients, by name."""
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    def evaluate(self, inputs: Any) -> Any:
        """Returns the model's outputs in evaluation mode, without a graph."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad():
                return self.runner.forward("val", (inputs, None))
        finally:
            for module, mode in modes:
                module.training = mode

    # --- the stages, in order; each says whether it has come through

    def run_forward(self, side: Side, trace: Trace, batch: Any) -> bool:
        """Runs the model on a batch; a custom step is run as a whole."""
        with watched(self.model, trace), torch.set_grad_enabled(side.training):
            train_mode(self.model) if side.training else self.model.eval()

            def work() -> None:
                if self.own_step:
                    self._finish(side, trace, batch)
                else:
                    trace.outputs = self.runner.forward(side.name, batch)
                    trace.targets = batch[1]

            mode = self.model.training
            done = trace.attempt("forward", work)
            trace.switched = self.model.training is not mode
            return done

    def run_loss(self, side: Side, trace: Trace, batch: Any) -> bool:
        """Computes loss and metrics."""
        if self.own_step:
            return True
        with torch.set_grad_enabled(side.training):
            return trace.attempt("loss", lambda: self._finish(side, trace, batch))

    def _finish(self, side: Side, trace: Trace, batch: Any) -> None:
        trace.loss, trace.outputs, trace.targets, trace.weight = self.runner.finish(side.name, batch, trace.outputs)

    def run_backward(self, trace: Trace) -> bool:
        """Runs the backward pass, and takes the gradients off the parameters."""
        trace.early = [name for name, one in self.trainable().items() if one.grad is not None]

        def work() -> None:
            trace.loss.backward()

        done = trace.attempt("backward", work)
        for name, parameter in self.trainable().items():
            trace.gradients[name] = parameter.grad
            parameter.grad = None
        return done

    def run_update(self) -> bool:
        """Makes one update by the gradients of the first batch, and computes its loss again; the weights stay changed."""
        found = self.trainable()
        self.before_update = {name: one.detach().clone() for name, one in found.items()}
        for name, one in found.items():
            one.grad = self.train.trace.gradients.get(name)
        self.runner.update()
        after = Trace()
        with torch.no_grad():
            self.run_forward_only(after)
        if after.error is None and isinstance(after.loss, Tensor):
            self.updated_loss = float(after.loss)
        return after.error is None

    def run_forward_only(self, trace: Trace) -> None:
        """Runs the first training batch in training mode, without watching and without a graph."""
        train_mode(self.model)

        def work() -> None:
            outputs = None if self.own_step else self.runner.forward("train", self.train.batch)
            trace.loss, trace.outputs, trace.targets, trace.weight = self.runner.finish(
                "train", self.train.batch, outputs
            )

        trace.attempt("forward", work)
