"""What a model's outputs mean: probabilities, masks or values; and the views of test-time augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from cvkit.errors import ArgumentError, CvkitError, ModelError, unknown_name
from cvkit.losses import spec_of
from cvkit.outputs import TASKS, OutputSpec, Task, probabilities_of, task_of_outputs

__all__ = [
    "TASKS",
    "VIEWS",
    "Reader",
    "Task",
    "View",
    "Views",
    "gives_logits",
    "is_classification",
    "mask_of",
    "outputs_of",
    "resize_map",
    "task_of_run",
    "tensor_of",
    "views_of",
]


Views: TypeAlias = "str | int | Sequence[str] | None"


@dataclass(frozen=True, slots=True)
class View:
    """An image mirrored left and right or not, and then turned by quarters counter-clockwise.

    Attributes:
        mirrored: Whether it is mirrored, before it is turned.
        quarters: How many quarter turns.
    """

    mirrored: bool
    quarters: int

    def of(self, images: Tensor) -> Tensor:
        """Returns images ``(N, C, H, W)`` seen in this way."""
        seen = images.flip(-1) if self.mirrored else images
        return seen.rot90(self.quarters, (-2, -1)) if self.quarters else seen

    def undo(self, maps: Tensor) -> Tensor:
        """Returns what a model says of each place ``(N, C, H, W)`` at the places of the image itself."""
        back = maps.rot90(-self.quarters, (-2, -1)) if self.quarters else maps
        return back.flip(-1) if self.mirrored else back


VIEWS = {
    "original": View(False, 0),
    "flip": View(True, 0),
    "vertical_flip": View(True, 2),
    "rotate180": View(False, 2),
    "rotate90": View(False, 1),
    "rotate270": View(False, 3),
    "transpose": View(True, 1),
    "transverse": View(True, 3),
}
"""The eight ways to lay a square on itself."""


def views_of(tta: Views) -> list[View]:
    """Returns the views that test-time augmentation averages over.

    Args:
        tta: ``None`` for the image alone; the name of a view that is added to it; how many of :data:`VIEWS`, from the first;
            or the names of all views, ``"original"`` among them or not.

    Raises:
        UnknownNameError: A name that is no view's.
        ArgumentError: A number out of range, or something else.
    """
    if tta is None:
        return [VIEWS["original"]]
    if isinstance(tta, int) and not isinstance(tta, bool) and 1 <= tta <= len(VIEWS):
        return list(VIEWS.values())[:tta]
    names = list(dict.fromkeys(["original", tta])) if isinstance(tta, str) else tta
    if isinstance(names, bool | int) or not isinstance(names, Sequence) or len(names) == 0:
        raise ArgumentError(
            "tta cannot be used",
            got=repr(tta),
            expected=f"None, a view's name, how many views (1 to {len(VIEWS)}), or a list of names among {', '.join(VIEWS)}",
            fix='pass tta="flip" for the image and its mirror image',
        )
    for name in names:
        if name not in VIEWS:
            raise unknown_name("view", name, VIEWS)
    return [VIEWS[name] for name in names]


def tensor_of(outputs: Any) -> Tensor:
    """Returns a model's outputs as a tensor; of torchvision's segmentation models, which give several, the main one.

    Raises:
        ModelError: No tensor.
    """
    made = outputs.get("out") if isinstance(outputs, Mapping) else outputs
    if isinstance(made, Tensor):
        return made
    raise ModelError(
        "the model's outputs cannot be read",
        got=type(outputs).__name__ + (f" of {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else ""),
        expected='a tensor (N, …), or a dict that has one under "out"',
        fix="wrap the model in a module that returns the tensor that is wanted",
    )


def outputs_of(model: Any, inputs: Tensor) -> Tensor:
    """Runs a model on a batch, and returns what :func:`tensor_of` does.

    Raises:
        ModelError: It fails on these inputs, or gives no tensor.
    """
    try:
        made = model(inputs)
    except (CvkitError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        said = str(error).splitlines() or [""]
        raise ModelError(
            "the model fails on what the preprocessing makes of an image",
            got=f"{type(error).__name__}: {said[0]}; inputs {str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}",
            expected="inputs of the size and the channels that it was built for",
            fix="pass the transform that it was trained with, of its size",
        ) from error
    return tensor_of(made)


@dataclass(frozen=True, slots=True)
class Reader:
    """How outputs are read.

    Attributes:
        task: What they are; ``"auto"`` tells by their shape: with classes probabilities ``(N, C)`` or masks
            ``(N, C, H, W)``, without classes values ``(N, …)`` or images ``(N, C, H, W)``.
        classes: The class names, or ``None``.
        logits: Whether they are logits, of which probabilities are to be made; else they are probabilities.
    """

    task: Task | Literal["auto"]
    classes: tuple[str, ...] | None
    logits: bool = True

    def task_of(self, outputs: Tensor) -> Task:
        """Returns what these outputs ``(N, …)`` are.

        Raises:
            ModelError: They do not fit the task or the classes.
        """
        count = len(self.classes) if self.classes is not None else None
        task = self.task if self.task != "auto" else task_of_outputs(tuple(outputs.shape), OutputSpec(), count)
        task = "classification" if task == "binary" else task  # of two classes, from one output or two
        if (
            task == "multilabel"
            and outputs.shape[1:].numel() == 1
            and self.classes is not None
            and len(self.classes) == 2
        ):
            task = "classification"  # one output says which of the two it is
        if not self._fits(task, tuple(outputs.shape)):
            raise self._mismatch(task, outputs)
        return task

    def _fits(self, task: Task, shape: tuple[int, ...]) -> bool:
        if task in ("regression", "reconstruction"):
            return True
        if self.classes is None:
            return False
        allowed = self._channels(self.classes) if task != "multilabel" else {len(self.classes)}
        if task == "segmentation":
            return len(shape) == 4 and shape[1] in allowed
        return torch.Size(shape[1:]).numel() in allowed

    @staticmethod
    def _channels(classes: Sequence[str]) -> set[int]:
        """Returns how many outputs there may be for these classes: one may stand for the second of two."""
        return {len(classes), 1} if len(classes) == 2 else {len(classes)}

    def _mismatch(self, task: Task, outputs: Tensor) -> ModelError:
        count = len(self.classes) if self.classes is not None else 0
        wanted = {
            "classification": f"one output for each of the {count} classes",
            "multilabel": f"one output for each of the {count} classes",
            "segmentation": f"maps (N, {count}, H, W), one for each of the {count} classes",
        }[task]
        return ModelError(
            "the model's outputs do not fit its classes",
            got=f"outputs of shape {tuple(outputs.shape[1:])} an image",
            expected=wanted,
            fix="predict(model, data) gives the outputs of any model",
        )

    def scores(self, outputs: Tensor, task: Task) -> Tensor:
        """Returns probabilities in the order of the classes, or the values themselves.

        Args:
            outputs: ``(N, …)``.
            task: What they are.

        Returns:
            float32: ``(N, C)`` for classification, ``(N, C, H, W)`` for segmentation, else the shape of the outputs.
        """
        values = outputs.float()
        if task in ("regression", "reconstruction"):
            return values
        if task != "multilabel" and self.classes is not None and len(self.classes) == 1:
            return values.softmax(1) if self.logits else values
        return probabilities_of(values, OutputSpec(task, None if self.logits else "none"))


def task_of_run(loss: object, kind: object, preset: object, classes: Sequence[str] | None) -> Task | Literal["auto"]:
    """Returns what the outputs of a run's model are, as far as its checkpoint tells; else ``"auto"``.

    Args:
        loss: The loss's name.
        kind: What the labels of its dataset were, as ``ParallelDataset`` names it.
        preset: The name of its transform.
        classes: Its class names.
    """
    if kind == "mask":
        return "segmentation"
    if kind == "image" or preset == "denoise":
        return "reconstruction"
    if classes is None:
        return "auto"
    trained = spec_of(loss).task
    return "regression" if trained == "regression" else "multilabel" if trained in ("binary", "multilabel") else "auto"


def is_classification(loss: object) -> bool:
    """Whether a loss compares one output a class with the right class."""
    return spec_of(loss).task == "classification"


def gives_logits(loss: object) -> bool:
    """Whether a run's model gives logits, as far as its loss tells: not where that takes probabilities."""
    return spec_of(loss).task is None or spec_of(loss).activation != "none" or spec_of(loss).task == "regression"


def resize_map(probability: Tensor, height: int, width: int) -> Tensor:
    """Returns a map ``(h, w)`` in another size, bilinear."""
    if tuple(probability.shape) == (height, width):
        return probability
    made: Tensor = torch.nn.functional.interpolate(
        probability[None, None], (height, width), mode="bilinear", align_corners=False
    )
    return made[0, 0]


def mask_of(probabilities: Tensor, height: int, width: int) -> Tensor:
    """Returns the most probable class at each place, in another size; one map at a time, so that it takes little memory.

    Args:
        probabilities: ``(C, h, w)``.
        height: The mask's height in pixels.
        width: The mask's width in pixels.

    Returns:
        ``(height, width)``, uint8, or int32 for more than 256 classes; of several that are equal, the first.
    """
    kind = torch.uint8 if len(probabilities) <= 256 else torch.int32
    best = resize_map(probabilities[0], height, width)
    mask = torch.zeros(height, width, dtype=kind, device=best.device)
    for number in range(1, len(probabilities)):
        one = resize_map(probabilities[number], height, width)
        better = one > best
        mask[better] = number
        best = torch.where(better, one, best)
    return mask
