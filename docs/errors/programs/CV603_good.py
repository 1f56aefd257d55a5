"""The sound program."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 3)
        layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        x = self.conv(x)
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(x.flatten(1))


model = Net()
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
