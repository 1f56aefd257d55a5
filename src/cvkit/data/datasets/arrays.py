"""``ArrayDataset``: images or plain features that are in memory."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset as TorchSubset

from cvkit.data.datasets.base import Subset, class_names, fingerprint_of, is_deterministic
from cvkit.data.datasets.joined import Joinable, JoinedDataset
from cvkit.data.datasets.verification import Verification
from cvkit.errors import DataError

__all__ = ["ArrayDataset", "in_memory"]

_TORCHVISION = {
    "torchvision.datasets.mnist": ("MNIST.__getitem__",),
    "torchvision.datasets.cifar": ("CIFAR10.__getitem__",),
}
"""Where torchvision makes samples out of ``data`` and ``targets`` and nothing else."""


class ArrayDataset(Joinable):
    """Arrays in memory.

    Args:
        images: uint8 images ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` with ``C`` 1 or 3, which come as PIL images;
            or floating-point numbers ``(N, …)``, which come as tensors as they are.
        targets: One a sample, integers for classes or floating-point for a regression: ``(N,)`` or ``(N, …)``.
        classes: The class names; by default ``"0"``, ``"1"``, … for whole-number targets ``(N,)``.

    Attributes:
        classes: The class names, or ``None`` where targets are no classes.
        paths: ``None``: nothing here is a file.

    Raises:
        DataError: Different lengths, no samples, no numbers, images of another shape or type, or a target that no class has.
    """

    deterministic = True
    on_error = "raise"
    paths = None

    def __init__(
        self,
        images: np.ndarray[Any, Any] | Tensor,
        targets: np.ndarray[Any, Any] | Tensor | Sequence[Any],
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.images = _tensor("images", images)
        values = _tensor("targets", targets)
        self.values = values.float() if values.is_floating_point() else values.long()
        if len(self.images) != len(self.values) or len(self.images) == 0:
            raise DataError(
                "images and targets do not belong together",
                got=f"{len(self.images)} images, {len(self.values)} targets",
                expected="as many of one as of the other, at least one",
                fix="check how the two were loaded",
            )
        self.is_image = self.images.dtype == torch.uint8
        if self.is_image:
            self.images = _channels_last(self.images)
        elif self.images.is_floating_point():
            self.images = self.images.float()
        else:
            raise DataError(
                "images are integers of another type than uint8",
                got=str(self.images.dtype),
                expected="uint8 images, or floating-point features",
                fix="convert: images.astype('uint8') for levels 0 to 255, images.astype('float32') for features",
            )
        self.classes = self._name(classes)

    def _name(self, classes: Sequence[str] | None) -> list[str] | None:
        given = class_names(classes) if classes is not None else None
        if self.values.is_floating_point() or self.values.ndim != 1:
            return given
        low, high = int(self.values.min()), int(self.values.max())
        names = given if given is not None else [str(i) for i in range(high + 1)]
        if low < 0 or high >= len(names):
            raise DataError(
                "a target is no class",
                got=f"targets from {low} to {high}",
                expected=f"0 to {len(names) - 1}, for the classes {', '.join(names[:10])}",
                fix="count the classes from 0, or name all of them",
            )
        return names

    @property
    def targets(self) -> list[Any]:
        """The targets as numbers or lists."""
        targets: list[Any] = self.values.tolist()
        return targets

    @property
    def fingerprint(self) -> str:
        """A hash of the classes and the arrays' bytes."""
        return fingerprint_of(self.classes, self.images.numpy(), self.values.numpy())

    def size(self, index: int) -> tuple[int, int]:
        """Returns the width and height of an image in pixels.

        Raises:
            DataError: These are features, not images.
        """
        if not self.is_image:
            raise DataError(
                "features have no width and height", got=repr(self), expected="uint8 images", fix="leave it"
            )
        return self.images.shape[2], self.images.shape[1]

    def verify(self, *, strict: bool = False) -> Verification:
        """Reports the samples that hold a number that is not finite.

        Args:
            strict: As in :meth:`FolderDataset.verify`; there is no file here that could be read more strictly.
        """
        return self.found_bad(range(len(self)), strict=strict)

    def found_bad(self, indices: Sequence[int], *, strict: bool = False) -> Verification:
        """Does what :meth:`verify` does for some samples."""
        bad = torch.zeros(len(self), dtype=torch.bool)
        for values in (self.images, self.values):
            if values.is_floating_point():
                bad |= ~(torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else torch.isfinite(values))
        found = {str(index): self.why_bad(index) for index in indices if bad[index]} if bool(bad.any()) else {}
        return Verification(len(indices), {name: why for name, why in found.items() if why is not None})

    def why_bad(self, index: int, *, strict: bool = False) -> str | None:
        """Returns a message if a sample holds a number that is not finite, else ``None``."""
        for name, values in (("image", self.images), ("target", self.values)):
            if values.is_floating_point() and not bool(torch.isfinite(values[index]).all()):
                return f"the {name} of sample {index} is not finite"
        return None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, Any]:
        index = operator.index(index)  # of a slice of images one image would be made
        value = self.values[index]
        target = value.item() if value.ndim == 0 else value.clone()  # what is done to it in place stays out of the data
        if not self.is_image:
            return self.images[index].clone(), target
        return Image.fromarray(self.images[index].numpy()), target

    def __repr__(self) -> str:
        return f"ArrayDataset({tuple(self.images.shape)} {str(self.images.dtype).removeprefix('torch.')})"


def _tensor(name: str, values: Any) -> Tensor:
    """Returns numbers, one or more a sample, as a tensor on the host."""
    try:
        values = np.asarray(values) if isinstance(values, Sequence) else values
        if isinstance(values, np.ndarray) and min(values.strides, default=0) < 0:
            values = values.copy()  # torch takes no array that runs backwards, as RGB does that was made of BGR
        with warnings.catch_warnings():  # one that may not be written to, e.g. a mapped file: nothing here writes
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            tensor = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name} cannot be used",
            got=f"{type(values).__name__}: {error}",
            expected="an array or a tensor of numbers",
            fix="number the classes from 0, and give classes=[…] for their names",
        ) from error
    if tensor.ndim == 0:
        raise DataError(f"{name} cannot be used", got="one number", expected="at least one a sample", fix="a list")
    if tensor.is_complex():
        raise DataError(
            f"{name} cannot be used",
            got="complex numbers",
            expected="real ones",
            fix="torch.view_as_real makes two of each",
        )
    return tensor


def _channels_last(images: Tensor) -> Tensor:
    """Returns images as PIL takes them: ``(N, H, W)`` or ``(N, H, W, 3)``."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.movedim(1, -1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3):
        return images.contiguous()
    raise DataError(
        "images have no shape of images",
        got=f"uint8 {tuple(images.shape)}",
        expected="(N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3",
        fix="reshape them, or pass floating-point features",
    )


def in_memory(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """Returns all samples of a dataset that holds them as arrays, as its items become when nothing is done to them.

    Known are :class:`ArrayDataset`, torchvision's MNIST and CIFAR families without transforms, parts of such, and several of
    them joined.

    Returns:
        Images, uint8 ``(N, C, H, W)`` for images, and targets ``(N, …)``; ``None`` for any other dataset. No copy is made
        but for coloured images, parts and joined ones.
    """
    if type(dataset) in (Subset, TorchSubset):  # a class derived from one may do more
        whole = in_memory(dataset.dataset)
        chosen = torch.as_tensor(list(dataset.indices), dtype=torch.long)
        return (whole[0][chosen], whole[1][chosen]) if whole is not None else None
    if type(dataset) is JoinedDataset:
        return _joined_in_memory(dataset)
    if type(dataset) is ArrayDataset:
        images, targets = dataset.images, dataset.values
        if not dataset.is_image:
            return images, targets
    elif _is_torchvision(dataset) and is_deterministic(dataset):
        try:
            images, targets = torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets)
        except (TypeError, ValueError, RuntimeError):
            return None  # a batch of them will say what is wrong
        if type(dataset).__getitem__.__module__ == "torchvision.datasets.mnist":
            targets = targets.long()  # as its samples are, whatever the array is of
    else:
        return None
    if images.dtype != torch.uint8 or len(images) != len(targets):
        return None
    return (images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()), targets


def _joined_in_memory(dataset: JoinedDataset) -> tuple[Tensor, Tensor] | None:
    """Returns all samples of datasets that are all in memory and alike, with the joined numbers of their classes."""
    held = [in_memory(part) for part in dataset.parts]
    images = [one[0] for one in held if one is not None]
    targets = [one[1] for one in held if one is not None]
    for made in (images, targets):
        if len(made) < len(held) or len({(one.dtype, one.shape[1:]) for one in made}) > 1:
            return None
    tables = [torch.from_numpy(table) if table is not None else None for table in dataset.tables]
    numbers = [one if table is None else table[one] for one, table in zip(targets, tables, strict=True)]
    return torch.cat(images), torch.cat(numbers)


def _is_torchvision(dataset: Any) -> bool:
    getter = getattr(type(dataset), "__getitem__", None)
    return getattr(getter, "__qualname__", None) in _TORCHVISION.get(getattr(getter, "__module__", ""), ())
