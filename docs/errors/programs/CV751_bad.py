"""The last batch of an epoch holds what is left, here one sample: batch norm needs two."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
cvkit.fit(
    model,
    torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 23, shuffle=True),
    epochs=1,
    progress=False,
)
