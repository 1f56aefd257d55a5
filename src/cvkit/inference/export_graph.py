"""What is exported: the model between pixels and probabilities as one module, and what stands beside it in the file."""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cvkit.inference.outputs import Reader, Task, outputs_of, tensor_of
from cvkit.inference.sources import Decoding
from cvkit.module_state import evaluation_mode
from cvkit.transforms import Framed, Transform

__all__ = ["Graph", "metadata_of"]


class Graph(nn.Module):
    """From pixels to probabilities: normalisation, model, and what makes probabilities of its outputs.

    Args:
        model: The model; a copy of it is taken, on the CPU, in evaluation mode.
        transform: The preprocessing, of whose second stage evaluation leaves the normalisation.
        reader: How the model's outputs are read.
        normalized: Whether the inputs have been normalised already.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, transform: Transform, reader: Reader, *, normalized: bool) -> None:
        super().__init__()
        # NCHW in memory, which training on a GPU may have changed
        self.model = copy.deepcopy(model).to("cpu").to(memory_format=torch.contiguous_format)
        self.reader = reader
        self.normalized = normalized
        self.shape = (transform.channels, transform.size, transform.size)
        mean = torch.tensor(transform.mean, dtype=torch.float64)[:, None, None]
        std = torch.tensor(transform.std, dtype=torch.float64)[:, None, None]
        self.register_buffer("factor", (1 / (255 * std)).float())
        self.register_buffer("offset", (-mean / std).float())
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns probabilities, or the outputs where there are no classes.

        Args:
            pixels: uint8 ``(N, C, size, size)``; float32 where they have been normalised.

        Returns:
            float32 ``(N, classes)``, ``(N, classes, size, size)``, or the outputs' shape.
        """
        inputs = pixels if self.normalized else pixels.float() * self.factor + self.offset
        outputs = tensor_of(self.model(inputs))
        return self.reader.scores(outputs, self.reader.task_of(outputs))

    def example(self) -> Tensor:
        """Returns inputs to trace with: two images of noise, drawn without touching the global random generator."""
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (2, *self.shape), dtype=torch.uint8, generator=generator)
        return pixels.float() * self.factor + self.offset if self.normalized else pixels

    def task(self, example: Tensor) -> Task:
        """Returns what the model's outputs are.

        Raises:
            ModelError: It fails on the example, or they do not fit the classes.
        """
        inputs = example if self.normalized else example.float() * self.factor + self.offset
        with torch.no_grad(), evaluation_mode(self.model):
            return self.reader.task_of(outputs_of(self.model, inputs))


def metadata_of(
    model: nn.Module,
    transform: Transform,
    reader: Reader,
    task: Task,
    decoding: Decoding,
    inputs: Literal["pixels", "normalized"],
) -> dict[str, Any]:
    """Returns what a program needs to know to use the exported graph, as plain values.

    Args:
        model: The model.
        transform: The preprocessing.
        reader: How the model's outputs are read.
        task: What they are.
        decoding: How files become images.
        inputs: What the graph takes.
    """
    config = transform.to_config()
    made = getattr(model, "cvkit_config", None)
    what = {
        "classification": "the probability of each class, (N, classes)",
        "multilabel": "the probability of each class, which do not sum to 1, (N, classes)",
        "segmentation": "the probability of each class at each pixel, (N, classes, size, size)",
        "regression": "the model's values",
        "reconstruction": "images, normalised by mean and std",
    }
    taken = {
        "pixels": "uint8 (N, channels, size, size), levels 0 to 255; the graph normalises them",
        "normalized": "float32 (N, channels, size, size), (level / 255 - mean) / std; the graph does not normalise",
    }
    return {
        "cvkit_version": version("cvkit"),
        "torch_version": str(torch.__version__),
        "model": made.get("name") if isinstance(made, dict) else type(model).__name__,
        "task": task,
        "classes": list(reader.classes) if reader.classes is not None else None,
        "inputs": taken[inputs],
        "outputs": what[task],
        "channels": {1: "L", 3: "RGB"}[transform.channels],
        "size": transform.size,
        "resize": config.get("resize", transform.size),
        "interpolation": transform.filter if isinstance(transform, Framed) else None,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "background": list(decoding.background),
        "colour": decoding.colour,
        "preprocessing": steps_of(transform, decoding),
        "preset": config,
    }


def steps_of(transform: Transform, decoding: Decoding) -> list[str]:
    """Returns in words what becomes of an image before the graph gets it."""
    side = transform.size
    colours = "RGB" if transform.channels == 3 else "grey"
    profile = "converted to sRGB by its colour profile, " if decoding.colour == "convert" else ""
    behind = f"transparent pixels showing {decoding.background}"
    steps = [f"decode to 8-bit {colours}, {profile}upright by its EXIF tag, {behind}"]
    if not isinstance(transform, Framed) or not transform.by_frame:
        return [*steps, f"the first stage of the preset {transform.name}"]
    frame = transform.frame(4 * side, 2 * side)
    how = f"{transform.filter}, antialiased" if transform.filter != "nearest" else "nearest"
    if frame.window is None:
        return [*steps, f"resize the whole image to {side}×{side} ({how})"]
    shorter = min(frame.size)
    return [
        *steps,
        f"resize the shorter side to {shorter}, the longer one in proportion, rounded down ({how})",
        f"cut {side}×{side} from the middle",
    ]
