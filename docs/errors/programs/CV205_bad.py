"""Weights are floats, and inputs of about 1 suit their usual first values."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
