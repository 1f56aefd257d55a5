"""Predictions: from a checkpoint file alone, or from a module in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from cvkit.data.decode import decode
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.models import from_config
from cvkit.training import Runtime, load_checkpoint
from cvkit.training.feed import check_loader
from cvkit.training.runtime import Precision
from cvkit.transforms import Framed, Transform
from cvkit.transforms.sample import Frame

__all__ = ["Prediction", "Predictor", "load", "predict"]

Picture: TypeAlias = "str | Path | Image.Image"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says of one picture.

    Attributes:
        label: The name of the most probable class.
        probability: Its probability, from 0 to 1.
        probabilities: The probability of every class, most probable first.
    """

    label: str
    probability: float
    probabilities: dict[str, float]

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, probability={self.probability:.4g})"


class Predictor:
    """A classifier with everything that it needs to look at a picture.

    Args:
        model: The module; it is moved to the device and put into evaluation mode.
        classes: The name of each output.
        transform: The preprocessing, as in validation.
        device: ``"auto"`` or a device.
        precision: As in ``fit``.

    Raises:
        DeviceError: A device or precision that is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        transform: Transform,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "fp32",
    ) -> None:
        self.classes = list(classes)
        self.transform = transform
        self.runtime = Runtime(device, precision)
        self.model = self.runtime.prepare(model).eval()

    def __repr__(self) -> str:
        return f"Predictor({type(self.model).__name__}, classes={self.classes}, transform={self.transform!r})"

    def predict(self, picture: Picture) -> Prediction:
        """Predicts the class of one picture.

        Args:
            picture: A file, or a picture already opened.

        Raises:
            ImageError: A file that is missing, damaged, or no picture.
            ArgumentError: Something that is no picture.
        """
        # the same two stages as a batch in validation goes through
        pixels = self.runtime.place(_first_stage(self.transform, picture).unsqueeze(0))
        inputs, _ = self.transform.batch(pixels, torch.zeros(1, dtype=torch.long), torch.Generator())
        with torch.no_grad(), self.runtime.autocast():
            outputs = self.model(inputs)
        probabilities = _probabilities(outputs[0].float().cpu(), len(self.classes))
        ranked = sorted(zip(self.classes, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
        return Prediction(ranked[0][0], ranked[0][1], dict(ranked))


def _first_stage(transform: Transform, picture: Picture) -> Tensor:
    """Takes a picture through the first stage as a loader does: a large JPEG is decoded no larger than is needed."""
    if isinstance(picture, Image.Image):
        return transform.sample(picture)
    if not isinstance(picture, str | Path):
        raise ArgumentError(
            "predict cannot look at this",
            got=type(picture).__name__,
            expected="a path or a PIL image",
            fix="pass a path",
        )
    if not isinstance(transform, Framed):
        return transform.sample(decode(picture))
    asked: list[Frame] = []

    def enough(width: int, height: int) -> tuple[int, int]:
        asked.append(transform.frame(width, height))
        return asked[0].enough

    image = decode(picture, enough=enough)
    return transform.cut(image, asked[0] if asked else transform.frame(*image.size))


def _probabilities(logits: Tensor, classes: int) -> Tensor:
    """Turns the outputs of one sample into one probability a class; one output for two classes is a logit of the second."""
    if logits.numel() == classes:
        return logits.reshape(-1).softmax(0)
    if logits.numel() == 1 and classes == 2:
        second = logits.reshape(()).sigmoid()
        return torch.stack([1 - second, second])
    raise ArgumentError(
        "the model's outputs do not fit its classes",
        got=f"outputs of shape {tuple(logits.shape)}",
        expected=f"one output for each of the {classes} classes",
        fix="predict(model, data) gives the outputs of any model",
    )


def load(path: str | Path, *, device: str | torch.device = "auto") -> Predictor:
    """Makes a predictor from a checkpoint file alone, without the script that wrote it.

    Args:
        path: A file that a ``Checkpoint`` callback wrote.
        device: ``"auto"`` or a device.

    Returns:
        The predictor, with the classes and the preprocessing of the run's validation.

    Raises:
        CheckpointError: Missing, damaged, or of a run that cvkit cannot rebuild from the file (a model, data or transform
            of the user's own); it says what is missing.
    """
    content = load_checkpoint(path)
    described = content.get("description")
    known: dict[str, Any] = described if isinstance(described, dict) else {}
    missing = {
        "model": "was not made by cvkit.models.create",
        "classes": "are not known to its train loader",
        "transform": "is no preset of cvkit.transforms",
    }
    for name, reason in missing.items():
        if known.get(name) is None:
            raise CheckpointError(
                f"{path} does not describe its {name}",
                got=f"a run whose {name} {reason}",
                expected="a run of a model made by cvkit.models.create, on a cvkit loader with a preset",
                fix="build the model yourself, model.load_state_dict(cvkit.load_checkpoint(path)['model']), "
                "and make a cvkit.Predictor(model, classes, transform)",
            )
    model = from_config(known["model"])
    model.load_state_dict(content["model"])
    return Predictor(model, known["classes"], Transform.from_config(known["transform"]), device=device)


def predict(
    model: nn.Module, data: Any, *, device: str | torch.device = "auto", precision: Precision = "auto"
) -> Tensor:
    """Computes the outputs of a module over data, in evaluation mode.

    Args:
        model: Any module; it is moved to the device, its mode is as before afterwards.
        data: A loader or any sized iterable of batches ``(inputs, targets)`` or ``inputs``; or one tensor ``(N, …)``.
        device: ``"auto"`` or a device.
        precision: As in ``fit``.

    Returns:
        The outputs of every sample in order, ``(N, …)``, on the CPU.

    Raises:
        ArgumentError: Data that cannot be walked.
        DeviceError: A device or precision that is not there.
    """
    batches = [data] if isinstance(data, Tensor) else data
    check_loader("data", batches)
    runtime = Runtime(device, precision)
    model = runtime.prepare(model)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    outputs: list[Tensor] = []
    try:
        with torch.no_grad(), runtime.autocast():
            for batch in batches:
                inputs = batch[0] if isinstance(batch, tuple | list) else batch
                outputs.append(model(runtime.place(inputs)).cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(outputs)
