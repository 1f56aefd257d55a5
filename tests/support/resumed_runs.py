"""One command, run again and again: what the tests of exact resume share."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cvkit import seeding
from cvkit.callbacks import Checkpoint, EarlyStopping
from cvkit.training import Callback, fit

SAMPLES, BATCH, ACCUMULATE = 18, 4, 2  # 5 batches an epoch, the last one short: 3 updates, the last group short


def data(batch_size=BATCH, shuffle=True, generator=None, seed=3):
    made = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(SAMPLES, 4, generator=made), torch.randint(0, 3, (SAMPLES,), generator=made)
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=shuffle, generator=generator)


def network(dropout=0.3):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


class Keeps(Callback):
    """Keeps hold of the state, and does something at a given point of a run."""

    def __init__(self, hook=None, do=None):
        self.calls = 0
        if hook is not None:
            setattr(self, hook, lambda state: self._count(state, do))

    def _count(self, state, do):
        self.calls += 1
        do(state, self.calls)

    def on_fit_start(self, state):
        self.state = state


class Drawing(Callback):
    """Draws random numbers whenever something starts, as a callback that shows a random image does."""

    def on_fit_start(self, state):
        torch.rand(3), random.random(), np.random.rand()

    def on_epoch_start(self, state):
        torch.rand(2), random.random(), np.random.rand()


def train(directory, *extra, epochs=2, resume=True, train=None, val=None, checkpoint=None, seed=0, **kwargs):
    """Runs the same command again; returns the result and everything that has to be the same."""
    options = {
        "schedule": "cosine",
        "accumulate": ACCUMULATE,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
        "device": "cpu",
        "progress": False,
        "preflight": False,
    }
    torch.manual_seed(1)
    model, keeps = network(), Keeps()
    torch.manual_seed(seed)
    stopping = EarlyStopping("val_loss", patience=5)
    result = fit(
        model,
        train or data(),
        val or data(shuffle=False, seed=4),
        epochs=epochs,
        seed=seed,
        resume=resume,
        callbacks=[*extra, keeps, stopping, checkpoint or Checkpoint(directory)],
        **(options | kwargs),
    )
    scaler = keeps.state.runtime.scaler
    everything = {
        "model": model.state_dict(),
        "optimizers": [one.state_dict() for one in keeps.state.optimizers],
        "schedules": [one.state_dict() for one in keeps.state.schedules],
        "scaler": scaler.state_dict() if scaler is not None else None,
        "history": result.history.rows,
        "stopping": stopping.state_dict(),
        "rng": seeding.capture(),
        "steps": result.steps,
    }
    return result, everything


def assert_same(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert a.numpy().tobytes() == b.numpy().tobytes(), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    elif not callable(a):
        assert a == b, where


def stop_at(call, reason="stop"):
    def do(state, calls):
        if calls == call:
            state.request_stop(reason)

    return do
