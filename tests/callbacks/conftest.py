"""A run that takes milliseconds, for every callback."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cvkit.training import Callback, fit

BATCHES = 4


class Logs(Callback):
    """Logs values that were written beforehand, under any name that is logged anyway."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_validation_end(self, state):
        state.logs[self.name] = self.values[state.epoch]


class Do(Callback):
    """Calls a function at one hook; it gets the state and how often it was called."""

    def __init__(self, hook, do, order=0):
        self.calls, self.do, self.order = 0, do, order
        setattr(self, hook, self._call)

    def _call(self, state):
        self.calls += 1
        self.do(state, self.calls)


def run(*callbacks, epochs=2, val=True, model=None, **kwargs):
    """Trains a tiny model on eight samples in four batches."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(2 * BATCHES, 3), torch.randint(0, 2, (2 * BATCHES,))
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=2, shuffle=True)
    model = model or nn.Linear(3, 2)
    options = {"device": "cpu", "progress": False, "preflight": False}
    return fit(model, loader, loader if val else None, epochs=epochs, callbacks=list(callbacks), **(options | kwargs))


@pytest.fixture
def tiny():
    """The functions and classes above."""

    class Tiny:
        batches = BATCHES

    Tiny.run, Tiny.Logs, Tiny.Do = staticmethod(run), Logs, Do
    return Tiny
