"""With momentum=1 the sum of all gradients so far is the step: it grows without end."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(
    model, [(images, labels)], epochs=1, progress=False, optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=1.0)
)
