"""The sampler takes weights as samples: with three of them only the first three samples are ever drawn."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import cvkit

torch.manual_seed(0)
targets = torch.arange(48) % 3
class_weights = 1 / torch.bincount(targets)
sampler = WeightedRandomSampler(class_weights, 48)
train = DataLoader(TensorDataset(torch.randn(48, 3, 8, 8), targets), batch_size=8, sampler=sampler)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, epochs=1, progress=False)
