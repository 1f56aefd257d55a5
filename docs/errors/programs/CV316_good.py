"""A sigmoid gives values from 0 to 1: a target of 10 is never reached."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
features = torch.randn(24, 4)
amounts = torch.rand(24, 1)
model = nn.Linear(4, 1)
cvkit.fit(model, [(features, 10 * amounts)], epochs=1, progress=False, loss="mse")
