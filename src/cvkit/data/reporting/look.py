"""One look at each sample: what its file says, and hashes of its decoded pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Subset as TorchSubset

from cvkit.data.colour_profiles import other_than_srgb
from cvkit.data.decode import header
from cvkit.errors import CvkitError, ImageError, MissingDependencyError
from cvkit.numbering import known_classes, whole_of

__all__ = ["TURNS", "Bits", "Look", "looks", "pixels_of"]

Bits: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""A perceptual hash as 0 and 1."""

TURNS: dict[str, Callable[[Any], Any]] = {
    "mirrored": lambda cells: cells[:, ::-1],
    "upside down": lambda cells: cells[::-1],
    "turned by 90°": lambda cells: np.rot90(cells, 1),
    "turned by 180°": lambda cells: np.rot90(cells, 2),
    "turned by 270°": lambda cells: np.rot90(cells, 3),
}
"""What may have become of a copy, as a function of rows and columns."""

_ENDINGS = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
_SMALL = 64  # pixels: up to this side a border of one pixel moves the cells of the hash
_EDGES = [
    (left, top, right, bottom) for left, right in ((0, 0), (1, 0), (0, 1)) for top, bottom in ((0, 0), (1, 0), (0, 1))
]
_HASH = 8  # rows and columns of the perceptual hash, of which each gives two bits


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of one sample.

    Attributes:
        split: ``"train"`` or ``"val"``.
        index: Its place in the dataset.
        name: Its path, or its index where it is no file.
        label: The name of its class or its values as text; ``None`` for masks and images.
        error: Why it cannot be read, or ``None``.
        size: Width and height in pixels, upright.
        mode: Pillow's mode of the file.
        format: Pillow's name of the file's format; ``""`` for arrays.
        wrong_ending: Whether the file's name says another format.
        profile: The name of its colour profile where that is not sRGB.
        one_colour: Whether all pixels are equal.
        pixels: A hash of the decoded image.
        bits: A perceptual hash, ``(128,)`` of 0 and 1; ``None`` where the image is too plain for one.
        turned: That of the image in each way of :data:`TURNS` ``(ways, 128)``.
        cropped: Those of a small image without one row or one column, or both, at its edges, packed.
    """

    split: str
    index: int
    name: str
    label: str | None
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    format: str = ""
    wrong_ending: bool = False
    profile: str | None = None
    one_colour: bool = False
    pixels: str = ""
    bits: Bits | None = None
    turned: Bits | None = None
    cropped: tuple[bytes, ...] = ()


def looks(dataset: Any, split: str) -> Iterator[Look]:
    """Yields a look at each sample of a dataset, in its order; several threads decode.

    Args:
        dataset: Any dataset of images.
        split: What to call it.
    """
    names, labels = _names(dataset), _labels(dataset)

    def look(index: int) -> Look:
        name = names[index] if names is not None else str(index)
        told = Look(split, index, name, labels[index] if labels is not None else None)
        try:
            return _looked(dataset, told, _file(dataset, name) if names is not None else None)
        except CvkitError as error:
            lines = str(error).removeprefix(f"sample {index}: ").splitlines()
            return replace(told, error="; ".join(line.strip() for line in lines[:2]))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        yield from pool.map(look, range(len(dataset)))


def _looked(dataset: Any, told: Look, file: Path | None) -> Look:
    image = pixels_of(dataset[told.index][0])
    size, mode, form, wrong, profile = image.size, image.mode, "", False, None
    if file is not None:
        data = file.read_bytes()
        head = header(data, max_pixels=2**62)
        mode, form = head.mode, head.format or ""
        wrong = form in _ENDINGS and not file.name.lower().endswith(_ENDINGS[form])
        profile = _profile(head, data)
    levels = np.asarray(image)
    plain = bool((levels == levels[:1, :1]).all())
    made = hashlib.blake2b(repr((size, image.mode)).encode(), digest_size=16)
    made.update(np.ascontiguousarray(levels).data)
    return replace(
        told,
        size=size,
        mode=mode,
        format=form,
        wrong_ending=wrong,
        profile=profile,
        one_colour=plain,
        pixels=made.hexdigest(),
        **_perceptual(image),
    )


def pixels_of(image: Any) -> Image.Image:
    """Returns a sample's image as one of mode RGB.

    Raises:
        ImageError: It is no image.
    """
    if isinstance(image, torch.Tensor) and image.ndim == 3 and image.shape[0] in (1, 3):
        levels = image if image.dtype == torch.uint8 else image.clamp(0, 1).mul(255).round().byte()
        image = Image.fromarray(levels.movedim(0, -1).squeeze(-1).numpy())
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    raise ImageError(
        "a sample is no image",
        got=type(image).__name__,
        expected="an image of PIL, or a tensor (C, H, W) with 1 or 3 channels",
        fix="report on the dataset before its features are made",
    )


def _profile(head: Image.Image, data: bytes) -> str | None:
    try:
        return other_than_srgb(head, data)
    except MissingDependencyError:
        return "a profile that this Pillow cannot read"
    except Exception as error:  # decoded all the same (colour="ignore"): what LittleCMS is handed may be anything
        return f"unusable: {error}"


def _perceptual(image: Image.Image) -> dict[str, Any]:
    """Returns the perceptual hashes of an image, by their names in :class:`Look`; none where noise would decide them."""
    grey = image.convert("L")
    cells = _cells(grey)
    if cells.std() < 4:
        return {}
    turned = np.stack([_bits(turn(cells)) for turn in TURNS.values()])
    cropped: tuple[bytes, ...] = ()
    if min(grey.size) >= 8 and max(grey.size) <= _SMALL:
        frames = [(left, top, grey.width - right, grey.height - bottom) for left, top, right, bottom in _EDGES[1:]]
        cropped = tuple(np.packbits(_bits(_cells(grey, frame))).tobytes() for frame in frames)
    return {"bits": _bits(cells), "turned": turned, "cropped": cropped}


def _cells(grey: Image.Image, frame: tuple[int, int, int, int] | None = None) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Returns the means of the cells of a grey image, or of a part of it."""
    side = _HASH + 1
    return np.asarray(grey.resize((side, side), Image.Resampling.BOX, box=frame)).astype(np.int16)


