"""What is predicted: of one image, and of many."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError
from cvkit.inference.outputs import Task

__all__ = ["Prediction", "Predictions"]

T = TypeVar("T")

_LIKELY = 0.5
"""From which probability on a class counts where several may be right."""


class _NotPredictedError(ArgumentError, AttributeError):
    """Something was asked of a prediction that its task does not give; an AttributeError, so that hasattr() tells."""


class Prediction:
    """What a model says of one image.

    What is there depends on the task:

    * classification: ``label``, ``probability``, ``probabilities``, ``top(k)``;
    * multilabel (several classes may be right, e.g. trained with ``"bce"``): the same, and ``labels``;
    * segmentation: ``mask``, ``present``, and ``probability_maps`` where they were asked for;
    * regression: ``outputs``, and ``value`` where the model has one output;
    * images (denoising, autoencoders): ``outputs`` and ``image``.

    Anything else answers with an error that says so.

    Args:
        task: What the model does.
        classes: The class names, or ``None``.
        path: The image's file, or ``None`` for one that was in memory.
        size: Height and width of the image in pixels.
        scores: A probability a class ``(C,)``; ``None`` for tasks without.
        outputs: The model's outputs ``(…)``, or ``None``.
        mask: Class numbers ``(H, W)``, for segmentation.
        maps: Probabilities ``(C, H, W)``, for segmentation, or ``None``.
        image: The image that the model has made, or ``None``.

    Attributes:
        task: What the model does.
        classes: The class names in the order of the model's outputs; ``None`` where there are none.
        path: The image's file, or ``None`` for one that was in memory.
        size: Height and width of the image in pixels.
    """

    __slots__ = ("_image", "_maps", "_mask", "_outputs", "_scores", "classes", "path", "size", "task")

    def __init__(
        self,
        *,
        task: Task,
        classes: tuple[str, ...] | None,
        path: Path | None,
        size: tuple[int, int],
        scores: Tensor | None = None,
        outputs: Tensor | None = None,
        mask: Tensor | None = None,
        maps: Tensor | None = None,
        image: Image.Image | None = None,
    ) -> None:
        self.task = task
        self.classes = classes
        self.path = path
        self.size = size
        self._scores = scores
        self._outputs = outputs
        self._mask = mask
        self._maps = maps
        self._image = image

    @property
    def scores(self) -> Tensor:
        """The probability of each class, in the order of ``classes``: ``(C,)``."""
        return self._given("probabilities", self._scores)

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self._names("a label")[int(self._given("a label", self._scores).argmax())]

    @property
    def index(self) -> int:
        """The number of the most probable class: its place in ``classes``."""
        return int(self._given("a class", self._scores).argmax())

    @property
    def labels(self) -> list[str]:
        """The names of all classes that hold: of a classification the most probable one, else those of at least 0.5."""
        if self.task == "multilabel":
            return [name for name, score in self.top(len(self._names("labels"))) if score >= _LIKELY]
        return [self.label]

    @property
    def probability(self) -> float:
        """The probability of the most probable class, from 0 to 1."""
        return float(self._given("a probability", self._scores).max())

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of every class, most probable first."""
        return dict(self.top(len(self._names("probabilities"))))

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns the most probable classes and their probabilities, most probable first; all where there are fewer.

        Args:
            count: How many.

        Raises:
            ArgumentError: A count below 1, or a prediction without probabilities.
        """
        check_integer("top: count", count, expected="an integer of 1 or more", fix="top(3)")
        names, scores = self._names("probabilities"), self._given("probabilities", self._scores)
        values, places = scores.sort(descending=True, stable=True)
        pairs = zip(places[:count].tolist(), values[:count].tolist(), strict=True)
        return [(names[place], value) for place, value in pairs]

    @property
    def mask(self) -> Tensor:
        """The class of each pixel as its place in ``classes``: ``(H, W)``, as large as the image; uint8 up to 256 classes."""
        return self._given("a mask", self._mask)

    @property
    def probability_maps(self) -> Tensor:
        """The probability of each class at each pixel ``(C, H, W)``, where ``predict(…, probability_maps=True)`` was asked."""
        if self.task == "segmentation" and self._maps is None:
            raise _NotPredictedError(
                "the probability maps were not kept",
                got="a mask alone",
                expected="maps, which take a float for each class and pixel",
                fix="pass predict(…, probability_maps=True)",
            )
        return self._given("probability maps", self._maps)

    @property
    def present(self) -> dict[str, float]:
        """The classes that the mask holds, with their share of the pixels, largest first."""
        shares = [(name, share) for name, share in self.shares().items() if share > 0]
        return dict(sorted(shares, key=lambda pair: -pair[1]))

    def shares(self) -> dict[str, float]:
        """Returns the share of the mask's pixels that each class has, 0 for those that are not in it.

        Raises:
            ArgumentError: A prediction without a mask.
        """
        names, mask = self._names("a mask"), self.mask
        counts = torch.bincount(mask.flatten().long(), minlength=len(names)).tolist()
        return {name: count / mask.numel() for name, count in zip(names, counts, strict=True)}

    @property
    def outputs(self) -> Tensor:
        """The model's outputs for this image as they are ``(…)``, e.g. logits.

        Not there for masks, and with test-time augmentation not for classes either: only probabilities are averaged.
        """
        return self._given("outputs", self._outputs)

    @property
    def value(self) -> float:
        """The one output of a regression."""
        outputs = self._given("a value", self._outputs)
        if self.task != "regression" or outputs.numel() != 1:
            raise _NotPredictedError(
                "this prediction is no single value",
                got=f"{self.task} with outputs of shape {tuple(outputs.shape)}",
                expected="a regression with one output",
                fix="take prediction.outputs",
            )
        return float(outputs)

    @property
    def image(self) -> Image.Image:
        """The image that the model has made of this one, in the size that it works on."""
        return self._given("an image", self._image)

    def row(self) -> dict[str, Any]:
        """Returns this prediction as one row of a table, by column.

        ``path`` first; then ``label``, ``probability`` and one column a class (probabilities); or for a mask ``height``,
        ``width`` and one column a class (shares of the pixels); or ``value``, or ``value_0``, ``value_1``, …
        """
        row: dict[str, Any] = {"path": str(self.path) if self.path is not None else None}
        if self._scores is not None:
            label = "|".join(self.labels) if self.task == "multilabel" else self.label
            row |= {"label": label, "probability": self.probability}
            values: Sequence[float] = self._scores.tolist()
        elif self._mask is not None:
            row |= {"height": self.size[0], "width": self.size[1]}
            values = list(self.shares().values())
        elif self.task == "reconstruction":
            return row | {"height": self.size[0], "width": self.size[1]}
        else:
            numbers = self.outputs.flatten().tolist()
            return row | ({"value": numbers[0]} if len(numbers) == 1 else dict(_numbered(numbers)))
        return row | dict(zip(_columns(self._names("classes"), row), values, strict=True))

    def __repr__(self) -> str:
        if self._scores is not None:
            return f"Prediction(label={self.label!r}, probability={self.probability:.4g})"
        if self._mask is not None:
            present = ", ".join(f"{name!r}: {share:.4g}" for name, share in self.present.items())
            return f"Prediction(mask={self.size[0]}×{self.size[1]}, present={{{present}}})"
        if self._image is not None:
            return f"Prediction(image={self._image.width}×{self._image.height})"
        outputs = self.outputs
        shown = f"value={float(outputs):.4g}" if outputs.numel() == 1 else f"outputs={tuple(outputs.shape)}"
        return f"Prediction({shown})"

    def _names(self, what: str) -> tuple[str, ...]:
        if self.classes is None:
            raise self._lacks(what)
        return self.classes

    def _given(self, what: str, part: T | None) -> T:
        if part is None:
            raise self._lacks(what)
        return part

    def _lacks(self, what: str) -> _NotPredictedError:
        there = {
            "_scores": "label, probability, probabilities, top(k)",
            "_mask": "mask, present",
            "_maps": "probability_maps",
            "_outputs": "outputs",
            "_image": "image",
        }
        return _NotPredictedError(
            f"this prediction has no {what.removeprefix('a ')}",
            got=f"the prediction of a model for {self.task}",
            expected=", ".join(names for part, names in there.items() if getattr(self, part) is not None),
            fix="take what is there; cvkit.predict(model, data) gives the outputs of any model",
        )


def _numbered(values: Sequence[float]) -> Iterator[tuple[str, float]]:
    return ((f"value_{number}", value) for number, value in enumerate(values))


def _columns(classes: Sequence[str], taken: Mapping[str, Any]) -> list[str]:
    """Returns a column's name for each class: its own, unless a column is called so already."""
    used = {*taken, *classes}
    columns = []
    for name in classes:
        column = name
        while column in taken or (column != name and column in used):
            column += " (class)"
        used.add(column)
        columns.append(column)
    return columns


