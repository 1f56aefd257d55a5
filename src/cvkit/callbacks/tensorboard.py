"""``TensorBoard``: scalars through tensorboardX."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from cvkit.errors import ArgumentError
from cvkit.training.hooks import OBSERVER, Callback
from cvkit.training.metrics import Later
from cvkit.training.state import TrainState

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes scalars for TensorBoard: the loss every few steps, everything logged after each epoch, by optimizer step.

    Training and validation share a chart (``loss``, ``accuracy``) as two runs of one directory, ``train`` and ``val``.
    After a resume, points that the killed run wrote beyond its checkpoint are purged, so none is there twice.

    Args:
        directory: Where the event files go.
        every_steps: How many updates lie between two points of ``step/loss`` and ``step/lr``.

    Raises:
        ArgumentError: ``every_steps`` below 1, or, when a new run starts, a directory that holds another run's events.
    """

    order: ClassVar[int] = OBSERVER

    def __init__(self, directory: str | Path, *, every_steps: int = 50) -> None:
        if every_steps < 1:
            raise ArgumentError(
                "every_steps cannot be used", got=every_steps, expected="at least 1", fix="every_steps=50"
            )
        self.directory = Path(directory)
        self.every_steps = every_steps
        self._writers: dict[str, Any] = {}
        self._losses = Later()
        self._seen = 0

    def on_fit_start(self, state: TrainState) -> None:
        """Opens the event files, purged of what lies beyond the resumed step."""
        held = sorted(self.directory.glob("**/events.out.tfevents.*"))
        if held and not state.resumed:
            raise ArgumentError(
                f"{self.directory} already holds a run's TensorBoard events",
                got=f"{len(held)} event files, e.g. {held[0].name}",
                expected="a directory of its own for each run, or the curves overlap",
                fix="choose another directory, or delete this one, or resume the run",
            )
        # a point at the step of the checkpoint was written before it; everything later will come again
        purge = (state.step + 1 if state.step else 0) if state.resumed else None
        for name in ("train", "val") if state.val is not None else ("train",):
            self._writers[name] = _open(self.directory / name, purge)
        self._seen = state.step

    def on_batch_end(self, state: TrainState) -> None:
        """Files the loss away for a point, without waiting for the device."""
        if state.step % self.every_steps == 0 and state.step != self._seen and state.loss is not None:
            self._seen = state.step
            self._losses.put((state.step, state.lr), state.loss)
            self._write(self._losses.arrived())

    def on_epoch_end(self, state: TrainState) -> None:
        """Writes the epoch's row."""
        self._write(self._losses.all())
        for name, value in state.logs.items():
            phase, _, tag = name.partition("_")
            if phase in self._writers:
                self._writers[phase].add_scalar(tag, value, state.step)
            elif name != "step":
                self._writers["train"].add_scalar(name, value, state.step)
        for writer in self._writers.values():
            writer.flush()

    def on_fit_end(self, state: TrainState) -> None:
        """Closes the event files."""
        if self._writers:
            self._write(self._losses.all())
        while self._writers:
            self._writers.popitem()[1].close()

    def state_dict(self) -> dict[str, Any]:
        """Puts on the disk what has been seen, so that a checkpoint never is ahead of the curves; there is no state."""
        if self._writers:
            self._write(self._losses.all())
        for writer in self._writers.values():
            writer.flush()
        return {}

    def _write(self, points: list[tuple[Any, float]]) -> None:
        for (step, lr), loss in points:
            self._writers["train"].add_scalar("step/loss", loss, step)
            self._writers["train"].add_scalar("step/lr", lr, step)


def _open(directory: Path, purge: int | None) -> Any:
    """Opens a writer that writes at once.

    tensorboardX hands events to a thread and cannot be asked whether they have been written; a checkpoint that is saved
    meanwhile would be ahead of the curves. Written here and now, an event also costs less.

    Args:
        directory: Where the event file goes.
        purge: The step from which on older files' points no longer count, or ``None``.
    """
    from tensorboardX import SummaryWriter  # slow to import, and needed by who asks for it only
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    # files are told apart, and put in order, by the second; a resume may come sooner
    writer = SummaryWriter(str(directory), filename_suffix=f".{time.time_ns():020d}")
    events = writer.file_writer.event_writer
    events.add_event = events._ev_writer.write_event
    if purge is not None:
        events.add_event(Event(step=purge, file_version="brain.Event:2"))
        events.add_event(Event(step=purge, session_log=SessionLog(status=SessionLog.START)))
    return writer
