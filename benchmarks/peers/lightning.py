"""Lightning, lean: no logger, no checkpoints, no model summary."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from peers.work import Tracked, Work

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning")


class _Module(pl.LightningModule):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model = work.model
        self.made = work.optimizer()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, targets = batch
        outputs = self.model(inputs)
        loss = F.cross_entropy(outputs, targets)
        accuracy = (outputs.detach().argmax(1) == targets).float().mean()
        size = targets.shape[0]
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        self.log("accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.made


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """A ``Trainer`` with everything off that is not asked for here."""
    module = _Module(work)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=bar,
    )

    def run() -> Tracked:
        trainer.fit(module, work.batches)
        return float(trainer.callback_metrics["loss"]), float(trainer.callback_metrics["accuracy"])

    return run