class Predictions(Sequence[Prediction]):
    """What a model says of many images, in their order.

    ``predictions[0]`` is the first, ``pandas.DataFrame(predictions.rows)`` a data frame.

    Args:
        predictions: One an image.
        skipped: The message of each image that could not be read and was left out, by its path or its place in the list.

    Attributes:
        skipped: The message of each image that was left out (``on_error="skip"``).
    """

    def __init__(self, predictions: Sequence[Prediction], skipped: Mapping[str, str] | None = None) -> None:
        self._predictions = list(predictions)
        self.skipped = dict(skipped or {})

    @overload
    def __getitem__(self, key: int) -> Prediction: ...
    @overload
    def __getitem__(self, key: slice) -> Predictions: ...
    def __getitem__(self, key: int | slice) -> Prediction | Predictions:
        """Returns a prediction, or several."""
        if isinstance(key, slice):
            return Predictions(self._predictions[key])
        return self._predictions[key]

    def __len__(self) -> int:
        return len(self._predictions)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._predictions)

    @property
    def paths(self) -> list[Path | None]:
        """The file of each image, ``None`` for one that was in memory."""
        return [one.path for one in self]

    @property
    def labels(self) -> list[str]:
        """The label of each image."""
        return [one.label for one in self]

    @property
    def probabilities(self) -> Tensor:
        """The probability of each class for each image ``(N, C)``, in the order of the classes."""
        return torch.stack([one.scores for one in self])

    @property
    def outputs(self) -> Tensor:
        """The model's outputs ``(N, …)``; see :attr:`Prediction.outputs`."""
        return torch.stack([one.outputs for one in self])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row an image, by column; see :meth:`Prediction.row`."""
        return [one.row() for one in self]

    def to_csv(self, path: str | Path | None = None) -> str:
        """Writes the rows as CSV, to a file if one is named, and returns the text.

        Numbers have nine digits, from which a 32-bit float is read back exactly.

        Args:
            path: The file; its directory is made if missing.
        """
        rows = self.rows
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["path"], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{one:.9g}" if isinstance(one, float) else one for key, one in row.items()})
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")
        return text.getvalue()

    def __repr__(self) -> str:
        left_out = f", {len(self.skipped)} skipped" if self.skipped else ""
        first = f": {', '.join(map(repr, self._predictions[:3]))}" if self._predictions else ""
        return f"Predictions({len(self)}{left_out}{first}{', …' if len(self) > 3 else ''})"
