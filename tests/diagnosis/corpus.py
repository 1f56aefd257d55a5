"""The corpus: mistakes with their sound twins, and sound programs that hasty checks would suspect."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import cvkit
from cvkit.errors import PreflightError

MISTAKES: list["Mistake"] = []
SOUND: list["Sound"] = []


@dataclass(frozen=True)
class Mistake:
    """A program by ``build(True)``, and its sound twin by ``build(False)``: the arguments of ``fit``."""

    name: str
    codes: tuple[str, ...]
    build: Callable[[bool], dict[str, Any]]


@dataclass(frozen=True)
class Sound:
    name: str
    build: Callable[[], dict[str, Any]]


def mistake(*codes):
    """Files a function ``(wrong: bool) -> arguments of fit``; any of the codes names the mistake."""

    def file(build):
        MISTAKES.append(Mistake(build.__name__, codes, build))
        return build

    return file


def sound(build):
    """Files a function ``() -> arguments of fit`` of which nothing is to be said."""
    SOUND.append(Sound(build.__name__, build))
    return build


def codes_of(arguments):
    """Runs a program; returns the codes that it is stopped by, with warnings as errors."""
    arguments = {"epochs": 1, "progress": False, "device": "cpu", "preflight": "strict", "seed": 0, **arguments}
    model, train = arguments.pop("model"), arguments.pop("train")
    try:
        cvkit.fit(model, train, arguments.pop("val", None), **arguments)
    except PreflightError as error:
        return [one.code for one in error.findings]
    return []


# --- what programs are made of


def images(count=24, classes=3, size=8, channels=3, batch=8):
    """Batches of normalised images, each class in each batch."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, channels, size, size, generator=generator)
    targets = torch.arange(count) % classes
    inputs += targets[:, None, None, None] * 0.2
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))


def values(count=24, features=4, low=-1.0, high=1.0, batch=8, wide=True):
    """Batches for a regression."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, features, generator=generator)
    targets = low + (high - low) * torch.rand(count, 1, generator=generator)
    return list(zip(inputs.split(batch), (targets if wide else targets[:, 0]).split(batch), strict=True))


def bits(count=24, features=4, labels=1, batch=8, low=0.0, high=1.0):
    """Batches of one or several labels a sample, each of two values."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, features, generator=generator)
    targets = (inputs[:, :labels] > 0).float() * (high - low) + low
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))


def network(*end, classes=3, channels=3, size=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * size * size, classes), *end
    )


def dense(*end, inputs=4, outputs=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs), *end)


class Wrapped(nn.Module):
    """A model whose forward is a function of its own."""

    def __init__(self, forward, inner=None):
        super().__init__()
        self.inner = inner if inner is not None else network()
        self.function = forward

    def forward(self, x):
        return self.function(self.inner, x)
