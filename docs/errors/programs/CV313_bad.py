"""This loss applies a sigmoid itself. A second one leaves outputs from 0.5 to 0.73."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
features = torch.randn(24, 4)
labels = (features[:, :1] > 0).float()
model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
cvkit.fit(model, [(features, labels)], epochs=1, progress=False, loss="bce")
