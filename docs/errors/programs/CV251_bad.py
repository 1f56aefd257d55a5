"""The model has seen the samples that it is judged by: what it knows by heart looks like what it has learned."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import cvkit

torch.manual_seed(0)
images, targets = torch.randn(96, 3, 8, 8), torch.arange(96) % 3
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
whole = TensorDataset(images, targets)
train = DataLoader(Subset(whole, torch.randperm(96)[:72].tolist()), batch_size=8, shuffle=True)
val = DataLoader(Subset(whole, torch.randperm(96)[72:].tolist()), batch_size=8)
cvkit.fit(model, train, val, epochs=1, progress=False)
