"""Ignite's supervised trainer with its own metrics attached."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from ignite.engine import create_supervised_trainer
from ignite.handlers import ProgressBar
from ignite.metrics import Accuracy, Average

from peers.work import Tracked, Work


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """A trainer whose output stays on the device; the bar shows the batch's loss, as in Ignite's guide."""
    trainer = create_supervised_trainer(
        work.model,
        work.optimizer(),
        F.cross_entropy,
        output_transform=lambda x, y, y_pred, loss: {"loss": loss.detach(), "y_pred": y_pred.detach(), "y": y},
    )
    Average(output_transform=lambda output: output["loss"]).attach(trainer, "loss")
    Accuracy(output_transform=lambda output: (output["y_pred"], output["y"])).attach(trainer, "accuracy")
    if bar:
        ProgressBar().attach(trainer, output_transform=lambda output: {"batch loss": output["loss"].item()})

    def run() -> Tracked:
        metrics = trainer.run(work.batches, max_epochs=1).metrics
        return metrics["loss"], metrics["accuracy"]

    return run
