"""A ReLU whose input is below 0 for every sample passes no gradient on. Here the bias puts all of them below 0, so
neither this layer nor any before it can ever change. What is zero-initialised on purpose is not meant: there the
gradient comes back after the first steps, which is tried."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
nn.init.constant_(model[0].bias, -100.0)
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
