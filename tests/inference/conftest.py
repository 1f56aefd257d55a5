"""Folders of images of every kind, two small models, and runs of a moment that leave a checkpoint."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint

CLASSES = ["a", "b c", "d"]
OPTIONS = {"epochs": 1, "device": "cpu", "progress": False, "preflight": False, "lr": 1e-2}


@cvkit.models.register("test_classifier")
def classifier(*, num_classes, in_channels=3, width=8):
    """Convolution, batch norm, average, linear: ``(N, C, H, W)`` to ``(N, num_classes)``."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 5, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


@cvkit.models.register("test_segmenter")
def segmenter(*, num_classes, in_channels=3):
    """Three convolutions: ``(N, C, H, W)`` to ``(N, num_classes, H, W)``."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, num_classes, 1),
    )


def image(generator, width, height, mode="RGB"):
    """An image of smooth noise, as photos are rather smooth."""
    shape = (height // 8 + 2, width // 8 + 2, 3)
    coarse = Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def write_photos(root: Path, seed: int) -> Path:
    """Writes five images a class: JPEG large and small, lying on its side, grey; PNG with transparency and palette."""
    generator = np.random.default_rng(seed)
    for name in CLASSES:
        inside = root / name / "deeper"
        inside.mkdir(parents=True)
        folder = root / name
        sideways = Image.Exif()
        sideways[0x0112] = 6
        image(generator, 400, 300).save(folder / "large.jpg")
        image(generator, 320, 200).save(folder / "turned.JPG", exif=sideways)
        image(generator, 48, 40, "L").save(folder / "grey.jpg")
        clear = image(generator, 50, 60, "RGBA")
        clear.putalpha(image(generator, 50, 60, "L"))
        clear.save(folder / "clear.png")
        image(generator, 45, 45, "P").save(inside / "palette.png")
    (root / ".hidden").mkdir()
    image(generator, 40, 40).save(root / ".hidden" / "x.png")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with ``train`` and ``val``, each with a folder a class."""
    root = tmp_path_factory.mktemp("photos")
    write_photos(root / "train", 0)
    write_photos(root / "val", 1)
    return root


def checkpoint(directory, model, train, val=None, **options):
    """Trains for a moment and returns the checkpoint's file."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cvkit.errors.CvkitWarning)
        cvkit.fit(model, train, val, callbacks=[Checkpoint(directory, monitor=None)], **(OPTIONS | options))
    return Path(directory) / "last.pt"


@pytest.fixture(scope="session")
def run(photos, tmp_path_factory):
    """A classifier with batch norm, trained for a moment; ``.path``, ``.data``, ``.model``, ``.folder`` (validation)."""
    torch.manual_seed(0)
    transform = cvkit.transforms.classification_train(32)
    data = cvkit.data.from_folder(photos, size=32, batch_size=4, transform=transform)
    model = cvkit.models.create("test_classifier", num_classes=3)
    path = checkpoint(tmp_path_factory.mktemp("run"), model, data.train, data.val)
    return SimpleNamespace(path=path, data=data, model=model.eval(), folder=photos / "val")


@pytest.fixture(scope="session")
def predictor(run):
    """The predictor of that run, on the CPU."""
    return cvkit.load(run.path, device="cpu")


@pytest.fixture(scope="session")
def trained():
    """The function that trains for a moment."""
    return checkpoint


@pytest.fixture(scope="session")
def drawn():
    """The function that draws an image."""
    return image


class Fixed(nn.Module):
    """Gives the same outputs for every image, or what a function makes of the inputs."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs):
        if callable(self.outputs):
            return self.outputs(inputs)
        return torch.tensor(self.outputs).expand(len(inputs), *torch.tensor(self.outputs).shape).clone()


@pytest.fixture(scope="session")
def fixed():
    """A predictor of a model that says what it is told to."""

    def make(made, classes=("a", "b", "c"), transform=None, **options):
        transform = transform or cvkit.transforms.small_image_eval(8)
        names = list(classes) if classes is not None else None
        return cvkit.Predictor(Fixed(made), names, transform, device="cpu", **options)

    return make
