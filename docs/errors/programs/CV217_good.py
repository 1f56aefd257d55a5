"""Validation with augmentation judges another model each time, and a worse one than the model is."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cvkit

torch.manual_seed(0)
photographs = nn.functional.interpolate(torch.randint(0, 256, (72, 3, 4, 4)).float(), scale_factor=2, mode="bilinear")
targets = torch.arange(72) % 3
images = photographs / 255


class Photographs(Dataset):
    def __init__(self, images, targets, augment):
        self.images, self.targets, self.augment = images, targets, augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return image.flip(-1) if self.augment and torch.rand(()) < 0.5 else image, self.targets[index]


train = DataLoader(Photographs(images[:48], targets[:48], augment=True), batch_size=8, shuffle=True)
val = DataLoader(Photographs(images[48:], targets[48:], augment=False), batch_size=8)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, val, epochs=1, progress=False)
