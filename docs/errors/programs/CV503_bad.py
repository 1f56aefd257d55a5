"""An update larger than the weights themselves forgets what they were."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
features = torch.randn(24, 4)
amounts = torch.rand(24, 1)
model = nn.Linear(4, 1)
cvkit.fit(model, [(features, amounts)], epochs=1, progress=False, loss="mse", optimizer="sgd", lr=100.0)
