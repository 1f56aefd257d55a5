"""Binary cross entropy with targets of 255 falls without end."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
features = torch.randn(24, 4)
labels = (features[:, :1] > 0).float()
model = nn.Linear(4, 1)
cvkit.fit(model, [(features, labels)], epochs=1, progress=False, loss="bce")
