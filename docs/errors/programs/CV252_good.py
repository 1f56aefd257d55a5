"""Some images were copied into the folder of validation and left in that of training: the model has seen them."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

import cvkit
from cvkit.data import FolderDataset, Loader

root = Path(tempfile.mkdtemp())
for number, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (72, 8, 8, 3), np.uint8)):
    folder = root / ("train" if number < 48 else "val") / ("cat" if number % 2 else "dog")
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{number}.png")
train = FolderDataset(root / "train")
val = FolderDataset(root / "val", classes=train.classes)
transform = cvkit.transforms.small_image_eval(8)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
loaders = [Loader(one, 8, shuffle=one is train, transform=transform) for one in (train, val)]
cvkit.fit(model, *loaders, epochs=1, progress=False)
shutil.rmtree(root)
