"""The same image has every label: nothing can be learned from it but how frequent the labels are."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cvkit

torch.manual_seed(0)
photographs = nn.functional.interpolate(torch.randint(0, 256, (72, 3, 4, 4)).float(), scale_factor=2, mode="bilinear")
targets = torch.arange(72) % 3
images = photographs / 255


class Photographs(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        return images[0], targets[index]


train = DataLoader(Photographs(), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
cvkit.fit(model, train, epochs=1, progress=False)
