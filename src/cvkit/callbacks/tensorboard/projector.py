"""Embeddings: what goes into a model's last layer, for the projector."""

from __future__ import annotations

import math
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from cvkit.callbacks.tensorboard.answers import Answers
from cvkit.callbacks.tensorboard.image_grid import Pixels, squares
from cvkit.callbacks.tensorboard.model_graph import eager, undisturbed
from cvkit.training.runtime import Runtime

__all__ = ["NAME", "Embedding", "described", "penultimate", "sprites", "write"]

NAME = "last layer's input"

_SIDE, _WIDEST = 64, 8192
"""Pixels of an image of a sprite, and of the widest sprite that browsers take."""


@dataclass(slots=True)
class Embedding:
    """Samples as a model's last layer sees them.

    Attributes:
        features: float ``(N, D)``.
        header: The names of the columns of ``rows``.
        rows: What is known of each sample.
        images: uint8 ``(N, side, side, 3)``, or ``None`` where the samples are no images.
    """

    features: Tensor
    header: list[str]
    rows: list[list[str]]
    images: Pixels | None = None

    def __len__(self) -> int:
        return len(self.features)

    def add(self, other: Embedding) -> Embedding:
        """Returns both together."""
        both = self.images is not None and other.images is not None
        images = torch.cat([torch.as_tensor(self.images), torch.as_tensor(other.images)]).numpy() if both else None
        features = torch.cat([self.features, other.features])
        return Embedding(features, self.header, [*self.rows, *other.rows], images)


def penultimate(model: nn.Module, inputs: Tensor, runtime: Runtime) -> Tensor:
    """Runs a model on the side and returns what goes into the last layer with weights that it calls.

    Args:
        model: The module, not compiled.
        inputs: A batch, on the device.
        runtime: For the precision.

    Returns:
        float32 ``(N, D)`` on the host; feature maps are averaged over their places.
    """
    given: list[Tensor] = []

    def note(module: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            given[:] = [args[0].detach()]

    layers = [
        module
        for module in model.modules()
        if next(module.children(), None) is None and next(module.parameters(recurse=False), None) is not None
    ]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with undisturbed(model), eager(), runtime.autocast():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not given or given[0].shape[0] != len(inputs):
        raise ValueError("no layer with weights takes one row for each sample")
    features = given[0].float()
    if features.ndim == 4:
        features = features.mean((2, 3))
    elif features.ndim == 3:  # tokens
        features = features.mean(1)
    return features.reshape(len(features), -1).nan_to_num(0.0).cpu()


def described(answers: Answers | None, names: list[str], count: int, first: int) -> tuple[list[str], list[list[str]]]:
    """Returns the columns that the projector colours by, and a row of them for each of ``count`` samples."""
    if answers is None or answers.task not in ("classification", "binary"):
        return ["sample"], [[str(first + index)] for index in range(count)]
    rows = []
    for made, wanted in zip(answers.predicted.tolist(), answers.truth.tolist(), strict=True):
        known = names[wanted] if 0 <= wanted < len(names) else "no class"
        rows.append([known, names[made], "right" if made == wanted else "wrong"])
    return ["label", "prediction", "answer"], rows


def sprites(pixels: Pixels, wanted: int) -> Pixels:
    """Returns images as small as ``wanted`` of them must be for one sprite."""
    columns = math.ceil(math.sqrt(max(1, wanted)))
    return squares(pixels, max(1, min(_SIDE, max(pixels.shape[1:3]), _WIDEST // columns)))


def write(directory: Path, embedding: Embedding) -> None:
    """Writes what the projector reads, in place of what an earlier epoch has written there.

    Args:
        directory: That of the run; the files go into ``projector`` there, ``projector_config.pbtxt`` beside it.
        embedding: What to write.
    """
    inside = directory / "projector"
    inside.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(f"{value:.6g}" for value in row) for row in embedding.features.tolist()]
    _replace(inside / "tensors.tsv", "\n".join(lines).encode() + b"\n")
    rows = [embedding.header, *embedding.rows] if len(embedding.header) > 1 else embedding.rows
    _replace(inside / "metadata.tsv", "".join("\t".join(row) + "\n" for row in rows).encode())
    config = [
        f"tensor_name: {_quoted(NAME)}",
        'tensor_path: "projector/tensors.tsv"',
        'metadata_path: "projector/metadata.tsv"',
    ]
    if embedding.images is not None:
        side = embedding.images.shape[1]
        _write_sprite(inside / "sprite.png", embedding.images)
        config.append(
            f'sprite {{ image_path: "projector/sprite.png" single_image_dim: {side} single_image_dim: {side} }}'
        )
    _replace(directory / "projector_config.pbtxt", ("embeddings {\n  " + "\n  ".join(config) + "\n}\n").encode())


def _write_sprite(path: Path, images: Pixels) -> None:
    """Lays images out row by row, as many rows as columns."""
    side, columns = images.shape[1], math.ceil(math.sqrt(len(images)))
    canvas = Image.new("RGB", (columns * side, columns * side), "white")
    for index, image in enumerate(images):
        canvas.paste(Image.fromarray(image), (index % columns * side, index // columns * side))
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.png")
    canvas.save(temporary)
    os.replace(temporary, path)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
