"""Outputs begin near 0, and each update moves them by a little."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
features = torch.randn(24, 4)
amounts = torch.rand(24, 1)
model = nn.Linear(4, 1)
cvkit.fit(model, [(features, 300_000 * amounts)], epochs=1, progress=False, loss="mse")
