"""What the authors of well-known trainings would pass to ``fit``: plain dicts, to be printed, changed and passed on.

Each has the numbers of its source for ImageNet, as ``fit`` takes them. What belongs to the loader, the transform or a callback
is said in words, for it needs your data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn import Parameter
from torch.optim import Optimizer

from cvkit.registry import Registry

__all__ = ["Recipe", "get", "names"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training.

    Attributes:
        model: The model that it is for, by its name in ``cvkit.models.create``.
        fit: Arguments of ``cvkit.fit``.
        batch_size: The global batch size that ``lr`` is for; with another, change ``lr`` in proportion.
        data: What the images go through, in words.
        beside: What else belongs to it, in words.
        source: Where the numbers are from.
    """

    model: str
    fit: dict[str, Any]
    batch_size: int
    data: str
    beside: str
    source: str


_STRONG = "crop to 176, TrivialAugment wide, random erasing 0.1, mixup 0.2, CutMix 1.0, repeated augmentation 4"
_BESIDE = "the callback EMA; norms are not decayed: give optimizer the groups of cvkit.models.param_groups"
_BY_STEP = "; there the rate changes once an epoch, here at each update"

_recipes: Registry[Callable[[], Recipe]] = Registry("recipe")

_TORCHVISION = "torchvision, references/classification/README.md, "


def get(name: str) -> Recipe:
    """Returns a recipe, a fresh copy each time.

    Example::

        recipe = cvkit.recipes.get("resnet50_v1")
        cvkit.fit(model, train, val, **recipe.fit)

    Args:
        name: One of :func:`names`.

    Raises:
        UnknownNameError: A name that is not known.
    """
    return _recipes.get(name)()


def names() -> list[str]:
    """Returns the names of all recipes, sorted."""
    return _recipes.names()


def _sgd(lr: float, weight_decay: float) -> Callable[[list[Parameter]], Optimizer]:
    return functools.partial(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=weight_decay)


def _adamw(lr: float, weight_decay: float) -> Callable[[list[Parameter]], Optimizer]:
    return functools.partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay)


_SMOOTH = functools.partial(F.cross_entropy, label_smoothing=0.1)


@_recipes.register("resnet50_v1")
def _resnet50_v1() -> Recipe:
    return Recipe(
        model="resnet50",
        fit={"epochs": 90, "optimizer": _sgd(0.1, 1e-4), "schedule": "step", "loss": "cross_entropy"},
        batch_size=256,
        data="random resized crop to 224, horizontal flip; evaluation at 224 of 256",
        beside="nothing",
        source=f"{_TORCHVISION}ResNet: 8 GPUs of 32 images, a tenth of the rate every 30 epochs",
    )


@_recipes.register("resnet50_v2")
def _resnet50_v2() -> Recipe:
    return Recipe(
        model="resnet50",
        fit={
            "epochs": 600,
            "optimizer": _sgd(0.5, 2e-5),
            "schedule": "cosine",
            "warmup": 5 / 600,
            "loss": _SMOOTH,
            "metrics": ["accuracy", "top5"],
        },
        batch_size=1024,
        data=f"{_STRONG}; evaluation at 224 of 232",
        beside=_BESIDE,
        source="Vryniotis, How to Train State-Of-The-Art Models Using TorchVision's Latest Primitives, 2021" + _BY_STEP,
    )


@_recipes.register("convnext_tiny")
def _convnext_tiny() -> Recipe:
    return Recipe(
        model="convnext_tiny",
        fit={
            "epochs": 600,
            "optimizer": _adamw(1e-3, 0.05),
            "schedule": "cosine",
            "warmup": 5 / 600,
            "loss": _SMOOTH,
            "metrics": ["accuracy", "top5"],
        },
        batch_size=1024,
        data=f"{_STRONG}; evaluation at 224",
        beside=_BESIDE,
        source=f"{_TORCHVISION}ConvNeXt: 8 GPUs of 128 images{_BY_STEP}",
    )


@_recipes.register("vit_b_16")
def _vit_b_16() -> Recipe:
    return Recipe(
        model="vit_b_16",
        fit={
            "epochs": 300,
            "optimizer": _adamw(3e-3, 0.3),
            "schedule": "cosine",
            "warmup": 30 / 300,
            "loss": functools.partial(F.cross_entropy, label_smoothing=0.11),
            "clip_norm": 1.0,
            "precision": "bf16",
            "metrics": ["accuracy", "top5"],
        },
        batch_size=4096,
        data="crop to 224, RandAugment, mixup 0.2, CutMix 1.0, repeated augmentation 3",
        beside="the callback EMA",
        source=f"{_TORCHVISION}ViT: 64 GPUs of 64 images; there with fp16{_BY_STEP}",
    )
