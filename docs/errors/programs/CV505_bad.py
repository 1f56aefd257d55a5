"""Each update takes the share lr * weight_decay off every weight."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(
    model,
    [(images, labels)],
    epochs=1,
    progress=False,
    optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=100),
)
