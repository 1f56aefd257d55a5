"""What is written over an image: the names of its target, and what a model says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvkit.errors import ArgumentError
from cvkit.figures import RIGHT, WRONG, shorten

__all__ = ["LONGEST", "Answer", "answer", "class_name", "find_classes", "find_files", "truth"]

LONGEST = 22
"""Characters of a name that fit over an image."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one sample.

    Attributes:
        said: In words.
        right: Whether it is so; ``None`` where there is nothing to compare it with.
        truth: What is so, in words; empty where it is not known.
    """

    said: str
    right: bool | None
    truth: str

    @property
    def title(self) -> str:
        """What to write over the image; right and wrong are told by a sign, not by colour alone."""
        if self.right is None:
            return f"{self.said}\n(is {self.truth})" if self.truth else self.said
        return f"✓ {self.said}" if self.right else f"✗ {self.said}\nis {self.truth}"

    @property
    def colour(self) -> str | None:
        """Blue for right, vermilion for wrong, none where it is not known."""
        return None if self.right is None else RIGHT if self.right else WRONG


def find_classes(holder: Any, given: Sequence[str] | None) -> list[str] | None:
    """Returns the class names: those given, else those of a loader or predictor, or of the loader's dataset.

    Raises:
        ArgumentError: A single string.
    """
    if isinstance(given, str):
        raise ArgumentError(
            "classes cannot be used", got=repr(given), expected="a list of names", fix=f"classes=[{given!r}]"
        )
    if given is not None:
        return [str(one) for one in given]
    while holder is not None:
        classes = getattr(holder, "classes", None)
        if classes is not None:
            return [str(one) for one in classes]
        holder = getattr(holder, "dataset", None)
    return None


def find_files(dataset: Any) -> list[str] | None:
    """Returns the file of each sample of a dataset, or of a part of one, where it has files; torchvision's too."""
    paths = getattr(dataset, "paths", None)
    if paths is not None:
        return [str(path) for path in paths]
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        whole = find_files(dataset.dataset)
        return None if whole is None else [whole[index] for index in dataset.indices]
    samples = getattr(dataset, "samples", None)
    if (
        isinstance(samples, list)
        and samples
        and isinstance(samples[0], tuple)
        and isinstance(samples[0][0], str | Path)
    ):
        return [str(one[0]) for one in samples]
    return None


def class_name(index: int, classes: Sequence[str] | None) -> str:
    """Returns the name of a class, or its number where it has none."""
    return shorten(classes[index], LONGEST) if classes is not None and 0 <= index < len(classes) else str(index)


def truth(target: Tensor | None, classes: Sequence[str] | None) -> str:
    """Returns in words what the target of one sample says; nothing for masks and images.

    A vector over the classes is a mixture (``"ants 70 % + bees 30 %"``) if it sums to 1, and otherwise, of zeros and
    ones, all the classes that hold.
    """
    if target is None or target.ndim > 1:
        return ""
    if target.numel() == 1:
        value = float(target)
        if target.is_floating_point() and not (classes is not None and value.is_integer()):
            return f"{value:.4g}"
        return class_name(int(value), classes)
    if target.numel() == 0 or (classes is not None and len(target) != len(classes)):
        return ""
    values = target.float()
    if bool((values >= 0).all()) and abs(float(values.sum()) - 1) < 1e-3:
        parts = [(float(part), index) for index, part in enumerate(values) if part >= 0.005]
        parts.sort(reverse=True)
        if len(parts) == 1:
            return class_name(parts[0][1], classes)
        return " + ".join(f"{class_name(index, classes)} {part:.0%}".replace("%", " %") for part, index in parts[:2])
    if bool(((values == 0) | (values == 1)).all()):
        return _several(values == 1, classes)
    return ", ".join(f"{value:.3g}" for value in values[:3].tolist()) + (", …" if len(values) > 3 else "")


def _several(held: Tensor, classes: Sequence[str] | None) -> str:
    names = [class_name(index, classes) for index in held.nonzero().flatten().tolist()]
    return shorten(", ".join(names), 2 * LONGEST) if names else "none"


def answer(output: Tensor, target: Tensor | None, classes: Sequence[str] | None) -> Answer:
    """Returns what the output of one sample says, compared with its target.

    Several outputs are logits of classes, or of each class for itself where the target is a vector of zeros and ones
    that does not sum to 1. One output is a logit of the second class where the target is a class, and a number
    otherwise.

    Args:
        output: ``(C,)`` or a scalar.
        target: What is so, or ``None``.
        classes: The class names, if they are known.

    Raises:
        ArgumentError: Outputs that are no scores, or that do not fit the classes.
    """
    output, known = output.float().reshape(-1) if output.ndim < 2 else output, truth(target, classes)
    if output.ndim > 1 or (classes is not None and output.numel() not in (len(classes), 1)):
        raise ArgumentError(
            "the model's outputs are no answers that can be named",
            got=f"outputs of shape {tuple(output.shape)} a sample" + (f", {len(classes)} classes" if classes else ""),
            expected="one output for each class, or one for two classes",
            fix="show masks with show_masks(loader, model)",
        )
    if not bool(output.isfinite().all()):
        return Answer("no answer: not finite", False if known else None, known)
    if output.numel() == 1 and (classes is None or len(classes) != 1):
        return _one_output(output, target, classes, known)
    if target is not None and target.ndim == 1 and _is_several(target):
        said = output > 0
        return Answer(_several(said, classes), bool((said == (target == 1)).all()), known)
    share, index = output.softmax(0).max(0)
    said_name = f"{class_name(int(index), classes)} {float(share):.0%}".replace("%", " %")
    if target is None or (target.numel() == 1 and not 0 <= int(target) < output.numel()):
        return Answer(said_name, None, known)
    right = int(index) == (int(target) if target.numel() == 1 else int(target.argmax()))
    return Answer(said_name, right, known)


def _is_several(target: Tensor) -> bool:
    """Whether a vector over the classes says of each for itself whether it holds."""
    values = target.float()
    return bool(((values == 0) | (values == 1)).all()) and float(values.sum()) != 1


def _one_output(output: Tensor, target: Tensor | None, classes: Sequence[str] | None, known: str) -> Answer:
    whole = target is not None and (not target.is_floating_point() or float(target) in (0.0, 1.0))
    if not (classes is not None and len(classes) == 2) and not whole:
        return Answer(f"{float(output):.4g}", None, known)
    second = float(output.sigmoid())
    index = int(float(output) > 0)
    said = f"{class_name(index, classes)} {second if index else 1 - second:.0%}".replace("%", " %")
    return Answer(said, None if target is None else index == int(torch.as_tensor(target)), known)
