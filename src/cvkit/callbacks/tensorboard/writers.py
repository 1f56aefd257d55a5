"""Where events go: into event files of the run's own, or to a writer that somebody else has made."""

from __future__ import annotations

import io
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cvkit.callbacks.tensorboard import model_graph as graphs
from cvkit.callbacks.tensorboard import projector
from cvkit.callbacks.tensorboard.describe import Plain
from cvkit.callbacks.tensorboard.histograms import Histogram
from cvkit.callbacks.tensorboard.image_grid import Pixels
from cvkit.callbacks.tensorboard.scores import THRESHOLDS, Curve
from cvkit.serialization.file_errors import written

__all__ = ["EventFiles", "EventWriter", "Events", "ExternalWriter"]

_LIVE = 10.0
"""Seconds after which what has been written is made visible to somebody who watches."""


class EventWriter(ABC):
    """What ``TensorBoard`` writes to. ``phase`` is ``"train"`` or ``"val"``."""

    def __init__(self) -> None:
        self._kept: tuple[int, list[tuple[str, bytes]]] | None = None

    def keep(self, step: int) -> None:
        """Keeps a copy of what is written for a step from here on, where it goes into files; see :meth:`kept`."""
        self._kept = (step, [])

    def forget(self) -> None:
        """Keeps no more copies."""
        self._kept = None

    def kept(self) -> list[tuple[str, bytes]]:
        """Returns the phase and the bytes of each event that was kept."""
        return list(self._kept[1]) if self._kept is not None else []

    @abstractmethod
    def reopen(self, kept: Sequence[Sequence[Any]]) -> None:
        """Writes, and keeps, events that :meth:`kept` has returned."""

    @abstractmethod
    def scalars(self, phase: str, values: Mapping[str, float], step: int) -> None:
        """Writes numbers, all of one step."""

    @abstractmethod
    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        """Writes histograms, all of one step."""

    @abstractmethod
    def image(self, phase: str, tag: str, pixels: Pixels, step: int) -> None:
        """Writes an image ``(H, W, 3)``."""

    @abstractmethod
    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text."""

    @abstractmethod
    def curves(self, found: Mapping[str, Curve], step: int) -> None:
        """Writes precision-recall curves, by class."""

    @abstractmethod
    def graph(self, model: Any, call: graphs.Call) -> None:
        """Writes a model's graph; raises whatever the model does when it cannot be run on the side."""

    @abstractmethod
    def embedding(self, embedding: projector.Embedding, step: int, *, last: bool) -> None:
        """Writes an embedding; ``last`` says that the run is over."""

    @abstractmethod
    def start(self, hparams: Mapping[str, Plain], metrics: Sequence[tuple[str, str]]) -> None:
        """Writes hyperparameters at the start of a run, and the phases and tags of what they will have led to."""

    @abstractmethod
    def finish(self, hparams: Mapping[str, Plain], row: Mapping[str, float], *, good: bool) -> None:
        """Writes how the run has ended."""

    @abstractmethod
    def flush(self) -> None:
        """Puts everything on the disk."""

    @abstractmethod
    def close(self) -> None:
        """Ends the writing."""


