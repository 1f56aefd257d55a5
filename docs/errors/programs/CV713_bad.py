"""In forward x is overwritten by zeros before it is used: whatever image goes in, the outputs are the same. The best
that such a model can learn is how frequent each class is."""

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
        x = torch.zeros_like(x)
        return self.head(self.conv(x).relu().flatten(1))


model = Net()
cvkit.fit(model, [(images, labels)], epochs=1, progress=False)
