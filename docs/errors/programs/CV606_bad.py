"""The slope of a sigmoid is at most 1/4, so that each one takes at least three quarters of the gradient away; behind
twenty of them nothing is left for the first layer."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
layers = []
for _ in range(20):
    layers += [nn.Linear(16, 16), nn.Sigmoid()]
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), *layers, nn.Linear(16, 3))
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
