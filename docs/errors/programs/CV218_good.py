"""The batches before it train well; then one sample makes every weight NaN, and nothing brings them back."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit

torch.manual_seed(0)
intensities, targets = torch.rand(48, 3, 8, 8) + 0.1, torch.arange(48) % 3
intensities[30, 0, 0, 0] = 0
images = (intensities + 1e-3).log()
train = DataLoader(TensorDataset(images, targets), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, epochs=1, progress=False, seed=0)
