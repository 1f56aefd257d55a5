"""A dataset gives one sample at a time; a loader makes batches of them and shuffles."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
dataset = torch.utils.data.TensorDataset(images, labels)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, torch.utils.data.DataLoader(dataset, 8, shuffle=True), epochs=1, progress=False)
