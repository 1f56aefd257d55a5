"""Operations on a whole batch, vectorised, each sample with a random draw of its own. They run on the device.

Each takes its draws as arguments and is a pure function; presets make the draws, on the CPU, so that they are the same for
every device. Images are padded, cropped and mirrored as uint8, a quarter of the bytes, and become floats where they are
normalised, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from cvkit import streams

__all__ = [
    "add_noise",
    "boxes",
    "crop",
    "denormalize",
    "erase",
    "flip",
    "horizontal_flip",
    "mix",
    "normalize",
    "pad",
    "to_device",
    "vertical_flip",
]


def to_device(draws: Tensor, device: torch.device) -> Tensor:
    """Copies a few random draws to where the images are, without waiting for a GPU's queued work."""
    return draws if device.type == "cpu" else streams.of(device).send(draws)


def flip(images: Tensor, flags: Tensor, dim: int) -> Tensor:
    """Mirrors the samples whose flag is set along one dimension, and leaves the others alone.

    Args:
        images: ``(B, …)`` of any type.
        flags: bool ``(B,)`` on the CPU, where which samples these are is known without waiting for a device.
        dim: The dimension, e.g. -1 for left and right.

    Returns:
        The same shape and type.
    """
    chosen = to_device(flags.nonzero().flatten(), images.device)
    return images.index_copy(0, chosen, images.index_select(0, chosen).flip(dim))


def horizontal_flip(images: Tensor, flags: Tensor) -> Tensor:
    """Mirrors left and right the samples ``(B, …, H, W)`` whose flag is set; see :func:`flip`."""
    return flip(images, flags, -1)


def vertical_flip(images: Tensor, flags: Tensor) -> Tensor:
    """Mirrors top and bottom the samples ``(B, …, H, W)`` whose flag is set; see :func:`flip`."""
    return flip(images, flags, -2)


def pad(images: Tensor, padding: int) -> Tensor:
    """Adds ``padding`` zeros on all four sides: ``(B, C, H, W)`` to ``(B, C, H + 2 * padding, W + 2 * padding)``."""
    return torch.nn.functional.pad(images, (padding, padding, padding, padding)) if padding else images


def crop(images: Tensor, top: Tensor, left: Tensor, size: int, *, flip: Tensor | None = None) -> Tensor:
    """Cuts a square from each sample at a place of its own, in one gather.

    Args:
        images: ``(B, C, H, W)`` of any type.
        top: int64 ``(B,)``, the first row of each square, at most ``H - size``.
        left: int64 ``(B,)``, the first column of each square, at most ``W - size``.
        size: Side of the squares in pixels.
        flip: bool ``(B,)``: where set, the square is mirrored. On a CPU that is free here and costs as much as the crop itself
            in :func:`horizontal_flip`.

    Returns:
        ``(B, C, size, size)`` of the same type.
    """
    count, channels, _, width = images.shape
    device = images.device
    along = torch.arange(size, device=device)
    rows = to_device(top, device)[:, None] + along
    columns = to_device(left, device)[:, None] + along
    if flip is not None:
        columns = torch.where(to_device(flip, device)[:, None], columns.flip(-1), columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, size * size)
    cut = images.flatten(2).gather(2, index.expand(count, channels, size * size))
    return cut.view(count, channels, size, size)


@lru_cache(maxsize=64)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns factor and offset ``(C, 1, 1)``; kept, because a copy from the CPU would make each step wait for a GPU."""
    factor = to_device(torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32), device)
    offset = to_device(torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32), device)
    return factor[:, None, None], offset[:, None, None]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch work on one core inside: many short operations would each wait for its other threads to come and go."""
    threads = torch.get_num_threads()
    if threads == 1 or not _by_openmp():
        yield
        return
    torch.set_num_threads(1)  # of this thread of the program only
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _by_openmp() -> bool:
    """Whether torch's threads are OpenMP's, whose number may change at any time and for one thread of the program alone."""
    return "ATen parallel backend: OpenMP" in torch.__config__.parallel_info()


