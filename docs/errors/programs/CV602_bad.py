"""An optimizer changes the parameters that it was built with. A layer that is put in afterwards is another one: its
gradient is computed, and no update ever uses it."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
optimizer = torch.optim.AdamW(model.parameters())
model[3] = nn.Linear(144, 3)
cvkit.fit(model, [(images, labels)], epochs=1, optimizer=optimizer, progress=False)
