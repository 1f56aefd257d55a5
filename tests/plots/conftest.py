"""Reading a figure back: what is drawn and written on it."""

import numpy as np
import pytest
import torch
from torch import nn

from cvkit.data import Loader

pytest.importorskip("matplotlib")


class Read:
    """What is on a figure made of images."""

    def __init__(self, figure):
        self.figure = figure
        self.titles = [axes.get_title() for axes in figure.axes]
        self.images = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
        self.colours = [axes.title.get_color() for axes in figure.axes]
        self.frames = [axes.spines["left"].get_edgecolor() for axes in figure.axes]
        self.heading = figure.get_suptitle()
        self.parts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
        self.note = figure.get_supxlabel()
        legend = figure.legends[0] if figure.legends else None
        self.legend = [] if legend is None else [text.get_text() for text in legend.get_texts()]


class Fixed(nn.Module):
    """A model that gives the outputs it was made with, whatever it is asked."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = torch.as_tensor(outputs)
        self.asked = 0

    def forward(self, inputs):
        start = self.asked % len(self.outputs)
        self.asked += len(inputs)
        return self.outputs[start : start + len(inputs)]


@pytest.fixture
def read():
    return Read


@pytest.fixture
def fixed():
    return Fixed


class Squares:
    """A dataset of grey squares: sample i is an image of level 10 i, of class i % 3."""

    classes = ("ants", "bees", "cats")

    def __init__(self, count=7):
        self.count = count
        self.paths = [f"root/{self.classes[i % 3]}/picture_{i}.png" for i in range(count)]
        self.broken = set()
        self.on_error = "raise"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        from cvkit.errors import ImageError

        if index in self.broken:
            raise ImageError(f"{self.paths[index]} is damaged")
        return torch.full((1, 4, 4), 10 * index, dtype=torch.uint8), index % 3


@pytest.fixture
def squares():
    return Squares()


@pytest.fixture
def loader(squares):
    return Loader(squares, 4, workers=0, cache=None)
