"""From a batch of a model's inputs to one prediction for each image in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ArgumentError, ModelError
from cvkit.inference.outputs import VIEWS, Reader, Task, View, mask_of, outputs_of, resize_map
from cvkit.inference.prediction import Prediction
from cvkit.transforms import Framed, Transform

__all__ = ["BatchOutputs", "predictions_of", "run_views"]

_MAPS = ("segmentation", "reconstruction")


@dataclass(frozen=True, slots=True)
class BatchOutputs:
    """What a model says of a batch.

    Attributes:
        task: What it does.
        scores: Probabilities ``(N, C)`` or ``(N, C, H, W)``, or values ``(N, …)``.
        outputs: Its outputs as they are ``(N, …)``; ``None`` where probabilities of several views were averaged.
    """

    task: Task
    scores: Tensor
    outputs: Tensor | None


def run_views(model: Any, inputs: Tensor, views: Sequence[View], reader: Reader) -> BatchOutputs:
    """Runs a model on each view of a batch and averages what it says.

    Args:
        model: The model, in evaluation mode.
        inputs: ``(N, …)``; images ``(N, C, H, W)`` where there is another view than the original.
        views: The views.
        reader: How its outputs are read.

    Raises:
        ModelError: It fails on the batch, or its outputs do not fit the batch, the task or the classes.
        ArgumentError: Views of what is no image.
    """
    if inputs.ndim != 4 and list(views) != [VIEWS["original"]]:
        raise ArgumentError(
            "test-time augmentation needs images",
            got=f"inputs of shape {tuple(inputs.shape)}",
            expected="(N, C, H, W)",
            fix="leave tta out",
        )
    total: Tensor | None = None
    for view in views:
        outputs = outputs_of(model, view.of(inputs))
        if outputs.ndim == 0 or len(outputs) != len(inputs):
            raise ModelError(
                "the model's outputs are not one row an image",
                got=f"shape {tuple(outputs.shape)} from a batch of {len(inputs)}",
                expected=f"({len(inputs)}, …)",
                fix="take squeeze() without a dimension, reshape and mean over dimension 0 out of its forward()",
            )
        task = reader.task_of(outputs)
        scores = reader.scores(outputs, task)
        if task in _MAPS and scores.ndim == 4:
            scores = view.undo(scores)
        total = scores if total is None else total + scores
    if total is None:
        raise ArgumentError("there is no view to look at", expected="at least one", fix='tta="flip"')
    alone = len(views) == 1 and views[0] == VIEWS["original"]
    mean = total if len(views) == 1 else total / len(views)
    kept = outputs.float() if alone else mean if task in ("regression", "reconstruction") else None
    return BatchOutputs(task, mean, kept)


def predictions_of(
    batch_outputs: BatchOutputs,
    sizes: Sequence[tuple[int, int]],
    paths: Sequence[Path | None],
    names: Sequence[str],
    classes: tuple[str, ...] | None,
    transform: Any,
    *,
    probability_maps: bool,
) -> list[Prediction]:
    """Returns a prediction for each image of a batch, on the CPU.

    Args:
        batch_outputs: What the model says.
        sizes: Height and width of each image in pixels.
        paths: The file of each.
        names: What to call each in a message.
        classes: The class names.
        transform: The preprocessing.
        probability_maps: Whether the maps of a segmentation are kept.

    Raises:
        ModelError: Outputs that are not finite.
        ArgumentError: A preprocessing that looks at a part of each image, where there is to be a mask.
    """
    task = batch_outputs.task
    _check_finite(batch_outputs.scores, names)
    if task == "segmentation":
        _check_whole(transform)
        masks = (_masked(one, size, probability_maps) for one, size in zip(batch_outputs.scores, sizes, strict=True))
        return [
            Prediction(task=task, classes=classes, path=path, size=size, mask=mask, maps=maps)
            for (mask, maps), size, path in zip(masks, sizes, paths, strict=True)
        ]
    scores = batch_outputs.scores.cpu() if task in ("classification", "multilabel") else None
    outputs = batch_outputs.outputs.cpu() if batch_outputs.outputs is not None else None
    return [
        Prediction(
            task=task,
            classes=classes,
            path=path,
            size=size,
            scores=scores[row] if scores is not None else None,
            outputs=outputs[row] if outputs is not None else None,
            image=_restored(outputs[row], transform) if task == "reconstruction" and outputs is not None else None,
        )
        for row, (path, size) in enumerate(zip(paths, sizes, strict=True))
    ]


def _check_finite(scores: Tensor, names: Sequence[str]) -> None:
    """Refuses numbers that are none; an infinite logit is a probability of 0 or 1, but two of them are not."""
    fine = torch.isfinite(scores).flatten(1).all(1) if scores.ndim > 1 else torch.isfinite(scores)
    if bool(fine.all()):
        return
    bad = (~fine).nonzero().flatten().tolist()
    raise ModelError(
        f"the model's outputs for {names[bad[0]]} are not finite",
        got=f"NaN or infinity for {len(bad)} of the {len(names)} images in its batch",
        expected="numbers",
        fix='see whether its weights are finite, and predict with precision="fp32"; a run whose loss was not finite is lost '
        "from there on",
    )


def _check_whole(transform: Any) -> None:
    """Refuses a preprocessing of which a mask cannot be brought back to the image's size."""
    if isinstance(transform, Framed) and transform.by_frame:
        frame = transform.frame(4 * transform.size, 2 * transform.size)
        if frame.box == (0, 0, *frame.of) and frame.window is None:
            return
    raise ArgumentError(
        "masks cannot be brought back to the images' size",
        got=f"the preprocessing {transform!r}, which may look at a part of each image",
        expected="one that looks at the whole image, e.g. segmentation_eval",
        fix="predict with cvkit.transforms.segmentation_eval(size)",
    )


def _masked(probabilities: Tensor, size: tuple[int, int], keep: bool) -> tuple[Tensor, Tensor | None]:
    """Returns the mask of an image in its own size, and the probability maps if they are kept."""
    mask = mask_of(probabilities, *size).cpu()
    return mask, torch.stack([resize_map(one, *size) for one in probabilities]).cpu() if keep else None


def _restored(outputs: Tensor, transform: Any) -> Image.Image | None:
    """Returns outputs that are an image as one, or ``None`` where they are none that this preprocessing knows."""
    if not isinstance(transform, Transform) or outputs.numel() != transform.channels * transform.size**2:
        return None
    pixels = transform.denormalize(outputs.reshape(transform.channels, transform.size, transform.size))
    levels = (pixels * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    return Image.fromarray(levels[:, :, 0] if transform.channels == 1 else levels)
