"""Grids of images: a batch, predictions, the highest losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.figures import shorten
from cvkit.inference import Predictor
from cvkit.losses import LossFunction, resolve_loss
from cvkit.plots.captions import LONGEST, answer, find_classes, find_files, truth
from cvkit.plots.images import Batch, Denormalize, check_count, first_batch, how_to_denormalize, to_pixels
from cvkit.plots.layout import Cell, draw_grid, side_by_side
from cvkit.plots.model_outputs import check_model, inference_function, iterate_epoch, spread_over_dataset
from cvkit.training.runtime import Precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["show_batch", "show_predictions", "top_losses"]


def show_batch(
    loader: Any,
    *,
    count: int = 16,
    columns: int | None = None,
    classes: Sequence[str] | None = None,
    denormalize: Denormalize | None = None,
) -> Figure:
    """Shows the images of the first batch of an epoch as the model gets them, with the names of their targets.

    A target that is an image stands on the right of its input; masks are shown by :func:`show_masks`. Floats are
    denormalised by the loader's transform; where that is not known, values beyond 0 to 1 are stretched over the whole
    batch, and a note says so.

    Args:
        loader: A loader, which stays where it is, as does every random generator; or one batch ``(inputs, targets)`` or
            ``inputs``.
        count: The most images that are shown.
        columns: Images to a row.
        classes: The class names; by default the loader's, or its dataset's.
        denormalize: Undoes the normalisation, ``(N, C, H, W) -> (N, C, H, W)``.

    Raises:
        ArgumentError: No images, or none at all.
        DataError: The loader fails to give a batch.
        MissingDependencyError: matplotlib is not installed.
    """
    check_count("count", count)
    names, denormalize = find_classes(loader, classes), how_to_denormalize(loader, denormalize)
    batch = first_batch(loader)
    if _is_image(batch.targets, batch.inputs) and batch.targets is not None:
        return _show_strips({"input": batch.inputs[:count], "target": batch.targets[:count]}, columns, denormalize)
    pixels, notes = to_pixels(batch.inputs[:count], denormalize)
    titles = [truth(None if batch.targets is None else batch.targets[i], names) for i in range(len(pixels))]
    return draw_grid([Cell(*one) for one in zip(pixels, titles, strict=True)], columns, notes=notes)


def _show_strips(shown: dict[str, Tensor], columns: int | None, denormalize: Denormalize | None) -> Figure:
    """Shows images of the same samples side by side, under what they are."""
    found = [to_pixels(one, denormalize) for one in shown.values()]
    cells = [Cell(one) for one in side_by_side([pixels for pixels, _ in found])]
    return draw_grid(
        cells, columns, notes=list(dict.fromkeys(note for _, more in found for note in more)), parts=list(shown)
    )


def _is_image(targets: Tensor | None, inputs: Tensor) -> bool:
    """Whether targets are images like the inputs, rather than masks, whose values are integers."""
    return targets is not None and targets.ndim == inputs.ndim == 4 and targets.is_floating_point()


def show_predictions(
    model: nn.Module | Predictor,
    loader: Any,
    *,
    count: int = 16,
    columns: int | None = None,
    classes: Sequence[str] | None = None,
    denormalize: Denormalize | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Figure:
    """Shows images with what a model says of each.

    Of a loader that does not shuffle they are from all over its data, since a folder's first batch has one class only; of any
    other, and of batches, those of the first batch. Right answers are blue with a ✓, wrong ones vermilion with a ✗ and what is
    so. Where a model gives images (an autoencoder), input, output and target stand side by side.

    Args:
        model: A module, which is moved to the device, or what :func:`cvkit.load` gives.
        loader: As in :func:`show_batch`.
        count: The most images that are shown.
        columns: Images to a row.
        classes: The class names; by default the predictor's or the loader's.
        denormalize: As in :func:`show_batch`.
        device: For a module: ``"auto"`` or a device.
        precision: For a module: as in :func:`cvkit.fit`.

    Raises:
        ArgumentError: No images, or a model whose outputs are neither answers nor images.
        DataError: The loader fails to give a batch.
        MissingDependencyError: matplotlib is not installed.
    """
    check_model(model)
    check_count("count", count)
    names = find_classes(model if isinstance(model, Predictor) else loader, classes)
    denormalize = how_to_denormalize(loader, denormalize) or how_to_denormalize(model, None)
    batch = first_batch(spread_over_dataset(loader, count))
    batch = Batch(batch.inputs[:count], None if batch.targets is None else batch.targets[:count])
    pixels, notes = to_pixels(batch.inputs, denormalize)
    with inference_function(model, device, precision) as infer:
        outputs = infer(batch.inputs)
    if outputs.ndim == batch.inputs.ndim == 4 and outputs.shape[1] == batch.inputs.shape[1]:
        strips = {"input": batch.inputs, "output": outputs}
        if _is_image(batch.targets, batch.inputs) and batch.targets is not None:
            strips["target"] = batch.targets
        return _show_strips(strips, columns, denormalize)
    cells, right, judged = [], 0, 0
    for i, image in enumerate(pixels):
        said = answer(outputs[i], None if batch.targets is None else batch.targets[i], names)
        right, judged = right + bool(said.right), judged + (said.right is not None)
        cells.append(Cell(image, said.title, said.colour))
    return draw_grid(cells, columns, f"{right} of {judged} right" if judged else "", notes)


def top_losses(
    model: nn.Module | Predictor,
    loader: Any,
    *,
    count: int = 9,
    columns: int | None = None,
    loss: str | nn.Module | LossFunction = "cross_entropy",
    classes: Sequence[str] | None = None,
    denormalize: Denormalize | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Figure:
    """Shows the samples with the highest losses of an epoch, the highest first.

    Among them are the hard ones, and those whose label is wrong. Each has its loss, what the model says, what is so,
    and its file, or its place in a dataset without files. A loss that is not a number counts as the highest.

    Args:
        model: As in :func:`show_predictions`.
        loader: A loader, which is iterated once and stays where it is. A shuffled torch ``DataLoader`` is iterated in the
            order of its dataset.
        count: How many samples are shown.
        columns: Images to a row.
        loss: As in :func:`cvkit.fit`; computed of each sample by itself.
        classes: As in :func:`show_predictions`.
        denormalize: As in :func:`show_batch`.
        device: As in :func:`show_predictions`.
        precision: As in :func:`show_predictions`.

    Raises:
        ArgumentError: No images, no targets, or outputs that are no answers.
        MissingDependencyError: matplotlib is not installed.
    """
    check_model(model)
    check_count("count", count)
    names = find_classes(model if isinstance(model, Predictor) else loader, classes)
    denormalize = how_to_denormalize(loader, denormalize) or how_to_denormalize(model, None)
    loss_fn = _on_host(resolve_loss(loss).function)
    worst: list[_Scored] = []
    with inference_function(model, device, precision) as infer:
        for batch, places in iterate_epoch(loader):
            worst = _highest([*worst, *_scored(batch, places, infer(batch.inputs), loss_fn)], count)
    files = find_files(getattr(loader, "dataset", None))
    pixels, notes = to_pixels(torch.stack([one.inputs for one in worst]), denormalize)
    cells = []
    for image, one in zip(pixels, worst, strict=True):
        said = answer(one.output, one.target, names)
        name = "/".join(PurePath(files[one.place]).parts[-2:]) if files is not None else f"sample {one.place}"
        cells.append(Cell(image, f"{shorten(name, LONGEST)}\nloss {one.loss:.3g}\n{said.title}", said.colour))
    return draw_grid(cells, columns, notes=notes)


@dataclass(frozen=True, slots=True)
class _Scored:
    """A sample with its loss."""

    loss: float
    place: int
    inputs: Tensor
    output: Tensor
    target: Tensor


def _on_host(loss_fn: LossFunction) -> LossFunction:
    """Returns a loss for tensors on the host; one that is a module may hold weights elsewhere, which stay there."""
    return copy.deepcopy(loss_fn).cpu() if isinstance(loss_fn, nn.Module) else loss_fn


def _scored(batch: Batch, places: list[int], outputs: Tensor, loss_fn: LossFunction) -> list[_Scored]:
    if batch.targets is None:
        raise ArgumentError(
            "there is no loss without targets",
            got="batches of inputs alone",
            expected="batches (inputs, targets)",
            fix="show what a model says of them with show_predictions(model, loader)",
        )
    found = []
    for i, place in enumerate(places):
        output, target = outputs[i : i + 1], batch.targets[i : i + 1]
        found.append(_Scored(float(loss_fn(output, target)), place, batch.inputs[i], output[0], target[0]))
    return found


def _highest(found: list[_Scored], count: int) -> list[_Scored]:
    """Returns the samples with the highest losses, each once, those of the same loss in their order."""
    ranked = sorted(found, key=lambda one: math.inf if math.isnan(one.loss) else one.loss, reverse=True)
    once = {one.place: one for one in reversed(ranked)}
    kept = [one for one in ranked if once[one.place] is one][:count]
    return kept
