"""``from_folder``: a directory to two loaders, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cvkit.calls import answered
from cvkit.data.datasets.folder import FolderDataset
from cvkit.data.datasets.splitting import split
from cvkit.data.loader import Loader
from cvkit.errors import ArgumentError, DataError, unknown_name
from cvkit.registry import presets

__all__ = ["FolderData", "from_folder", "transform_pair"]

_SMALL_SIDE = 64
_CALLED = {
    "root": "path directory folder root_dir data_dir",
    "size": "image_size img_size input_size resolution",
    "batch_size": "batch bs batchsize",
    "val": "valid validation valid_pct val_split validation_split test_size",
    "transform": "transforms train_transform",
    "workers": "num_workers n_workers",
    "seed": "random_state random_seed",
}
"""What other libraries call the arguments of :func:`from_folder`."""
_TASKS = ("classification", "small_image", "digits")


@dataclass(frozen=True, slots=True)
class FolderData:
    """Two loaders over one dataset, as :func:`from_folder` makes them.

    Attributes:
        train: Training batches, shuffled and augmented.
        val: Validation batches.
        classes: The class names, the same for both.
    """

    train: Loader
    val: Loader
    classes: list[str]


@answered(renamed=_CALLED, needed={"root": 'root="data"', "size": "size=224", "batch_size": "batch_size=64"})
def from_folder(
    root: str | Path,
    *,
    size: int,
    batch_size: int,
    val: str | float = "val",
    preset: Literal["auto", "classification", "small_image", "digits"] = "auto",
    channels: Literal[1, 3] | None = None,
    transform: Any = None,
    workers: int | Literal["auto"] = "auto",
    cache: Literal["auto", "ram", "device"] | None = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    seed: int = 0,
) -> FolderData:
    """Makes training and validation loaders of a directory whose folders are the labels.

    Args:
        root: ``root/train/<class>/…`` and ``root/<val>/<class>/…``; or, with a share as ``val``, ``root/train/<class>/…`` or
            ``root/<class>/…``.
        size: Side of the model's input in pixels.
        batch_size: Samples to a batch.
        val: The validation folder's name, or the share of each class that is split off for it, e.g. 0.2.
        preset: Which pair of transforms: ``"classification"`` (photos), ``"small_image"`` or ``"digits"``; ``"auto"`` takes
            ``"small_image"`` up to 64 pixels and ``"classification"`` above.
        channels: 1 for grey images, 3 for RGB; by default 1 for ``"digits"`` and 3 for the others.
        transform: A training preset in place of that one, e.g. ``small_image_train(32, erase=0.25)``; validation
            goes through its evaluation twin.
        workers: As in :class:`Loader`.
        cache: As in :class:`Loader`.
        on_error: As in :class:`FolderDataset`.
        seed: Seed of split, order and randomness.

    Returns:
        The loaders and the class names.

    Raises:
        DataError: A missing or empty directory, or a validation folder with a class that training does not have.
        ArgumentError: A value that cannot be used.
    """
    root = Path(root)
    if preset not in ("auto", *_TASKS):
        raise unknown_name("preset", preset, ["auto", *_TASKS])
    if isinstance(size, bool) or not isinstance(size, int):
        raise ArgumentError(
            "size cannot be used",
            got=repr(size),
            expected="the side in pixels, an integer",
            fix="pass e.g. size=224",
        )
    chosen = preset if preset != "auto" else ("small_image" if size <= _SMALL_SIDE else "classification")
    folder = _checked(root, val)
    whole = FolderDataset(folder, on_error=on_error)
    train: Any = whole
    held: Any
    if isinstance(val, str):
        held = FolderDataset(root / val, classes=whole.classes, on_error=on_error)
    elif isinstance(val, int | float) and 0 < val < 1:
        train, held = split(whole, val, seed)
    else:
        raise ArgumentError(
            "val cannot be used", got=repr(val), expected="a folder's name or a share between 0 and 1", fix="val=0.2"
        )
    augmented, plain = transform_pair(transform, chosen, size, channels)
    return FolderData(
        Loader(
            train,
            batch_size,
            transform=augmented,
            shuffle=True,
            workers=workers,
            cache=cache,
            seed=seed,
        ),
        Loader(held, batch_size, transform=plain, workers=workers, cache=cache, seed=seed),
        list(whole.classes),
    )


def _checked(root: Path, val: str | float) -> Path:
    """Returns the folder of the training images; what is missing is answered with what to pass instead."""
    folder = root / "train" if isinstance(val, str) or (root / "train").is_dir() else root
    if isinstance(val, str) and root.is_dir() and not folder.is_dir():
        found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        raise DataError(
            f"{root} has no folder train",
            got=f"folders {', '.join(found) or '(none)'}",
            expected=f"{folder}/<class>/… and {root / val}/<class>/…",
            fix=_where(root, found),
        )
    if isinstance(val, str) and folder.is_dir() and not (root / val).is_dir():
        others = sorted(p.name for p in root.iterdir() if p.is_dir() and p != folder and not p.name.startswith("."))
        likely = [name for start in ("val", "dev", "test") for name in others if name.lower().startswith(start)]
        raise DataError(
            f"{root} has no folder {val}",
            got=f"folders {', '.join([folder.name, *others])}",
            expected=f"{root / val}/<class>/…",
            fix=(f"name the validation's folder: val={likely[0]!r}; or " if likely else "")
            + "split a part of the training images off: val=0.2",
        )
    return folder


def _where(root: Path, found: list[str]) -> str:
    """Returns what to pass for a root without a folder train: it may be the one below, or hold the classes itself."""
    below = next((root / name for name in found if (root / name / "train").is_dir()), None)
    if below is not None:
        return f"pass the folder that holds train: from_folder({str(below)!r}, …)"
    return f"if {root} itself holds the class folders, split some off: from_folder({str(root)!r}, …, val=0.2)"


def transform_pair(transform: Any, task: str, size: int, channels: int | None) -> tuple[Any, Any]:
    """Returns the transforms of training and validation."""
    if transform is None:
        # digits are grey unless mean and std say otherwise
        options = {} if channels is None or (task == "digits" and channels == 1) else {"channels": channels}
        if task == "digits" and options:
            raise ArgumentError(
                "channels cannot be used",
                got=f'{channels!r} with preset="digits"',
                expected="1: digits are grey",
                fix='pass preset="small_image", or transform=cvkit.transforms.digits_train(…) with three means and stds',
            )
        return presets.get(f"{task}_train")(size, **options), presets.get(f"{task}_eval")(size, **options)
    if not hasattr(transform, "evaluation") or getattr(transform, "size", size) != size:
        raise ArgumentError(
            "transform cannot be used",
            got=repr(transform),
            expected=f"a preset of cvkit.transforms with size={size}, which has a twin for validation",
            fix="for other transforms make the two loaders by hand: Loader(FolderDataset(…), …, transform=…)",
        )
    if channels is not None and getattr(transform, "channels", channels) != channels:
        raise ArgumentError(
            "channels is not what the transform gives",
            got=f"channels={channels!r}, {transform!r}",
            expected=f"a transform of {channels!r} channels",
            fix=f"give the transform channels={channels!r}, or leave channels out here",
        )
    return transform, transform.evaluation()
