"""One label is no class of the model. The first batches run; the epoch fails where the sample comes."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit

torch.manual_seed(0)
targets = torch.arange(48) % 3
targets[30] = 3
train = DataLoader(TensorDataset(torch.randn(48, 3, 8, 8), targets), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, epochs=1, progress=False)
