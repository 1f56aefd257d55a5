"""OneCycleLR fails at the step after its last, in the middle of the run."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(
    model,
    [(images, labels)] * 20,
    epochs=1,
    progress=False,
    schedule=lambda optimizer, total: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=10),
)
