"""fastai's ``Learner`` around torch's optimizer."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper

from peers.work import LR, Tracked, Work


class _NoValidation(Callback):
    def before_validate(self) -> None:
        raise CancelValidException


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """A ``Learner`` whose recorder computes the metrics on training batches, and that does not validate."""
    learner = Learner(
        DataLoaders(work.batches, work.batches, device="cpu"),
        work.model,
        loss_func=F.cross_entropy,
        opt_func=OptimWrapper(opt=work.optimizer()),
        lr=LR,
        metrics=accuracy,
        cbs=_NoValidation(),
    )
    learner.recorder.train_metrics, learner.recorder.valid_metrics = True, False
    if not bar:
        learner.remove_cbs(ProgressCallback)
        learner.logger = lambda row: None

    def run() -> Tracked:
        learner.fit(1)
        return None, float(learner.recorder.values[-1][1])  # its training loss is exponentially smoothed

    return run
