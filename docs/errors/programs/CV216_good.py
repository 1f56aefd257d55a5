"""A model that pools takes images of any size, and has learned how large things are at one of them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit

torch.manual_seed(0)
photographs = nn.functional.interpolate(torch.randint(0, 256, (72, 3, 4, 4)).float(), scale_factor=2, mode="bilinear")
targets = torch.arange(72) % 3
images = photographs / 255
train = DataLoader(TensorDataset(images[:48], targets[:48]), batch_size=8, shuffle=True)
val = DataLoader(TensorDataset(images[48:], targets[48:]), batch_size=8)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
cvkit.fit(model, train, val, epochs=1, progress=False)
