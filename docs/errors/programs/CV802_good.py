"""cross_entropy takes the outputs first."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, [(images, labels)], epochs=1, progress=False, loss=loss)
