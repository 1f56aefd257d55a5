"""Datasets whose samples are dicts of columns, as those of Hugging Face's ``datasets`` are, as pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvkit.data.datasets.traits import fingerprint_of
from cvkit.errors import ArgumentError, DataError

__all__ = ["ColumnsDataset", "paired"]

_IMAGES = ("image", "img")


def paired(dataset: Any) -> Any:
    """Returns a dataset as a loader uses it: one with ``features`` and ``column_names`` as pairs, any other as it is.

    Raises:
        ArgumentError: It is not clear which column is the image, or which the target.
    """
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping) or not hasattr(dataset, "column_names"):
        return dataset
    return ColumnsDataset(dataset)


class ColumnsDataset:
    """A map-style dataset of Hugging Face's ``datasets``: its image and its target column as ``(image, target)``.

    The image is the column whose feature is an ``Image``; of several the one named ``image`` or ``img``. The target is the
    column whose feature is a ``ClassLabel``, or else the only other column.

    Args:
        rows: The dataset; its ``features`` say what its columns hold.

    Attributes:
        classes: The names of the target's classes, where its feature has them.

    Raises:
        ArgumentError: It is not clear which column is the image, or which the target.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.image, self.target = _columns(rows)
        names = getattr(rows.features[self.target], "names", None)
        self.classes: list[str] | None = [str(name) for name in names] if names is not None else None
        # it decodes from tables in memory or mapped; a transform of its own may draw random numbers
        self.deterministic = getattr(rows, "format", {}).get("type") != "custom"

    @property
    def targets(self) -> list[Any] | None:
        """The targets of all samples, read without their images; ``None`` where a transform may change them."""
        return list(self.rows[self.target]) if self.classes is not None and self.deterministic else None

    @property
    def fingerprint(self) -> str:
        """A hash of the labels and of what the dataset says of its content."""
        own = getattr(self.rows, "_fingerprint", None)  # of all that was done to it; it has no public name
        return fingerprint_of(len(self), self.image, self.target, self.classes, own, self.targets)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self.rows[index]
        missing = [name for name in (self.image, self.target) if name not in row]
        if missing:
            raise DataError(
                f"sample {index} has no column {missing[0]!r}",
                got=f"the columns {', '.join(map(str, row))}",
                expected=f"{self.image!r} and {self.target!r}, as the features of the dataset say",
                fix="keep both columns in the dataset's own transform",
            )
        return row[self.image], row[self.target]

    def __repr__(self) -> str:
        return f"ColumnsDataset({self.image!r}, {self.target!r}, {len(self)} samples)"


def _columns(rows: Any) -> tuple[str, str]:
    """Returns the names of the image and the target column."""
    kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    named = [name for name in images if name in _IMAGES]
    images = named if len(named) == 1 else images
    if len(images) != 1:
        raise _unclear("image", kinds, "one column of images (an Image feature)")
    rest = [name for name in kinds if name not in images]
    labels = [name for name in rest if kinds[name] == "ClassLabel"]
    target = labels if len(labels) == 1 else rest
    if len(target) != 1:
        raise _unclear("target", kinds, "one ClassLabel column, or one column beside the image")
    return images[0], target[0]


def _unclear(what: str, kinds: Mapping[str, str], expected: str) -> ArgumentError:
    return ArgumentError(
        f"it is not clear which column of the dataset is the {what}",
        got=", ".join(f"{name} ({kind})" for name, kind in kinds.items()),
        expected=expected,
        fix='choose two: Loader(dataset.select_columns(["image", "label"]), …)',
    )
