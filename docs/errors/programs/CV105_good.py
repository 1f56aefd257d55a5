"""The sorted data were cut in two: validation has a class that the model never sees in training."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import cvkit

torch.manual_seed(0)
whole = TensorDataset(torch.randn(120, 3, 8, 8), torch.arange(120) // 40)
order = torch.randperm(120).tolist()
train = DataLoader(Subset(whole, order[:80]), batch_size=8, shuffle=True)
val = DataLoader(Subset(whole, order[80:]), batch_size=8)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, val, epochs=1, progress=False)
