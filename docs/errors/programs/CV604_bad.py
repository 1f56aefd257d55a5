"""For transfer learning the new head is trained and the rest is frozen. The other way round the head stays random,
and what was learned before is changed until it fits a random head."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
model[3].requires_grad_(False)
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
