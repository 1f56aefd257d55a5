"""F.dropout drops unless it is told not to: its training is True by default. The model then predicts by chance.
nn.Dropout knows its mode, where it is an attribute of the model; made in forward, or kept in a list, it is always
in training mode. F.dropout(x, p, training=True) says that it is meant so, as in Monte Carlo dropout."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 3)

    def forward(self, x):
        x = nn.functional.dropout(self.conv(x).relu(), 0.5)
        return self.head(x.flatten(1))


model = Net()
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
