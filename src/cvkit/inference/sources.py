"""What a predictor is given to look at: files, folders, images, arrays and tensors, as a dataset for the loader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvkit.calls import warn
from cvkit.data import Loader
from cvkit.data.colour_profiles import Colour, to_srgb
from cvkit.data.datasets.files import EXTENSIONS, Background, OnError, Tree
from cvkit.data.decode import MAX_PIXELS, Enough, blamed_on, decode, upright
from cvkit.errors import ArgumentError, DataError
from cvkit.pixels import WHITE, eight_bit

__all__ = ["Decoding", "Item", "PredictionDataset", "collect_items", "skipped_by"]

Item: TypeAlias = "Path | Image.Image | np.ndarray[Any, Any]"
"""One image: a file, an image, or an array ``(H, W)`` or ``(H, W, C)``."""

_CHANNELS = (1, 3, 4)
_EXPECTED = (
    "a path, a folder, a PIL image, an array (H, W) or (H, W, C), a tensor (C, H, W) or (N, C, H, W), or a list of such"
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How files become images.

    Attributes:
        background: What lies behind transparent pixels.
        max_pixels: The largest number of pixels that is decoded.
        whole: Whether a JPEG is decoded in its full size, even where less is enough: as the images of masks are.
        colour: What becomes of an image whose file says that its colours are not sRGB.
    """

    background: Background = WHITE
    max_pixels: int = MAX_PIXELS
    whole: bool = False
    colour: Colour = "convert"


class PredictionDataset:
    """Images as a dataset; the target of each is its place, its height and its width.

    Args:
        items: The images.
        decoding: How files are decoded.
        on_error: As in ``FolderDataset``.

    Attributes:
        paths: The files, or ``None`` where some of the images are in memory.
    """

    deterministic = True
    classes = None

    def __init__(self, items: Sequence[Item], decoding: Decoding, on_error: OnError = "raise") -> None:
        self.items = items
        self.decoding = decoding
        self.on_error = on_error
        files = all(isinstance(item, Path) for item in items)
        self.paths = [str(item) for item in items] if files else None

    def __len__(self) -> int:
        return len(self.items)

    def path(self, index: int) -> Path | None:
        """Returns the file of an image, or ``None`` for one in memory."""
        item = self.items[index]
        return item if isinstance(item, Path) else None

    def name(self, index: int) -> str:
        """Returns what to call an image in a message: its file, or its place."""
        item = self.items[index]
        return str(item) if isinstance(item, Path) else f"number {index} of those given"

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[int, int, int]]:
        """Returns an image, whole, and its place, height and width.

        Raises:
            ImageError: An image that cannot be decoded.
            ArgumentError: An array whose numbers are no image's.
        """
        return self.read(index)

    def read(self, index: int, enough: Enough | None = None) -> tuple[Image.Image, tuple[int, int, int]]:
        """Does what indexing does; a JPEG may come smaller, as ``decode`` says, and its size is told as it was.

        Raises:
            ImageError: An image that cannot be decoded.
            ArgumentError: An array whose numbers are no image's.
        """
        item, how = self.items[index], self.decoding
        size: list[tuple[int, int]] = []

        def asked(width: int, height: int) -> tuple[int, int]:
            size.append((width, height))
            return enough(width, height) if enough is not None else (width, height)

        if isinstance(item, Path):
            wanted = asked if enough is not None and not how.whole else None
            image = decode(item, background=how.background, max_pixels=how.max_pixels, enough=wanted, colour=how.colour)
        else:
            name = self.name(index)
            opened = item if isinstance(item, Image.Image) else _image(item, name)
            with blamed_on(name):
                image = upright(opened)
                if how.colour == "convert":
                    image = to_srgb(image, name=name, background=how.background)
                image = eight_bit(image, name=name, background=how.background)
        width, height = size[0] if size else image.size
        return image, (index, height, width)


def skipped_by(loader: Loader) -> dict[str, str]:
    """Returns the message of each image that a loader over :class:`PredictionDataset` has left out, by its name, in order."""
    given: PredictionDataset = loader.dataset
    return {given.name(index): why for index, why in sorted(loader.skipped.items())}


def collect_items(images: Any) -> tuple[list[Item], bool]:
    """Returns the images that are meant, in order, and whether this is one image rather than several.

    Args:
        images: What :meth:`Predictor.predict` takes.

    Raises:
        ArgumentError: Something else, or an array or tensor of a shape or type that is no image's.
        DataError: A folder without images.
    """
    if isinstance(images, str | Path | Image.Image | np.ndarray | Tensor):
        return _one(images, "the image")
    if isinstance(images, Mapping | bytes) or not isinstance(images, Iterable):
        raise _unknown(images, "this")
    several = [item for number, one in enumerate(images) for item in _one(one, f"number {number} of the list")[0]]
    if not several:
        raise ArgumentError(
            "there is nothing to predict",
            got=f"an empty {type(images).__name__}",
            expected=_EXPECTED,
            fix="see how the list came about",
        )
    return several, False


