"""The loss dice applies a sigmoid itself."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, masks = torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid())
cvkit.fit(model, [(images, masks)], epochs=1, progress=False, loss="dice")
