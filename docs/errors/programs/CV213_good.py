"""Integers divided by // are integers: every pixel is 0, but for the odd white one."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit

torch.manual_seed(0)
photographs = nn.functional.interpolate(torch.randint(0, 256, (72, 3, 4, 4)).float(), scale_factor=2, mode="bilinear")
targets = torch.arange(72) % 3
images = photographs / 255
train = DataLoader(TensorDataset(images[:48], targets[:48]), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, epochs=1, progress=False)
