"""Public sets by name, through torchvision, each with the transforms and the normalisation that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cvkit.data.folder_data import FolderData, transform_pair
from cvkit.data.loader import Loader
from cvkit.errors import DataError
from cvkit.registry import presets

__all__ = ["cifar10", "cifar100", "fashion_mnist", "mnist"]

Workers = int | Literal["auto"]
Cache = Literal["auto", "ram", "device"] | None


@dataclass(frozen=True, slots=True)
class _Public:
    """A public set.

    Attributes:
        name: torchvision's class.
        folder: Where its files lie under ``root``.
        preset: The pair of transforms, without ``_train`` and ``_eval``.
        size: Side of an image in pixels.
        mean: Of the training images, one a channel.
        std: In the same way.
    """

    name: str
    folder: str
    preset: str
    size: int
    mean: Sequence[float]
    std: Sequence[float]


_MNIST = _Public("MNIST", "MNIST/raw", "digits", 28, (0.1307,), (0.3081,))
_FASHION = _Public("FashionMNIST", "FashionMNIST/raw", "small_image", 28, (0.2860,), (0.3530,))
_CIFAR10 = _Public(
    "CIFAR10", "cifar-10-batches-py", "small_image", 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
)
_CIFAR100 = _Public(
    "CIFAR100", "cifar-100-python", "small_image", 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
)
"""Means and standard deviations are those of the training images, over 255 levels."""


def mnist(
    root: str | Path,
    *,
    batch_size: int = 128,
    transform: Any = None,
    download: bool = False,
    workers: Workers = "auto",
    cache: Cache = "auto",
    seed: int = 0,
) -> FolderData:
    """Makes loaders of MNIST: 60,000 digits of 28×28 grey pixels for training, 10,000 for validation.

    Args:
        root: The directory that holds ``MNIST/raw``, as torchvision keeps it.
        batch_size: Samples to a batch.
        transform: A training preset in place of ``digits_train(28)``; validation goes through its evaluation twin.
        download: Whether the files are downloaded where they are missing.
        workers: As in :class:`Loader`.
        cache: As in :class:`Loader`.
        seed: Seed of order and randomness.

    Returns:
        ``.train``, ``.val`` (the set's test images) and ``.classes``.

    Raises:
        DataError: The files are not there, damaged, or cannot be downloaded.
    """
    return _loaders(_MNIST, root, batch_size, transform, download, workers=workers, cache=cache, seed=seed)


def fashion_mnist(
    root: str | Path,
    *,
    batch_size: int = 128,
    transform: Any = None,
    download: bool = False,
    workers: Workers = "auto",
    cache: Cache = "auto",
    seed: int = 0,
) -> FolderData:
    """Makes loaders of Fashion-MNIST: 60,000 grey images of clothes, 28×28 pixels, for training, 10,000 for validation.

    Args:
        root: The directory that holds ``FashionMNIST/raw``, as torchvision keeps it.
        batch_size: As in :func:`mnist`.
        transform: In place of ``small_image_train(28, channels=1)`` with this set's mean and standard deviation.
        download: As in :func:`mnist`.
        workers: As in :class:`Loader`.
        cache: As in :class:`Loader`.
        seed: As in :func:`mnist`.

    Returns:
        ``.train``, ``.val`` (the set's test images) and ``.classes``.

    Raises:
        DataError: As in :func:`mnist`.
    """
    return _loaders(_FASHION, root, batch_size, transform, download, workers=workers, cache=cache, seed=seed)


def cifar10(
    root: str | Path,
    *,
    batch_size: int = 128,
    transform: Any = None,
    download: bool = False,
    workers: Workers = "auto",
    cache: Cache = "auto",
    seed: int = 0,
) -> FolderData:
    """Makes loaders of CIFAR-10: 50,000 images of 32×32 pixels in 10 classes for training, 10,000 for validation.

    Args:
        root: The directory that holds ``cifar-10-batches-py``, as torchvision keeps it.
        batch_size: As in :func:`mnist`.
        transform: In place of ``small_image_train(32)`` with this set's mean and standard deviation.
        download: As in :func:`mnist`.
        workers: As in :class:`Loader`.
        cache: As in :class:`Loader`.
        seed: As in :func:`mnist`.

    Returns:
        ``.train``, ``.val`` (the set's test images) and ``.classes``.

    Raises:
        DataError: As in :func:`mnist`.
    """
    return _loaders(_CIFAR10, root, batch_size, transform, download, workers=workers, cache=cache, seed=seed)


def cifar100(
    root: str | Path,
    *,
    batch_size: int = 128,
    transform: Any = None,
    download: bool = False,
    workers: Workers = "auto",
    cache: Cache = "auto",
    seed: int = 0,
) -> FolderData:
    """Makes loaders of CIFAR-100: 50,000 images of 32×32 pixels in 100 classes for training, 10,000 for validation.

    Args:
        root: The directory that holds ``cifar-100-python``, as torchvision keeps it.
        batch_size: As in :func:`mnist`.
        transform: In place of ``small_image_train(32)`` with this set's mean and standard deviation.
        download: As in :func:`mnist`.
        workers: As in :class:`Loader`.
        cache: As in :class:`Loader`.
        seed: As in :func:`mnist`.

    Returns:
        ``.train``, ``.val`` (the set's test images) and ``.classes``.

    Raises:
        DataError: As in :func:`mnist`.
    """
    return _loaders(_CIFAR100, root, batch_size, transform, download, workers=workers, cache=cache, seed=seed)


def _loaders(
    which: _Public,
    root: str | Path,
    batch_size: int,
    transform: Any,
    download: bool,
    *,
    workers: Workers,
    cache: Cache,
    seed: int,
) -> FolderData:
    options: dict[str, Any] = {"workers": workers, "cache": cache, "seed": seed}
    if transform is None:
        transform = presets.get(f"{which.preset}_train")(which.size, mean=which.mean, std=which.std)
    augmented, plain = transform_pair(transform, which.preset, getattr(transform, "size", which.size), None)
    train, val = (_dataset(which, Path(root), download, train=train) for train in (True, False))
    return FolderData(
        Loader(train, batch_size, transform=augmented, shuffle=True, **options),
        Loader(val, batch_size, transform=plain, **options),
        [str(name) for name in train.classes],
    )


def _dataset(which: _Public, root: Path, download: bool, *, train: bool) -> Any:
    """Returns torchvision's dataset.

    Raises:
        DataError: Its files are not there or damaged, or cannot be downloaded.
    """
    from torchvision import datasets

    try:
        return getattr(datasets, which.name)(str(root), train=train, download=download)
    # torchvision raises RuntimeError for what is missing or cannot be downloaded, and whatever a damaged file makes it raise
    except Exception as error:
        where = root / which.folder
        fix = (
            f"check the network; or put the set's files into {where} by hand, unpacked, and leave download out"
            if download
            else f"pass download=True, or the directory above {which.folder}; damaged files are to be deleted first"
        )
        raise DataError(
            f"{which.name} cannot be {'downloaded' if download else 'read'}",
            got=f"{type(error).__name__}: {error}",
            expected=f"the files of {which.name} in {where}",
            fix=fix,
        ) from error
