"""(N, 1) minus (N,) is (N, N): each output is compared with every target, and the model learns their mean."""

import torch
from torch import nn

import cvkit

torch.manual_seed(0)
features = torch.randn(24, 4)
amounts = torch.rand(24, 1)
model = nn.Linear(4, 1)
cvkit.fit(model, [(features, amounts)], epochs=1, progress=False, loss=nn.MSELoss())