def _one(given: Any, name: str) -> tuple[list[Item], bool]:
    """Returns the images that one argument stands for, and whether it stands for one as a rule."""
    if isinstance(given, str | Path):
        path = Path(given)
        return (_files(path), False) if path.is_dir() else ([path], True)
    if isinstance(given, Image.Image):
        return [given], True
    if isinstance(given, Tensor):
        return _from_tensor(given, name)
    if isinstance(given, np.ndarray):
        return _from_array(given, name)
    raise _unknown(given, name)


def _unknown(given: Any, name: str) -> ArgumentError:
    batch = isinstance(given, tuple | list)
    return ArgumentError(
        f"predict cannot look at {name}",
        got=f"a {type(given).__name__}" + (" inside a list" if batch else ""),
        expected=_EXPECTED,
        fix="for the batches of a loader take cvkit.predict(predictor.model, loader)",
    )


def _files(folder: Path) -> list[Item]:
    """Returns the images under a folder, in the order in which a ``FolderDataset`` over it has them.

    Raises:
        DataError: It holds none.
    """
    tree = Tree(folder, EXTENSIONS)
    paths = sorted(tree.files(), key=lambda path: (path.partition("/")[0] if "/" in path else "", path))
    if tree.links:
        warn(
            f"{len(tree.links)} links in {folder} are left out, e.g. {tree.links[0]}: links to folders, and to files outside "
            "the folder, are not followed; pass a list of what is meant"
        )
    if not paths:
        raise DataError(
            f"no image in {folder}",
            got=tree.holds(),
            expected=f"files ending in {', '.join(EXTENSIONS)}",
            fix="check the path; files of other names can be given as a list",
        )
    return [folder / path for path in paths]


def _from_array(array: np.ndarray[Any, Any], name: str) -> tuple[list[Item], bool]:
    _check_type(name, array.dtype == np.uint8, array.dtype.kind == "f", f"{array.dtype} {array.shape}")
    shape = array.shape
    if array.ndim == 2 and array.size:
        return [array], True
    if array.ndim in (3, 4) and shape[-1] in _CHANNELS and shape[-3] not in _CHANNELS and array.size:
        return ([array], True) if array.ndim == 3 else (list(array), False)
    if array.ndim in (3, 4) and shape[-3] in _CHANNELS and array.size:
        both = shape[-1] in _CHANNELS
        raise ArgumentError(
            f"the shape of {name} can be read in two ways" if both else f"{name} has its channels first",
            got=f"an array {shape}",
            expected="channels last: (H, W), (H, W, C) or (N, H, W, C) with C 1, 3 or 4",
            fix="pass Image.fromarray(array)" if both else "pass torch.from_numpy(array): tensors have them first",
        )
    raise ArgumentError(
        f"the shape of {name} is no image's",
        got=f"an array {shape}",
        expected="(H, W), (H, W, C) or (N, H, W, C) with C 1, 3 or 4",
        fix="see how it was made; a list of arrays (H, W) is a list of grey images",
    )


def _from_tensor(tensor: Tensor, name: str) -> tuple[list[Item], bool]:
    shape = tuple(tensor.shape)
    kind = f"{tensor.dtype} {shape}"
    _check_type(name, tensor.dtype == torch.uint8, tensor.dtype.is_floating_point, kind)
    first = tensor.ndim in (3, 4) and shape[-3] in _CHANNELS and tensor.numel() > 0
    plain = tensor.ndim == 2 and tensor.numel() > 0
    if not plain and (not first or shape[-1] in _CHANNELS):
        raise ArgumentError(
            f"the shape of {name} can be read in two ways" if first else f"the shape of {name} is no image's",
            got=f"a tensor {shape}",
            expected="channels first: (H, W), (C, H, W) or (N, C, H, W) with C 1, 3 or 4",
            fix="pass a PIL image, which says what it is"
            if first
            else "move the channels: tensor.movedim(-1, -3); a list of tensors (H, W) is a list of grey images",
        )
    values = tensor.detach().cpu()
    array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if plain:
        return [array], True
    array = np.moveaxis(array, -3, -1)
    return ([array], True) if tensor.ndim == 3 else (list(array), False)


def _check_type(name: str, levels: bool, floats: bool, kind: str) -> None:
    if not levels and not floats:
        raise ArgumentError(
            f"the numbers of {name} are no image's",
            got=kind.removeprefix("torch."),
            expected="uint8 levels from 0 to 255, or floats from 0 to 1",
            fix="levels of 0 to 255: array.astype('uint8') or tensor.to(torch.uint8); levels of 16 bits: array / 65535",
        )


def _image(array: np.ndarray[Any, Any], name: str) -> Image.Image:
    """Returns an array ``(H, W)`` or ``(H, W, C)`` as an image; floats become the nearest of 256 levels.

    Raises:
        ArgumentError: Floats outside of 0 to 1, or not finite.
    """
    if array.dtype != np.uint8:
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        if not (low >= 0 and high <= 1):  # NaN compares as neither
            raise ArgumentError(
                f"the image {name} holds floats outside of 0 to 1",
                got=f"values from {low:.4g} to {high:.4g}",
                expected="floats from 0 to 1, or uint8 levels from 0 to 255",
                fix="divide levels by 255; inputs that are normalised already go straight to the model: "
                "cvkit.predict(predictor.model, tensor)",
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(array))
