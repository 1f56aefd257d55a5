"""A group of batches ends with the epoch."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, [(images, labels)] * 4, epochs=1, progress=False, accumulate=100)