def _bits(cells: np.ndarray[Any, Any]) -> Bits:
    """Returns which of its neighbours each cell is darker than: a difference hash, both ways.

    Source: N. Krawetz, "Kind of Like That" (2013).
    """
    across, down = cells[:_HASH, 1:] > cells[:_HASH, :-1], cells[1:, :_HASH] > cells[:-1, :_HASH]
    return np.concatenate([across.ravel(), down.ravel()]).astype(np.uint8)


def _names(dataset: Any) -> list[str] | None:
    """Returns the path of each sample's file, where a dataset has files; torchvision's too."""
    if type(dataset) is TorchSubset:
        whole = _names(dataset.dataset)
        return [whole[index] for index in dataset.indices] if whole is not None else None
    paths = getattr(dataset, "paths", None)
    if paths is not None:
        return list(paths)
    pairs = getattr(dataset, "samples", None)
    return [str(one[0]) for one in pairs] if isinstance(pairs, list) else None


def _file(dataset: Any, name: str) -> Path:
    root = getattr(whole_of(dataset), "root", None)
    return (
        Path(root, name) if root is not None and getattr(whole_of(dataset), "paths", None) is not None else Path(name)
    )


def _labels(dataset: Any) -> list[str | None] | None:
    """Returns each label as text, where labels are no images."""
    if type(dataset) is TorchSubset:
        whole = _labels(dataset.dataset)
        return [whole[index] for index in dataset.indices] if whole is not None else None
    targets, classes = getattr(dataset, "targets", None), known_classes(dataset)
    if targets is None or len(targets) != len(dataset):
        return None
    plain = targets.tolist() if isinstance(targets, np.ndarray | torch.Tensor) else targets
    return [_label(one, classes) for one in plain]


def _label(target: Any, classes: list[str] | None) -> str | None:
    if isinstance(target, Path):
        return None
    if classes is not None and isinstance(target, int) and 0 <= target < len(classes):
        return classes[target]
    many = isinstance(target, list) and classes is not None and len(classes) == len(target)
    if many and set(target) <= {0, 1}:
        return ", ".join(name for name, one in zip(classes or (), target, strict=True) if one) or "(none)"
    return str(target)
