"""Number 0 is another class in validation: the model is judged by the wrong answers."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cvkit

torch.manual_seed(0)


class Animals(Dataset):
    def __init__(self, classes):
        self.classes = classes
        self.targets = [place % len(classes) for place in range(48)]
        self.images = torch.randn(48, 3, 8, 8)

    def __len__(self):
        return 48

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
train = DataLoader(Animals(["cat", "cow", "dog"]), batch_size=8, shuffle=True)
val = DataLoader(Animals(["cow", "dog"]), batch_size=8)  # no folder 'cat' here
cvkit.fit(model, train, val, epochs=1, progress=False)
