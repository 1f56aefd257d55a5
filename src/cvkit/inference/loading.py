"""``load``: a checkpoint file to a predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from cvkit.inference.checkpoint_description import Description
from cvkit.inference.model_building import build, load_weights
from cvkit.inference.outputs import Task, gives_logits, is_classification, task_of_run
from cvkit.inference.predictor import Predictor
from cvkit.integrations.hub import content_of
from cvkit.training import load_checkpoint
from cvkit.training.runtime import Precision
from cvkit.transforms import Transform

__all__ = ["load"]


def load(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    classes: Sequence[str] | None = None,
    transform: Transform | Callable[[Image.Image], Tensor] | None = None,
    task: Task | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
) -> Predictor:
    """Makes a predictor from a checkpoint file alone, without the script that wrote it.

    The file tells the model, its classes, the preprocessing of the run's validation, how its files were decoded, its batch
    size, and what its outputs are. What it cannot tell (a model, data or transform of the user's own) is given here.

    The file may come from someone you do not trust. Loading it runs nothing in it, and it decides no more than this: which of
    cvkit's, torchvision's, timm's (without its weights) or your registered models is built, with which arguments of its
    architecture; which preset prepares the images; what the classes are called. It cannot make cvkit download or open anything,
    nor import more than torchvision or timm, and the model takes no more memory than a few times the weights in the file. It
    does decide what the model answers.

    Args:
        path: A file that a ``Checkpoint`` callback wrote; or what ``cvkit.integrations.hub.push`` published: a directory,
            or ``"hf://owner/name"`` with ``@revision`` for a branch, tag or commit. Name a commit where it matters that the
            model stays the same.
        model: A model that takes the file's weights, in place of the one that the file describes.
        classes: Class names, in place of the file's.
        transform: The preprocessing, in place of the file's.
        task: What the outputs are, as in :class:`Predictor`, in place of what the run's loss, data and transform tell.
        device: ``"auto"`` or a device.
        precision: As in ``fit``.

    Returns:
        The predictor.

    Raises:
        CheckpointError: Missing, damaged, of a newer format, weights that do not fit, or of a run that cvkit cannot rebuild
            from the file (a model, data or transform of the user's own); it says what is missing. Or a description that cannot
            be right, or a model that is far larger than the weights in the file.
        MissingDependencyError: A model of timm's, and timm is not installed; or something published, and safetensors or
            huggingface_hub is not.
        DeviceError: A device or precision that is not there.
    """
    published = content_of(path)
    content = published if published is not None else load_checkpoint(path)
    known = Description(content, path)
    how, loss = known.reading(), known.loss
    if model is None:
        known.model()  # what is missing is told in this order
    looks = transform if transform is not None else known.transform()
    names = classes if classes is not None else known.classes()
    preset = looks.name if isinstance(looks, Transform) else None
    found = task if task != "auto" else task_of_run(loss, how.kind, preset, names)
    if names is None and found == "auto" and is_classification(loss):
        raise known.missing("classes")
    if model is not None:
        made = model
        load_weights(made, known.weights, path)
    else:
        made = build(known.model(), known.weights, path)
        known.check_layers(made)
    return Predictor(
        made,
        names,
        looks,
        task=found,
        outputs="logits" if gives_logits(loss) else "probabilities",
        device=device,
        precision=precision,
        batch_size=how.batch_size,
        background=how.background,
        max_pixels=how.max_pixels,
        whole=how.whole,
        colour=how.colour,
    )
