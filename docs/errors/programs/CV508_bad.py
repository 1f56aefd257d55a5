"""torch's momentum is the share of the new batch in the running statistics; Keras's is one minus it."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192, momentum=0.99), nn.Linear(192, 3))
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
