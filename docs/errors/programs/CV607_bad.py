"""Units with the same weights compute the same, get the same gradient, and so stay the same: a layer of 100 such
units is a layer of one. Weights are initialised at random to be different."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def initialise(layer):
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.constant_(layer.weight, 0.01)


model.apply(initialise)
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
