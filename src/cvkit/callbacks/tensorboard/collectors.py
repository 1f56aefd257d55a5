"""What is gathered while a run goes on: the first batch of an epoch, and from its validation what is to be drawn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cvkit.callbacks.tensorboard import image_grid, projector
from cvkit.callbacks.tensorboard.answers import Answers, class_names, first_tensor, read
from cvkit.callbacks.tensorboard.notes import Notes
from cvkit.callbacks.tensorboard.options import Options
from cvkit.callbacks.tensorboard.scores import Scores, draw_confusion
from cvkit.callbacks.tensorboard.writers import EventWriter
from cvkit.training.state import TrainState

__all__ = ["Inputs", "Validation"]

_WORDS = {"reconstruction": "images", "regression": "numbers"}


class Inputs:
    """The images that an epoch begins with, as the model saw them."""

    def __init__(self, options: Options, notes: Notes) -> None:
        self._count = options.images
        self._notes = notes
        self._images: Tensor | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is something to write."""
        return self._images is not None

    def take(self, state: TrainState) -> None:
        """Takes the first images of the current batch, on the device; waits for nothing."""
        if not self._count or not self._notes.on("images"):
            return
        inputs = first_tensor(state.batch)
        if image_grid.is_image_batch(inputs) and inputs is not None:
            self._images = inputs[: self._count].detach().clone()
        else:
            shape = "none" if inputs is None else f"{str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}"
            self._notes.warn_once("images", f"the inputs are no images (N, C, H, W) but {shape}")

    def write(self, writer: EventWriter, state: TrainState) -> None:
        """Writes them as one image."""
        images, self._images = self._images, None
        if images is not None:
            with self._notes.guard("images", "drawing the inputs"):
                pixels = image_grid.to_pixels(images, getattr(state.train, "transform", None))
                writer.image("train", "inputs", image_grid.grid([image_grid.sized(one) for one in pixels]), state.step)


