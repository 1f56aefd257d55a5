"""What every training preset may add to its own: mirror images, colours, erasing, noise, mixtures; and policies per image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ArgumentError, unknown_name
from cvkit.transforms import batch as ops
from cvkit.transforms import colour
from cvkit.transforms.base import Framed
from cvkit.transforms.sample import Frame

__all__ = ["Augmented", "check_probability", "draw_erased", "draw_mixed"]

POLICIES = ("autoaugment", "randaugment", "trivialaugment")
"""Policies per image by name; torchvision's own, with their published settings."""

_COLOURS = ("brightness", "contrast", "saturation", "hue")
"""What changes colours, in this order."""

_ERASE_SCALE, _ERASE_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al., 2017, section 4.1, as in torchvision
_ERASE_TRIES = 10


def check_probability(name: str, argument: str, value: float) -> None:
    """Refuses what is no probability.

    Raises:
        ArgumentError: It is not.
    """
    if not 0 <= value <= 1:
        raise ArgumentError(
            f"{name}: {argument} cannot be used",
            got=repr(value),
            expected="a probability from 0 to 1",
            fix=f"pass e.g. {argument}=0.5",
        )


@dataclass(frozen=True, repr=False)
class Augmented(Framed):
    """A training preset; what each field means is said where presets are built."""

    flips_late: ClassVar[bool] = False
    """Whether mirror images are made where images are normalised: if nothing comes between, and no target moves with them."""

    flip: float
    vertical_flip: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    erase: float
    mixup: float
    cutmix: float
    num_classes: int | None
    augment: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("flip", "vertical_flip", "erase"):
            check_probability(self.name, argument, getattr(self, argument))
        for argument, most in (("brightness", 1e3), ("contrast", 1e3), ("saturation", 1e3), ("hue", 0.5)):
            _check_strength(self.name, argument, getattr(self, argument), most)
        for argument in ("mixup", "cutmix"):
            _check_strength(self.name, argument, getattr(self, argument), 1e3)
        if self.augment is not None and self.augment not in POLICIES:
            raise unknown_name("augment", self.augment, POLICIES)
        classes = self.num_classes
        if (self.mixup or self.cutmix) and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 2):
            raise ArgumentError(
                f"{self.name}: mixup and cutmix make soft targets and must know how many classes there are",
                got=f"num_classes={classes!r}",
                expected="the number of classes, 2 or more",
                fix="pass num_classes=len(data.classes)",
            )

    @property
    def mixes(self) -> bool:  # type: ignore[override]  # of a class above, a property here
        """Whether samples are mixed: mixup and cutmix do."""
        return bool(self.mixup or self.cutmix)

    @property
    def draws_global(self) -> bool:  # type: ignore[override]  # of a class above, a property here
        """Whether the first stage draws from torch's global generator, as torchvision's policies do."""
        return self.augment is not None

    def cut(self, image: Image.Image | Tensor, frame: Frame) -> Tensor:
        """Cuts the frame out, then applies the policy, if there is one."""
        pixels = super().cut(image, frame)
        return _policy(self.augment)(pixels.contiguous()) if self.augment is not None else pixels

    def passes(self, channels: int, height: int, width: int) -> bool:
        """Whether the first stage returns every such image as it is: without a policy, what its frame says."""
        return self.keeps(channels, height, width)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws what is asked for, and nothing for what is not."""
        draws: dict[str, Tensor] = {}
        for name in ("flip", "vertical_flip"):
            if probability := getattr(self, name):
                draws[name] = torch.rand(count, generator=generator) < probability
        for name in ("brightness", "contrast", "saturation"):
            if strength := getattr(self, name):
                low = max(1 - strength, 0.0)
                draws[name] = low + torch.rand(count, generator=generator) * (1 + strength - low)
        if self.hue:
            draws["hue"] = (2 * torch.rand(count, generator=generator) - 1) * self.hue
        if self.erase:
            draws["erase"] = draw_erased(count, self.size, self.erase, generator)
        if self.mixup or self.cutmix:
            draws["share"], draws["box"] = draw_mixed(count, self.size, self.mixup, self.cutmix, generator)
        return draws

    def apply(self, images: Tensor, targets: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mirrors, changes colours, normalises, erases and mixes, in this order."""
        late = draws.get("flip") if self.flips_late and not any(name in draws for name in _COLOURS) else None
        images, targets = self.moved(images, targets, {**draws, "flip": None} if late is not None else draws)
        images = (
            ops.normalize(images, self.mean, self.std, flip=late) if late is not None else self.coloured(images, draws)
        )
        if "erase" in draws:
            images = ops.erase(images, draws["erase"])
        if "share" in draws:
            images = ops.mix(images, draws["share"], draws["box"] if self.cutmix else None)
            targets = self._mixed(targets, draws["share"])
        return images, targets

    def moved(self, images: Tensor, targets: Tensor, draws: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Moves the pixels of uint8 images, and those of targets that are images."""
        if draws.get("flip") is not None:
            images = ops.horizontal_flip(images, draws["flip"])
        if "vertical_flip" in draws:
            images = ops.vertical_flip(images, draws["vertical_flip"])
        return images, targets

    def coloured(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Changes the colours of uint8 images, and normalises them."""
        chosen = [name for name in _COLOURS if name in draws]
        if not chosen:
            return ops.normalize(images, self.mean, self.std)
        levels = images.float().div_(255)
        for name in chosen:
            levels = getattr(colour, name)(levels, ops.to_device(draws[name], levels.device))
        return ops.normalize(levels.mul_(255), self.mean, self.std)

    def _mixed(self, targets: Tensor, share: Tensor) -> Tensor:
        if targets.is_floating_point() or targets.ndim != 1:
            raise ArgumentError(
                f"{self.name}: mixup and cutmix mix classes",
                got=f"targets {targets.dtype} of shape {tuple(targets.shape)}",
                expected="class indices, one a sample",
                fix="leave mixup and cutmix out",
            )
        if targets.device.type == "cpu" and len(targets):  # elsewhere looking would make the step wait
            self._check_classes(targets)
        hot = torch.nn.functional.one_hot(targets, self.num_classes or -1).float()
        return torch.lerp(hot.roll(1, 0), hot, ops.to_device(share, hot.device)[:, None].to(hot.dtype))

    def _check_classes(self, targets: Tensor) -> None:
        low, high = (int(value) for value in targets.aminmax())
        if low < 0 or high >= (self.num_classes or 0):
            raise ArgumentError(
                f"{self.name}: there are targets that are none of the classes",
                got=f"targets from {low} to {high}",
                expected=f"from 0 to {(self.num_classes or 0) - 1}, for num_classes={self.num_classes}",
                fix="pass num_classes=len(data.classes)",
            )


def _check_strength(name: str, argument: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise ArgumentError(
            f"{name}: {argument} cannot be used",
            got=repr(value),
            expected=f"a number from 0 (none) to {most:g}",
            fix=f"pass e.g. {argument}=0.2",
        )


@lru_cache(maxsize=8)
def _policy(name: str) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # here, because it takes long to load and most presets need nothing of it

    policies: dict[str, Any] = {
        "autoaugment": v2.AutoAugment,
        "randaugment": v2.RandAugment,
        "trivialaugment": v2.TrivialAugmentWide,
    }
    policy: Callable[[Tensor], Tensor] = policies[name](interpolation=v2.InterpolationMode.BILINEAR)
    return policy


def draw_erased(count: int, size: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draws the box that is erased in each sample.

    The area is uniform from 2 to 33 % of the image's, the logarithm of height over width uniform from that of 0.3 to that of
    3.3, the place uniform; after ten draws that do not fit nothing is erased. As in ``torchvision.transforms.RandomErasing``.

    Returns:
        int64 ``(count, 4)``: top, left, height, width; height 0 where nothing is erased.
    """
    wanted = torch.rand(count, 1, generator=generator) < probability
    area, aspect, y, x = torch.rand(4, count, _ERASE_TRIES, generator=generator)
    pixels = size * size * (_ERASE_SCALE[0] + area * (_ERASE_SCALE[1] - _ERASE_SCALE[0]))
    low, high = math.log(_ERASE_RATIO[0]), math.log(_ERASE_RATIO[1])
    shape = torch.exp(low + aspect * (high - low))
    height, width = (pixels * shape).sqrt().round(), (pixels / shape).sqrt().round()
    fits = (height < size) & (width < size) & (height > 0) & (width > 0)
    top, left = (y * (size - height + 1)).floor(), (x * (size - width + 1)).floor()
    tries = torch.stack([top, left, height, width], -1).long()
    first = fits.long().argmax(1)  # of several largest, the first
    chosen = tries[torch.arange(count), first]
    return torch.where(wanted & fits.any(1, keepdim=True), chosen, 0)


def draw_mixed(count: int, size: int, mixup: float, cutmix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws how each sample is mixed with the one before it; where both ways are on, one of them by a fair coin.

    Sources: Zhang et al., mixup, 2017; Yun et al., CutMix, 2019 (a box around a uniform centre, cut at the borders; the share
    is what is left outside of it).

    Args:
        count: Number of samples.
        size: Side of the samples in pixels.
        mixup: Parameter of the beta distribution of mixup's share; 0 for none.
        cutmix: The same for cutmix.
        generator: Where the numbers come from.

    Returns:
        float32 ``(count,)``, the share that a sample keeps, and int64 ``(count, 4)``, the boxes; height 0 for mixup.
    """
    # torch draws no beta distribution from a custom generator
    seed = int(torch.randint(0, 2**63 - 1, (), generator=generator))
    beta = np.random.default_rng(seed).beta
    by_box = torch.rand(count, generator=generator) < (0.5 if mixup and cutmix else float(cutmix > 0))
    blend = torch.from_numpy(beta(mixup or 1.0, mixup or 1.0, count)).float()
    kept = torch.from_numpy(beta(cutmix or 1.0, cutmix or 1.0, count))
    half = (size * (1 - kept).sqrt() / 2).long()
    y, x = torch.randint(0, size, (2, count), generator=generator)
    top, left = (y - half).clamp(0, size), (x - half).clamp(0, size)
    bottom, right = (y + half).clamp(0, size), (x + half).clamp(0, size)
    boxes = torch.stack([top, left, bottom - top, right - left], 1) * by_box[:, None]
    outside = 1 - (boxes[:, 2] * boxes[:, 3]).float() / (size * size)
    return torch.where(by_box, outside, blend), boxes
