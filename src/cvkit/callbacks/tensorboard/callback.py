"""``TensorBoard``: scalars, histograms, the graph, images, embeddings, hyperparameters and text."""

from __future__ import annotations

import copy
import socket
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from cvkit.callbacks.tensorboard import describe, scalars
from cvkit.callbacks.tensorboard.collectors import Inputs, Validation
from cvkit.callbacks.tensorboard.histograms import Histogram, histograms
from cvkit.callbacks.tensorboard.model_graph import Call
from cvkit.callbacks.tensorboard.notes import Notes
from cvkit.callbacks.tensorboard.options import check
from cvkit.callbacks.tensorboard.projector import Embedding
from cvkit.callbacks.tensorboard.writers import EventFiles, EventWriter, ExternalWriter
from cvkit.errors import ArgumentError
from cvkit.metrics.async_scalars import AsyncScalars
from cvkit.serialization.file_errors import written
from cvkit.training.callback import OBSERVER, Callback
from cvkit.training.state import TrainState

__all__ = ["TensorBoard"]

_TAGS = {"epoch": "step/epoch"}


class TensorBoard(Callback):
    """Writes what TensorBoard shows, by optimizer step.

    Training and validation share a chart (``loss``, ``accuracy``, whatever is logged) as two runs of one directory, ``train``
    and ``val``. Every few steps it adds a point of the loss, the learning rates, the norm of the gradients before clipping,
    images a second and memory. Nothing that it does changes the run: no random number is drawn, no result differs by a bit.

    After a resume, points that the killed run wrote beyond its checkpoint are purged, so that none is there twice. A directory
    that named itself is found again.

    What does not fit a run (a confusion matrix of an autoencoder, the graph of a model that cannot be run on the side) is said
    in a warning and on the text page, and the training goes on.

    Args:
        directory: Where the event files go; by default ``runs/<time>-<host><comment>``. Or a writer with ``add_scalar`` and
            whatever else the options need: torch's ``SummaryWriter``, tensorboardX's, one of your own. A writer is one run, so
            the tags are then ``loss/train`` and ``loss/val``, and it stays open.
        comment: The end of the name of a directory that is not given.
        every_steps: How many updates lie between two points of the curves by step.
        histograms: Histograms of weights and gradients: ``True`` after each epoch, or a number for every that many epochs.
        graph: The model's graph, as it was run on the first batch.
        images: How many images to show after each epoch, as the model saw them: inputs of the first training batch, and
            predictions of samples from all over the validation, wrong ones marked. Masks and images stand beside their
            targets.
        embeddings: How many validation samples go into the projector, as the last layer sees them, with their images. They
            are written after each epoch in place of those before.
        hparams: Hyperparameters to compare runs by, with their final metrics: names and plain values, or ``True`` for the
            settings of the run.
        figures: A confusion matrix and precision-recall curves of each validation.
        text: The settings of the run and a description of the model; a string is put above them. ``None`` writes them wherever
            the writer can.

    Attributes:
        directory: Where the event files are; ``None`` for a writer, and before a directory has named itself.

    Raises:
        ArgumentError: An argument that cannot be used, a writer without the methods for what is asked for, figures or
            embeddings without ``val``, or, when a new run starts, a directory that holds another run's events.
        CheckpointError: A file cannot be written, e.g. because the disk is full.
    """

    order: ClassVar[int] = OBSERVER
    first_rank_only: ClassVar[bool] = True

    def __init__(
        self,
        directory: str | Path | Any | None = None,
        *,
        comment: str = "",
        every_steps: int = 50,
        histograms: bool | int = False,
        graph: bool = False,
        images: int = 0,
        embeddings: int = 0,
        hparams: Mapping[str, bool | int | float | str] | Literal[True] | None = None,
        figures: bool = False,
        text: bool | str | None = None,
    ) -> None:
        self.options = check(
            directory,
            comment,
            every_steps=every_steps,
            histograms=histograms,
            graph=graph,
            images=images,
            embeddings=embeddings,
            hparams=hparams,
            figures=figures,
            text=text,
        )
        self.every_steps = every_steps
        self.directory = Path(directory) if isinstance(directory, str | Path) else None
        self._writer = directory if directory is not None and self.directory is None else None
        self._named = directory is not None
        self._comment = comment
        self._sink: EventWriter | None = None
        self._saved: dict[str, Any] = {}
        self._reset()

    def _reset(self) -> None:
        self._losses = AsyncScalars()
        self._notes = Notes()
        self._speed = scalars.Speed()
        self._inputs = Inputs(self.options, self._notes)
        self._validation = Validation(self.options, self._notes)
        self._embedding: Embedding | None = None
        self._hparams: dict[str, describe.Plain] = {}
        self._norm: Tensor | None = None
        self._gradients: dict[str, Histogram] = {}
        self._known: dict[int, dict[str, float]] = {}
        self._call: Call | None = None
        self._handle: Any = None
        self._fresh = True
        self._seen = self._last = 0

    def elsewhere(self, directory: Path) -> TensorBoard:
        """Returns a copy that writes into another directory, for a dry run; a writer that was given gets nothing."""
        other = copy.copy(self)
        other.directory, other._writer, other._named = directory, None, True
        return other

    def on_fit_start(self, state: TrainState) -> None:
        """Opens the event files, purged of what lies beyond the resumed step, and describes the run."""
        options = self.options
        if state.val is None and (options.figures or options.embeddings):
            raise ArgumentError(
                "TensorBoard has no validation to draw",
                got="figures=True" if options.figures else f"embeddings={options.embeddings}",
                expected="a run with val=…",
                fix="pass val to fit, or leave this out",
            )
        self._reset()
        self._seen, self._last = state.step, state.batches_per_epoch
        held, writer = self._open(state)
        try:
            if state.step == 0 or not held:
                self._describe(state, writer)
                if options.graph:
                    self._handle = state.runtime.module.register_forward_pre_hook(self._catch, with_kwargs=True)
            if options.hparams:
                own = options.hparams
                self._hparams = describe.hyperparameters(state) if isinstance(own, bool) else own
                parts = [name.partition("_") for name in state.log_names]
                writer.start(self._hparams, [(one, tag) for one, _, tag in parts if one in ("train", "val")])
            writer.flush()
        except BaseException:  # a callback that did not start is not ended
            writer.close()
            raise
        self._sink = writer

    def _open(self, state: TrainState) -> tuple[bool, EventWriter]:
        """Returns whether there are points already, and where new ones go."""
        saved, self._saved = self._saved, {}
        if self._writer is not None:
            return state.step > 0, ExternalWriter(self._writer)
        if not self._named:
            self.directory = Path(saved["directory"]) if "directory" in saved else _new_directory(self._comment)
        directory = self.directory or Path()
        held = sorted(directory.glob("**/events.out.tfevents.*"))
        if held and not state.engine.resumed:
            raise ArgumentError(
                f"{directory} already holds a run's TensorBoard events",
                got=f"{len(held)} event files, e.g. {held[0].name}",
                expected="a directory of its own for each run, or the curves overlap",
                fix="choose another directory, or delete this one, or resume the run",
            )
        # A point at the step of the checkpoint was written before it; everything later will come again. In a checkpoint from
        # the middle of a validation, what has been written at its step is in the checkpoint, and the rest of it comes again.
        kept = saved.get("kept", [])
        purge = (state.step + 1 if state.step and not kept else state.step) if state.engine.resumed else None
        try:
            writer = EventFiles(directory, ("train", "val") if state.val is not None else ("train",), purge)
        except OSError as error:
            raise ArgumentError(
                f"TensorBoard's events cannot be written to {directory}",
                got=f"{type(error).__name__}: {error}",
                expected="a directory that can be written to",
                fix="choose another directory, or see whether the disk is full or read-only",
            ) from error
        if kept:
            writer.keep(state.step)
            writer.reopen(kept)
        return bool(held), writer

    def _describe(self, state: TrainState, writer: EventWriter) -> None:
        text = self.options.text
        if text:
            above = f"{text}\n\n" if isinstance(text, str) else ""
            writer.text("settings", above + describe.settings(state), state.step)
            writer.text("model", describe.model(state.model), state.step)

    def _catch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Notes what the model is called with, whatever step calls it."""
        if self._call is None:
            self._call = Call(args, kwargs)

    def on_epoch_start(self, state: TrainState) -> None:
        """Starts the clock."""
        self._fresh = True
        self._speed.restart()

    def on_gradients_ready(self, state: TrainState) -> None:
        """Measures the gradients, where a point or a histogram is due; on the device, without waiting."""
        if (state.step + 1) % self.every_steps == 0:
            self._norm = scalars.gradient_norm(state)
        if self.options.histograms and state.batch_index == self._last and self._due(state):
            with self._notes.guard("histograms", "counting the gradients"):
                self._gradients = histograms(
                    {f"gradients/{name}": p.grad for name, p in state.model.named_parameters() if p.grad is not None}
                )

    def on_batch_end(self, state: TrainState) -> None:
        """Files the loss away for a point, without waiting for the device."""
        self._speed.samples += state.samples
        if self._fresh:
            self._begin(state)
        if state.step == self._seen:
            return
        self._seen = state.step
        if state.batch_index == self._last and self._sink is not None:
            self._sink.keep(state.step)
        if state.step % self.every_steps == 0 and state.loss is not None:
            self._point(state, state.loss)
        if (self._inputs.waiting or self._gradients) and self._sink is not None:
            self._inputs.write(self._sink, state)
            found, self._gradients = self._gradients, {}
            self._sink.histograms(found, state.step)

    def _begin(self, state: TrainState) -> None:
        """Takes from the first batch of an epoch what is to be drawn of it."""
        self._fresh = False
        if state.batch_index == 1:
            self._inputs.take(state)
        if self._handle is not None and self._sink is not None:
            self._handle.remove()
            call, self._handle, self._call = self._call, None, None
            with self._notes.guard("graph", "running the model on the side"):
                if call is None:
                    raise ValueError("the step did not call the model that it was given")
                self._sink.graph(state.model, call)
            self._notes_down(state)

    def _point(self, state: TrainState, loss: Tensor) -> None:
        known = {**scalars.rates(state), "step/images_per_second": self._speed.rate()}
        self._known[state.step] = known | scalars.memory(state.runtime.device)
        if self._norm is not None:
            self._losses.put((state.step, "step/gradient_norm"), self._norm)
            self._norm = None
        self._losses.put((state.step, "step/loss"), loss)
        self._write(self._losses.arrived())

    def on_validation_batch_end(self, state: TrainState) -> None:
        """Takes from a validation batch what is to be drawn of it."""
        self._validation.batch(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Writes the epoch's row, and what is drawn of it."""
        writer = self._sink
        if writer is None:
            return
        self._write(self._losses.all())
        rows: dict[str, dict[str, float]] = {"train": {}, "val": {}}
        for name, value in state.logs.items():
            phase, _, tag = name.partition("_")
            known = tag and (phase == "train" or (phase == "val" and state.val is not None))
            if name != "step":
                rows[phase if known else "train"][tag if known else _TAGS.get(name, name)] = value
        for phase, row in rows.items():
            if row:
                writer.scalars(phase, row, state.step)
        if self._due(state) and self._notes.on("histograms"):
            with self._notes.guard("histograms", "counting the weights"):
                weights = {f"weights/{name}": p for name, p in state.model.named_parameters() if _counts(p)}
                writer.histograms(histograms(weights), state.step)
        self._embedding = self._validation.write(writer, state) or self._embedding
        self._notes_down(state)
        writer.forget()
        writer.flush()

    def _due(self, state: TrainState) -> bool:
        """Whether this epoch has histograms."""
        return self.options.histograms > 0 and (state.epoch + 1) % self.options.histograms == 0

    def _notes_down(self, state: TrainState) -> None:
        if self.options.text and self._sink is not None:
            self._notes.write(self._sink, state.step)

    def on_fit_end(self, state: TrainState) -> None:
        """Closes the event files."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        writer = self._sink
        if writer is None:
            return
        try:
            self._write(self._losses.all())
            if self._embedding is not None:
                writer.embedding(self._embedding, state.step, last=True)
            if self._hparams:
                row = dict(state.history[-1]) if len(state.history) else {}
                outcome = {name: value for name, value in row.items() if name.startswith(("train_", "val_"))}
                writer.finish(self._hparams, outcome, good=state.exception is None)
        finally:
            self._sink = None
            writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Puts on the disk what has been seen, so that a checkpoint never is ahead of the curves.

        Returns:
            The directory, where it named itself; and in the middle of a validation, what was written at this step.
        """
        state: dict[str, Any] = {}
        if self._sink is not None:
            self._write(self._losses.all())
            self._sink.flush()
            kept = self._sink.kept()
            state = {"kept": [list(one) for one in kept]} if kept else {}
        return state | ({"directory": str(self.directory)} if not self._named and self.directory is not None else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned."""
        self._saved = dict(state)
        if not self._named and "directory" in state:
            self.directory = Path(state["directory"])

    def _write(self, points: list[tuple[Any, float]]) -> None:
        """Writes points that have arrived, all of a step together."""
        found: dict[int, dict[str, float]] = {}
        for (step, tag), value in points:
            found.setdefault(step, {})[tag] = value
        for step, values in found.items():
            if self._sink is not None:
                self._sink.scalars("train", values | self._known.pop(step, {}), step)


def _counts(parameter: nn.Parameter) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()


def _new_directory(comment: str) -> Path:
    """Makes a directory that nobody else has, named by the time and this machine."""
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{socket.gethostname()}{comment}"
    for attempt in range(1000):
        path = Path("runs") / (name if attempt == 0 else f"{name}.{attempt}")
        with written("TensorBoard's events in", path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
        return path
    raise ArgumentError(f"runs/{name} and a thousand like it are there", fix="pass a directory")