class Validation:
    """What one validation after the other is to show: predictions, scores, embeddings."""

    def __init__(self, options: Options, notes: Notes) -> None:
        self._options = options
        self._notes = notes
        self._begin()

    def _begin(self) -> None:
        self._shown: list[tuple[Tensor, Answers]] = []
        self._scores = Scores()
        self._names: list[str] = []
        self._embedding: projector.Embedding | None = None
        self._samples = self._batches = 0

    @property
    def embedding(self) -> projector.Embedding | None:
        """What was gathered of the validation so far."""
        return self._embedding

    def batch(self, state: TrainState) -> None:
        """Takes in one batch."""
        options, notes = self._options, self._notes
        self._samples += state.samples
        self._batches += 1
        counts = options.figures and notes.on("figures")
        shows = self._wanted(
            state, options.images if notes.on("images") else 0, sum(len(one) for one, _ in self._shown)
        )
        held = len(self._embedding) if self._embedding is not None else 0
        embeds = self._wanted(state, options.embeddings if notes.on("embeddings") else 0, held)
        if not (shows or counts or embeds):
            return
        inputs = first_tensor(state.batch)
        answers: Answers | None = None
        with notes.guard("figures" if counts else "images", "reading the outputs"):
            answers = read(state.outputs, state.targets, state.engine.loss_spec, inputs)
        names = class_names(state, answers.classes) if answers is not None else []
        self._names = names
        if shows:
            with notes.guard("images", "taking images of the validation"):
                self._show(state, inputs, answers, shows)
        if counts:
            self._count(state, answers)
        if embeds:
            with notes.guard("embeddings", "running the model on the side"):
                self._embed(state, inputs, answers, names, embeds)

    def _wanted(self, state: TrainState, count: int, held: int) -> int:
        """Returns how many of this batch are to be taken, so that ``count`` are spread over the whole validation.

        A validation set usually is in the order of its classes: its first batch shows one of them.
        """
        if held >= count:
            return 0
        total = _samples_in(state.val) or self._samples / self._batches * len(state.val)
        return min(count, math.ceil(count * self._samples / total)) - held

    def _show(self, state: TrainState, inputs: Tensor | None, answers: Answers | None, count: int) -> None:
        if not image_grid.is_image_batch(inputs) or inputs is None:
            return  # said of the training batches already
        if answers is None:
            self._notes.warn_once("images", f"predictions cannot be drawn from {_what(state)}; the inputs were")
            return
        rows = _spread(len(inputs), count, inputs.device)
        self._shown.append((inputs[rows].detach(), _rows(answers, rows)))

    def _count(self, state: TrainState, answers: Answers | None) -> None:
        if answers is None or answers.task in ("reconstruction", "regression"):
            found = _what(state) if answers is None else f"outputs that are {_WORDS[answers.task]}"
            self._notes.warn_once("figures", f"a confusion matrix and curves need classes, and there are {found}")
            return
        with self._notes.guard("figures", "counting the outputs"):
            self._scores.update(answers)

    def _embed(
        self, state: TrainState, inputs: Tensor | None, answers: Answers | None, names: list[str], wanted: int
    ) -> None:
        if inputs is None:
            raise ValueError("there is no tensor in the batch")
        rows = _spread(len(inputs), wanted, inputs.device)
        inputs, answers = inputs[rows], None if answers is None else _rows(answers, rows)
        features = projector.penultimate(state.model, inputs, state.runtime)
        held = self._embedding
        header, table = projector.described(answers, names, len(inputs), 0 if held is None else len(held))
        tiles = None
        if image_grid.is_image_batch(inputs):
            pixels = image_grid.to_pixels(inputs, _transform(state))
            tiles = projector.sprites(pixels, self._options.embeddings)
        made = projector.Embedding(features, header, table, tiles)
        self._embedding = made if held is None else held.add(made)

    def write(self, writer: EventWriter, state: TrainState) -> projector.Embedding | None:
        """Writes what was gathered, and begins anew.

        Returns:
            The embedding, where there is one.
        """
        if self._shown:
            with self._notes.guard("images", "drawing the predictions"):
                transform = _transform(state)
                pixels = image_grid.to_pixels(torch.cat([inputs for inputs, _ in self._shown]), transform)
                answers = _together([answers for _, answers in self._shown])
                drawn = image_grid.predictions(pixels, answers, self._names, transform)
                writer.image("val", "predictions", drawn, state.step)
        with self._notes.guard("figures", "drawing them"):
            confusion = self._scores.confusion()
            if confusion is not None:
                writer.image("val", "confusion", draw_confusion(confusion, self._names), state.step)
            curves = self._scores.curves(self._names)
            if curves:
                writer.curves(curves, state.step)
        embedding = self._embedding
        if embedding is not None:
            writer.embedding(embedding, state.step, last=False)
        self._begin()
        return embedding


def _transform(state: TrainState) -> Any:
    found = getattr(state.val, "transform", None)
    return found if hasattr(found, "denormalize") else getattr(state.train, "transform", None)


def _samples_in(loader: Any) -> int:
    """Returns how many samples a loader has; 0 where it does not say."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0


def _spread(length: int, count: int, device: torch.device) -> Tensor:
    """Returns the places of ``count`` rows, as far apart as can be."""
    return torch.arange(min(count, length), device=device) * length // max(1, min(count, length))


def _rows(answers: Answers, rows: Tensor) -> Answers:
    scores = answers.scores[rows] if answers.scores is not None else None
    return Answers(answers.task, answers.predicted[rows], answers.truth[rows], scores, answers.classes)


def _together(parts: list[Answers]) -> Answers:
    scores = [one.scores for one in parts if one.scores is not None]
    predicted, truth = (torch.cat([getattr(one, name) for one in parts]) for name in ("predicted", "truth"))
    return Answers(parts[0].task, predicted, truth, torch.cat(scores) if scores else None, parts[0].classes)


def _what(state: TrainState) -> str:
    """Says what outputs and targets are, for a note."""
    if state.outputs is None:
        return "no outputs: a step that returns only the loss (return loss, outputs, targets)"
    shown = [
        f"{name} {tuple(one.shape)}" if isinstance(one, torch.Tensor) else f"{name} of type {type(one).__name__}"
        for name, one in (("outputs", state.outputs), ("targets", state.targets))
    ]
    return " with ".join(shown)