class Events:
    """One event file.

    tensorboardX's own ``SummaryWriter`` hands events to a thread and cannot be asked whether they have been written; a
    checkpoint that is saved meanwhile would be ahead of the curves. Written here and now, several values to an event, they also
    cost less.

    Args:
        directory: Where the file goes.
        purge: The step from which on older files' points no longer count, or ``None``.

    Raises:
        OSError: The file cannot be made.
        CheckpointError: By every method, where it cannot be written.
    """

    def __init__(self, directory: Path, purge: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # slow to import, and needed by who asks for it only
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        # files are told apart, and put in order, by the second; a resume may come sooner
        self._writer = EventsWriter(str(directory / "events"), f".{time.time_ns():020d}")
        self._flushed = time.monotonic()
        if purge is not None:
            self._writer.write_event(Event(step=purge, file_version="brain.Event:2"))
            self._writer.write_event(Event(step=purge, session_log=SessionLog(status=SessionLog.START)))

    def add(self, event: Any) -> None:
        """Writes an event; every ten seconds it is made visible."""
        with self._written():
            self._writer.write_event(event)
        if time.monotonic() - self._flushed > _LIVE:
            self.flush()

    def flush(self) -> None:
        """Puts everything on the disk."""
        self._flushed = time.monotonic()
        with self._written():
            self._writer.flush()

    def close(self) -> None:
        """Puts everything on the disk and closes the file."""
        with self._written():
            self._writer.close()

    def _written(self) -> AbstractContextManager[None]:
        return written("TensorBoard's events in", self._directory)


class EventFiles(EventWriter):
    """Event files in a directory: one run for training and one for validation, so that they share their charts.

    Args:
        directory: Where they go, each in a directory of its own; hyperparameters stand above both.
        phases: ``("train", "val")``, or ``("train",)``.
        purge: The step from which on older files' points no longer count, or ``None``.
    """

    def __init__(self, directory: Path, phases: Sequence[str], purge: int | None) -> None:
        super().__init__()
        self.directory = directory
        self._events: dict[str, Events] = {}
        try:
            for phase in phases:
                self._events[phase] = Events(directory / phase, purge)
        except BaseException:
            self.close()
            raise

    def reopen(self, kept: Sequence[Sequence[Any]]) -> None:
        """Writes, and keeps, events that :meth:`kept` has returned."""
        from tensorboardX.proto.event_pb2 import Event

        for phase, content in kept:
            self._put(phase if phase in self._events else "train", Event.FromString(content))

    def _add(self, phase: str, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._put(phase, Event(wall_time=time.time(), step=step, **content))

    def _put(self, phase: str, event: Any) -> None:
        if self._kept is not None and self._kept[0] == event.step:
            self._kept[1].append((phase, event.SerializeToString()))
        self._events[phase].add(event)

    def scalars(self, phase: str, values: Mapping[str, float], step: int) -> None:
        """Writes numbers, all of one step, as one event."""
        from tensorboardX.proto.summary_pb2 import Summary

        made = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(phase, step, summary=Summary(value=made))

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        """Writes histograms, all of one step, as one event."""
        from tensorboardX.summary import Summary, histogram_raw

        made = [
            histogram_raw(tag, h.low, h.high, h.count, h.total, h.squares, h.limits, h.counts).value[0]
            for tag, h in found.items()
        ]
        if made:
            self._add("train", step, summary=Summary(value=made))

    def image(self, phase: str, tag: str, pixels: Pixels, step: int) -> None:
        """Writes an image as PNG."""
        from tensorboardX.proto.summary_pb2 import Summary

        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG", compress_level=3)
        height, width = pixels.shape[:2]
        source = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content.getvalue())
        self._add(phase, step, summary=Summary(value=[Summary.Value(tag=tag, image=source)]))

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text."""
        from tensorboardX.summary import text

        self._add("train", step, summary=text(tag, markdown))

    def curves(self, found: Mapping[str, Curve], step: int) -> None:
        """Writes precision-recall curves, all of one step, as one event."""
        from tensorboardX.summary import Summary, pr_curve_raw

        made = [pr_curve_raw(f"precision_recall/{name}", *one.rows, THRESHOLDS).value[0] for name, one in found.items()]
        self._add("val", step, summary=Summary(value=made))

    def graph(self, model: Any, call: graphs.Call) -> None:
        """Writes a model's graph, as it was recorded while running."""
        try:
            nodes = graphs.record(model, graphs.first_sample(call))
        except Exception:  # some models want a whole batch, e.g. to split it; what fails again is the caller's to tell
            nodes = graphs.record(model, call)
        self._add("train", 0, graph_def=graphs.to_proto(nodes).SerializeToString())

    def embedding(self, embedding: projector.Embedding, step: int, *, last: bool) -> None:
        """Writes the newest embedding, in place of the one before."""
        if not last:
            with written("TensorBoard's embedding in", self.directory / "val"):
                projector.write(self.directory / "val", embedding)

    def start(self, hparams: Mapping[str, Plain], metrics: Sequence[tuple[str, str]]) -> None:
        """Writes hyperparameters, and in which curves' last points their outcome is to be found."""
        from tensorboardX.proto.api_pb2 import Experiment, MetricInfo, MetricName
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
        from tensorboardX.summary import hparams as summaries

        self._events["."] = Events(self.directory, None)
        experiment, start, _ = summaries(dict(hparams), {})
        content = HParamsPluginData.FromString(experiment.value[0].metadata.plugin_data.content)
        outcomes = [MetricInfo(name=MetricName(group=phase, tag=tag)) for phase, tag in metrics]
        content.experiment.MergeFrom(Experiment(metric_infos=outcomes))
        experiment.value[0].metadata.plugin_data.content = content.SerializeToString()
        for summary in (experiment, start):
            self._add(".", 0, summary=summary)

    def finish(self, hparams: Mapping[str, Plain], row: Mapping[str, float], *, good: bool) -> None:
        """Writes that the run is over."""
        from tensorboardX.proto.api_pb2 import Status
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo
        from tensorboardX.summary import hparams as summaries

        *_, end = summaries({}, {})
        status = Status.Value("STATUS_SUCCESS" if good else "STATUS_FAILURE")
        content = HParamsPluginData(
            session_end_info=SessionEndInfo(status=status, end_time_secs=time.time()), version=0
        )
        end.value[0].metadata.plugin_data.content = content.SerializeToString()
        self._add(".", 0, summary=end)

    def flush(self) -> None:
        """Puts everything on the disk."""
        for events in self._events.values():
            events.flush()

    def close(self) -> None:
        """Closes the files."""
        with ExitStack() as stack:  # each of them, also after one that cannot be written
            while self._events:
                stack.callback(self._events.popitem()[1].close)


class ExternalWriter(EventWriter):
    """A writer of somebody else's: torch's ``SummaryWriter``, tensorboardX's, or anything with the same methods.

    It is one run, so that training and validation are told apart by their tags: ``loss/train`` and ``loss/val``. It is flushed
    and not closed; purging after a resume is its own.

    Args:
        writer: The object.
    """

    def __init__(self, writer: Any) -> None:
        super().__init__()
        self.writer = writer

    def reopen(self, kept: Sequence[Sequence[Any]]) -> None:
        """Does nothing: nothing is kept."""

    def scalars(self, phase: str, values: Mapping[str, float], step: int) -> None:
        """Writes numbers, one call each."""
        for tag, value in values.items():
            self.writer.add_scalar(tag if "/" in tag else f"{tag}/{phase}", value, step)

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        """Writes histograms that are counted already."""
        for tag, h in found.items():
            self.writer.add_histogram_raw(tag, h.low, h.high, h.count, h.total, h.squares, h.limits, h.counts, step)

    def image(self, phase: str, tag: str, pixels: Pixels, step: int) -> None:
        """Writes an image."""
        self.writer.add_image(f"{tag}/{phase}", pixels, step, dataformats="HWC")

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text."""
        self.writer.add_text(tag, markdown, step)

    def curves(self, found: Mapping[str, Curve], step: int) -> None:
        """Writes precision-recall curves that are counted already."""
        for name, one in found.items():
            self.writer.add_pr_curve_raw(
                f"precision_recall/{name}", *one.rows, global_step=step, num_thresholds=THRESHOLDS
            )

    def graph(self, model: Any, call: graphs.Call) -> None:
        """Has the writer trace the model."""
        if call.kwargs:
            raise ValueError("a model that is called by keyword cannot be traced")
        with graphs.undisturbed(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what tracing cannot follow is drawn as a constant
            self.writer.add_graph(model, graphs.first_sample(call).args)

    def embedding(self, embedding: projector.Embedding, step: int, *, last: bool) -> None:
        """Writes the last embedding alone: a writer adds each to those before it."""
        if last:
            images, several = embedding.images, len(embedding.header) > 1
            self.writer.add_embedding(
                embedding.features,
                metadata=embedding.rows if several else [row[0] for row in embedding.rows],
                metadata_header=embedding.header if several else None,
                label_img=None if images is None else torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255,
                global_step=step,
                tag=projector.NAME,
            )

    def start(self, hparams: Mapping[str, Plain], metrics: Sequence[tuple[str, str]]) -> None:
        """Does nothing: a writer takes hyperparameters together with their outcome."""

    def finish(self, hparams: Mapping[str, Plain], row: Mapping[str, float], *, good: bool) -> None:
        """Writes hyperparameters and what they have led to."""
        self.writer.add_hparams(dict(hparams), {f"hparam/{name}": float(value) for name, value in row.items()})

    def flush(self) -> None:
        """Has the writer put everything on the disk, where it can."""
        flush = getattr(self.writer, "flush", None)
        if callable(flush):
            flush()

    def close(self) -> None:
        """Leaves the writer open; it is its owner's."""
        self.flush()