_LARGE = 32_768
"""From so many values a sample on, a CPU is faster one sample at a time, which its cache holds, than pass after pass."""


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], *, flip: Tensor | None = None) -> Tensor:
    """Turns levels 0 to 255 into floats ``(level / 255 - mean) / std``, by one multiplication and one addition.

    Args:
        images: uint8 ``(…, C, H, W)``.
        mean: One a channel, on the scale 0 to 1.
        std: One a channel, on the scale 0 to 1.
        flip: bool ``(B,)`` for images ``(B, C, H, W)``: where set, the sample is mirrored left and right as well, which is
            almost free here.

    Returns:
        float32 ``(…, C, H, W)``.
    """
    factor, offset = _constants(tuple(mean), tuple(std), images.device)
    if images.ndim == 4 and images.device.type == "cpu" and images[:1].numel() >= _LARGE:
        made = torch.empty(images.shape, dtype=torch.float32)
        flags = flip.tolist() if flip is not None else [False] * len(images)
        with _one_thread():
            for one, image, mirrored in zip(made, images, flags, strict=True):
                torch.mul(image.flip(-1) if mirrored else image, factor, out=one).add_(offset)
        return made
    if flip is not None:
        images = horizontal_flip(images, flip)
    return torch.mul(images, factor).add_(offset)


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undoes :func:`normalize`, for looking at images.

    Args:
        images: float ``(…, C, H, W)``, as :func:`normalize` returned them.
        mean: The same as there.
        std: The same as there.

    Returns:
        float32 ``(…, C, H, W)`` from 0 to 1.
    """
    factor, offset = _constants(tuple(mean), tuple(std), images.device)
    return images.float().sub(offset).div_(factor * 255).clamp_(0, 1)


def boxes(places: Tensor, height: int, width: int) -> Tensor:
    """Returns where boxes lie, as a mask.

    Args:
        places: int64 ``(B, 4)``: top, left, height and width of a box in each sample, in pixels; height 0 for none.
        height: Height of the samples in pixels.
        width: Width of the samples in pixels.

    Returns:
        bool ``(B, 1, height, width)`` on the device of ``places``.
    """
    top, left, high, wide = places[:, :, None].unbind(1)
    rows, columns = (torch.arange(count, device=places.device) for count in (height, width))
    down, across = (rows >= top) & (rows < top + high), (columns >= left) & (columns < left + wide)
    return (down[:, :, None] & across[:, None, :])[:, None]


def erase(images: Tensor, places: Tensor, value: float = 0.0) -> Tensor:
    """Paints over a box in each sample.

    Source: Zhong et al., Random Erasing Data Augmentation, 2017.

    Args:
        images: ``(B, C, H, W)`` of any type.
        places: As in :func:`boxes`.
        value: What is painted; 0 is the mean colour of normalised images.

    Returns:
        ``(B, C, H, W)`` of the same type.
    """
    return images.masked_fill(boxes(to_device(places, images.device), *images.shape[2:]), value)


def mix(images: Tensor, share: Tensor, places: Tensor | None = None) -> Tensor:
    """Mixes each sample with the one before it in the batch, the first with the last.

    Args:
        images: float ``(B, C, H, W)``.
        share: float ``(B,)``, the share that each sample keeps of itself, from 0 to 1 (mixup).
        places: As in :func:`boxes`: the part of each sample that comes from the one before it (cutmix); a sample whose box has
            height 0 is mixed by its ``share`` instead.

    Returns:
        float ``(B, C, H, W)``.
    """
    others = images.roll(1, 0)
    weight = to_device(share, images.device)[:, None, None, None].to(images.dtype)
    if places is not None:
        places = to_device(places, images.device)
        pasted = boxes(places, *images.shape[2:])
        weight = torch.where((places[:, 2] > 0)[:, None, None, None], (~pasted).to(images.dtype), weight)
    return torch.lerp(others, images, weight)


def add_noise(images: Tensor, sigma: float, seed: int) -> Tensor:
    """Adds normal noise of standard deviation ``sigma``, another for each value, a function of ``seed`` and the device type.

    Args:
        images: float ``(B, C, H, W)``.
        sigma: The standard deviation, on the images' own scale.
        seed: Which noise.

    Returns:
        float ``(B, C, H, W)``.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    noise = torch.empty_like(images, memory_format=torch.contiguous_format).normal_(0, sigma, generator=generator)
    return images + noise
