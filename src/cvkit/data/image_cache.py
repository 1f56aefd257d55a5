"""Decoded images kept in memory, of which each epoch cuts fresh frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from PIL import Image

from cvkit.errors import CvkitError

__all__ = ["ImageCache", "estimate"]

_LOOKS = 64
"""How many headers an estimate reads."""


class ImageCache:
    """Images, or their uint8 pixels, and their targets, up to a bound; those that find no room are decoded each time.

    Args:
        count: Number of samples in the dataset.
        limit: The largest number of bytes.

    Attributes:
        bytes: What it holds now.
        kept: How many images.
    """

    def __init__(self, count: int, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.kept = 0
        self._items: list[tuple[Any, Any] | None] = [None] * count
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether every image is there."""
        return self.kept == len(self._items)

    def get(self, index: int) -> tuple[Any, Any] | None:
        """Returns what :meth:`put` was given, or ``None``."""
        return self._items[index]

    def put(self, index: int, image: Any, target: Any) -> None:
        """Keeps an image ``(C, H, W)``, or one of Pillow's, and its target, if there is room."""
        size = _bytes_of(image) + _bytes_of(target)
        with self._lock:
            if self._items[index] is not None or self.bytes + size > self.limit:
                return
            self._items[index] = (image, target)
            self.bytes += size
            self.kept += 1


def _bytes_of(part: Any) -> int:
    if isinstance(part, Image.Image):  # Pillow keeps RGB in four bytes
        return part.width * part.height * (1 if part.mode in ("L", "P", "1") else 4)
    return int(part.nbytes) if hasattr(part, "nbytes") else 0


def estimate(dataset: Any, transform: Any) -> int | None:
    """Returns about how many bytes all images of a dataset will take, from the headers of some of them.

    Args:
        dataset: The dataset; one that has ``size(index)`` can be looked at.
        transform: The transform, which says how large an image is of use, and in how many channels.

    Returns:
        Bytes, or ``None`` where nobody can tell.
    """
    count = len(dataset)
    sizes = [_size(dataset, index) for index in _spread(count)]
    known = [size for size in sizes if size is not None]
    if not known or not hasattr(transform, "most"):
        return None
    paired = 1 if getattr(dataset, "kind", None) == "mask" else 4 if getattr(dataset, "kind", None) == "image" else 0
    channels = getattr(transform, "channels", 3)
    one = 0.0
    for width, height in known:
        wide, high = transform.most(width, height)
        one += wide * high * channels + width * height * paired
    return int(one / len(known) * count)


def _spread(count: int) -> Sequence[int]:
    return range(count) if count <= _LOOKS else [index * count // _LOOKS for index in range(_LOOKS)]


def _size(dataset: Any, index: int) -> tuple[int, int] | None:
    try:
        size: tuple[int, int] = dataset.size(index)
    except (AttributeError, CvkitError):
        return None
    return size
