"""skorch's classifier with accuracy on training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring, ProgressBar
from torch import nn

from peers.work import BATCH, CLASSES, Tracked, Work


class _Finished:
    """Passes the finished batches on in place of a ``DataLoader``."""

    def __init__(self, dataset: Any, batch_size: int) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset)


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """``partial_fit`` on a prepared net, without its validation split and its printed table."""
    callbacks: list[Any] = [
        ("train_acc", EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False))
    ]
    if bar:
        callbacks.append(("bar", ProgressBar(batches_per_epoch=len(work.batches))))
    net = NeuralNetClassifier(
        work.model,
        criterion=nn.CrossEntropyLoss,
        optimizer=lambda parameters, lr: work.optimizer(),
        max_epochs=1,
        batch_size=BATCH,
        iterator_train=_Finished,
        train_split=None,
        classes=list(range(CLASSES)),
        callbacks=callbacks,
        callbacks__print_log=None,
        torch_load_kwargs={"weights_only": True},
    )
    net.initialize()
    work.model = net.module_

    def run() -> Tracked:
        net.partial_fit(work.batches, None)
        return net.history[-1, "train_loss"], net.history[-1, "train_acc"]

    return run
