"""The model is trained on inputs around 0 and judged on inputs from 0 to 1: the numbers of validation say nothing of it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit

torch.manual_seed(0)
photographs = nn.functional.interpolate(torch.randint(0, 256, (72, 3, 4, 4)).float(), scale_factor=2, mode="bilinear")
targets = torch.arange(72) % 3
images = photographs / 255 * 2 - 1
val = DataLoader(TensorDataset(images[48:], targets[48:]), batch_size=8)
train = DataLoader(TensorDataset(images[:48], targets[:48]), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, val, epochs=1, progress=False)
