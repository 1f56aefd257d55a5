"""What is gathered while a run goes on: the first batch of an epoch, and from its validation what is to be drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvkit.callbacks._board import pictures, projector
from cvkit.callbacks._board.answers import Answers, class_names, first_tensor, read
from cvkit.callbacks._board.notes import Notes
from cvkit.callbacks._board.options import Options
from cvkit.callbacks._board.scores import Scores, draw_confusion
from cvkit.callbacks._board.sinks import Sink
from cvkit.training.state import TrainState

__all__ = ["Inputs", "Validation"]


class Inputs:
    """The pictures that an epoch begins with, as the model saw them."""

    def __init__(self, options: Options, notes: Notes) -> None:
        self._count = options.images
        self._notes = notes
        self._images: Tensor | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is something to write."""
        return self._images is not None

    def take(self, state: TrainState) -> None:
        """Takes the first pictures of the current batch, on the device; waits for nothing."""
        if not self._count or not self._notes.on("images"):
            return
        inputs = first_tensor(state.batch)
        if pictures.is_pictures(inputs) and inputs is not None:
            self._images = inputs[: self._count].detach().clone()
        else:
            shape = "none" if inputs is None else f"{str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}"
            self._notes.tell("images", f"the inputs are no pictures (N, C, H, W) but {shape}")

    def write(self, sink: Sink, state: TrainState) -> None:
        """Writes them as one picture."""
        images, self._images = self._images, None
        if images is not None:
            with self._notes.guard("images", "drawing the inputs"):
                pixels = pictures.to_pixels(images, getattr(state.train, "transform", None))
                sink.image("train", "inputs", pictures.grid([pictures.sized(one) for one in pixels]), state.step)


class Validation:
    """What one validation after the other is to show: predictions, scores, embeddings."""

    def __init__(self, options: Options, notes: Notes) -> None:
        self._options = options
        self._notes = notes
        self._begin()

    def _begin(self) -> None:
        self._shown: tuple[Tensor, Answers, list[str]] | None = None
        self._scores = Scores()
        self._names: list[str] = []
        self._embedding: projector.Embedding | None = None
        self._batches = 0

    @property
    def embedding(self) -> projector.Embedding | None:
        """What was gathered of the validation so far."""
        return self._embedding

    def batch(self, state: TrainState) -> None:
        """Takes in one batch."""
        options, notes = self._options, self._notes
        first, self._batches = self._batches == 0, self._batches + 1
        shows = options.images > 0 and first and notes.on("images")
        counts = options.figures and notes.on("figures")
        held = len(self._embedding) if self._embedding is not None else 0
        embeds = held < options.embeddings and notes.on("embeddings")
        if not (shows or counts or embeds):
            return
        inputs = first_tensor(state.batch)
        answers: Answers | None = None
        with notes.guard("figures" if counts else "images", "reading the outputs"):
            answers = read(state.outputs, state.targets, state.loss_spec, inputs)
        names = class_names(state, answers.classes) if answers is not None else []
        if shows:
            self._show(state, inputs, answers, names)
        if counts:
            self._count(state, answers, names)
        if embeds:
            with notes.guard("embeddings", "running the model on the side"):
                self._embed(state, inputs, answers, names, options.embeddings - held)

    def _show(self, state: TrainState, inputs: Tensor | None, answers: Answers | None, names: list[str]) -> None:
        if not pictures.is_pictures(inputs) or inputs is None:
            return  # said of the training batches already
        if answers is None:
            self._notes.tell("images", f"predictions cannot be drawn from {_what(state)}; the inputs were")
            return
        count = self._options.images
        self._shown = (inputs[:count].detach().clone(), _first(answers, count), names)

    def _count(self, state: TrainState, answers: Answers | None, names: list[str]) -> None:
        if answers is None or answers.task in ("pictures", "numbers"):
            found = _what(state) if answers is None else f"outputs that are {answers.task}"
            self._notes.tell("figures", f"a confusion matrix and curves need classes, and there are {found}")
            return
        with self._notes.guard("figures", "counting the outputs"):
            self._names = names
            self._scores.update(answers)

    def _embed(
        self, state: TrainState, inputs: Tensor | None, answers: Answers | None, names: list[str], wanted: int
    ) -> None:
        if inputs is None:
            raise ValueError("there is no tensor in the batch")
        inputs, answers = inputs[:wanted], None if answers is None else _first(answers, wanted)
        features = projector.penultimate(state.model, inputs, state.runtime)
        held = self._embedding
        header, rows = projector.described(answers, names, len(inputs), 0 if held is None else len(held))
        tiles = None
        if pictures.is_pictures(inputs):
            pixels = pictures.to_pixels(inputs, _transform(state))
            tiles = projector.sprites(pixels, self._options.embeddings)
        made = projector.Embedding(features, header, rows, tiles)
        self._embedding = made if held is None else held.add(made)

    def write(self, sink: Sink, state: TrainState) -> projector.Embedding | None:
        """Writes what was gathered, and begins anew.

        Returns:
            The embedding, where there is one.
        """
        if self._shown is not None:
            inputs, answers, names = self._shown
            with self._notes.guard("images", "drawing the predictions"):
                transform = _transform(state)
                pixels = pictures.to_pixels(inputs, transform)
                sink.image("val", "predictions", pictures.predictions(pixels, answers, names, transform), state.step)
        with self._notes.guard("figures", "drawing them"):
            confusion = self._scores.confusion()
            if confusion is not None:
                sink.image("val", "confusion", draw_confusion(confusion, self._names), state.step)
            curves = self._scores.curves(self._names)
            if curves:
                sink.curves(curves, state.step)
        embedding = self._embedding
        if embedding is not None:
            sink.embedding(embedding, state.step, last=False)
        self._begin()
        return embedding


def _transform(state: TrainState) -> Any:
    found = getattr(state.val, "transform", None)
    return found if hasattr(found, "denormalize") else getattr(state.train, "transform", None)


def _first(answers: Answers, count: int) -> Answers:
    scores = answers.scores[:count] if answers.scores is not None else None
    return Answers(answers.task, answers.predicted[:count], answers.truth[:count], scores, answers.classes)


def _what(state: TrainState) -> str:
    """Says what outputs and targets are, for a note."""
    if state.outputs is None:
        return "no outputs: a step that returns only the loss (return loss, outputs, targets)"
    shown = [
        f"{name} {tuple(one.shape)}" if isinstance(one, torch.Tensor) else f"{name} of type {type(one).__name__}"
        for name, one in (("outputs", state.outputs), ("targets", state.targets))
    ]
    return " with ".join(shown)
