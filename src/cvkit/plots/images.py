"""From a batch to pixels that can be shown: grey, RGB and RGBA, in any range, with what cannot be shown marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError
from cvkit.figures import BAD
from cvkit.training.loader_checks import check_loader
from cvkit.training.loaders import adapt

__all__ = [
    "Batch",
    "Denormalize",
    "Pixels",
    "check_count",
    "first_batch",
    "how_to_denormalize",
    "to_pixels",
    "undisturbed",
]

Denormalize: TypeAlias = Callable[[Tensor], Tensor]
Pixels: TypeAlias = NDArray[np.float32]
"""RGB from 0 to 1, ``(N, H, W, 3)`` or ``(H, W, 3)``."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch on the host.

    Attributes:
        inputs: What the model gets, ``(N, …)``.
        targets: What it is to say, ``(N, …)``; ``None`` where the batch is inputs alone.
    """

    inputs: Tensor
    targets: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs)


def check_count(name: str, value: object) -> None:
    """Refuses what is no number of things.

    Raises:
        ArgumentError: Named by the argument.
    """
    check_integer(name, value, fix=f"{name}=4")


@contextmanager
def undisturbed(loader: Any) -> Iterator[None]:
    """Leaves the global random generators, and those of a loader, as they were."""
    with adapt(loader).undisturbed():
        yield


def first_batch(loader: Any) -> Batch:
    """Returns the first batch of a loader's epoch without moving it or any random generator; or the batch itself.

    Raises:
        ArgumentError: Neither a loader nor a batch.
        DataError: A loader that fails to give a batch.
    """
    if isinstance(loader, Tensor) or (isinstance(loader, list | tuple) and loader and isinstance(loader[0], Tensor)):
        return as_batch(loader)
    check_loader("the loader", loader)
    source = adapt(loader, name="the loader")
    with source.undisturbed():
        return as_batch(source.finish(source.first_batch()))


def as_batch(batch: Any) -> Batch:
    """Returns inputs and targets of a batch, on the host.

    Raises:
        ArgumentError: Not a tensor, and not a pair of them.
    """
    if isinstance(batch, Tensor):
        return Batch(batch.detach().cpu(), None)
    if not isinstance(batch, list | tuple) or not batch or not isinstance(batch[0], Tensor):
        raise ArgumentError(
            "this batch cannot be shown",
            got=type(batch).__name__
            + (f" with the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""),
            expected="(inputs, targets), or inputs",
            fix="pass the pair of one batch instead of the loader: (batch['image'], batch['label'])",
        )
    targets = batch[1] if len(batch) > 1 else None
    if targets is not None and not isinstance(targets, Tensor):
        try:
            targets = torch.as_tensor(targets)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                "these targets cannot be shown",
                got=f"{type(targets).__name__} ({error})",
                expected="a tensor: classes, numbers, masks or images",
                fix="pass the pair of one batch instead of the loader: (inputs, targets)",
            ) from error
    return Batch(batch[0].detach().cpu(), None if targets is None else targets.detach().cpu())


def how_to_denormalize(loader: Any, given: Denormalize | None) -> Denormalize | None:
    """Returns what undoes the normalisation: what is given, else what the loader's transform says."""
    if given is not None:
        return given
    found: Denormalize | None = getattr(getattr(loader, "transform", None), "denormalize", None)
    return found


def to_pixels(images: Tensor, denormalize: Denormalize | None = None) -> tuple[Pixels, list[str]]:
    """Makes images that can be shown of what a model gets.

    Floats are denormalised where it is known how. Then 8-bit levels count from 0 to 255, and floats that lie between 0
    and 1 stay as they are; any other range is stretched from its lowest to its highest value, the same way over all
    images. Transparent pixels show white; those that are not finite are magenta.

    Args:
        images: ``(N, H, W)``, or ``(N, C, H, W)`` (or ``(N, H, W, C)``) with 1 (grey), 3 (RGB) or 4 (RGBA) channels.
        denormalize: Undoes the normalisation, ``(N, C, H, W) -> (N, C, H, W)``.

    Returns:
        Float32 ``(N, H, W, 3)`` from 0 to 1, and notes on what is not shown as it is.

    Raises:
        ArgumentError: Something else than images, or none.
    """
    given = images
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if images.ndim == 4 and images.shape[1] not in (1, 3, 4) and images.shape[3] in (1, 3, 4):
        images = images.permute(0, 3, 1, 2)
    bad = torch.zeros(images.shape[:1] + images.shape[2:], dtype=torch.bool)
    if images.is_floating_point():
        images = images.float()
        bad = ~images.isfinite().all(1) if images.ndim == 4 else bad
        images = denormalize(images) if denormalize is not None and images.numel() else images
    _check_images(given, images)
    scaled, note = _scaled(images)
    if images.shape[1] == 4:  # over white, as transparent pixels look everywhere in cvkit
        scaled = scaled[:, :3] * scaled[:, 3:] + 1 - scaled[:, 3:]
    pixels = scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).clone()
    pixels[bad] = torch.tensor(BAD)
    notes = [note] if note else []
    if bad.any():
        count = int(bad.flatten(1).any(1).sum())
        notes.append(f"pixels that are not finite are magenta ({count} of {len(bad)} images)")
    return pixels.numpy(), notes


def _check_images(given: Tensor, images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4):
        raise ArgumentError(
            "these are no images",
            got=f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}",
            expected="(N, H, W), or (N, C, H, W) with 1 (grey), 3 (RGB) or 4 (RGBA) channels",
            fix="where there are other channels choose three of them: denormalize=lambda images: images[:, :3]",
        )
    if 0 in images.shape:
        raise ArgumentError(
            "there is nothing to show",
            got=f"images of shape {tuple(given.shape)}",
            expected="at least one image of at least one pixel",
            fix="see whether the batch is empty",
        )


def _scaled(images: Tensor) -> tuple[Tensor, str | None]:
    """Brings values to 0 to 1, and says so if the range was not known."""
    if images.dtype == torch.uint8:
        return images.float() / 255, None
    whole, values = not images.is_floating_point(), images.float()
    finite = values[values.isfinite()]
    if finite.numel() == 0:
        return torch.zeros_like(values), None
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        return values.nan_to_num(0.0, 0.0, 0.0), None
    if whole and low >= 0 and high <= 255:
        return values / 255, None
    stretched = (values - low) / (high - low) if high > low else torch.full_like(values, 0.5)
    return stretched.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1), f"values from {low:.3g} to {high:.3g} are shown as 0 to 1"
