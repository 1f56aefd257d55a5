"""``Checkpoint``: the newest state of the run, and the best one."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from cvkit.errors import ArgumentError
from cvkit.serialization.async_writer import AsyncWriter, Buffers
from cvkit.serialization.checkpoint import save_checkpoint, sync_directory
from cvkit.serialization.directory_lock import Claim, locked_directory
from cvkit.serialization.file_errors import written
from cvkit.training import snapshot
from cvkit.training.callback import LAST, Callback
from cvkit.training.distributed import first_of_all, is_first
from cvkit.training.monitor import Monitor
from cvkit.training.signals import SIGNALLED
from cvkit.training.state import TrainState

__all__ = ["Checkpoint"]


class Checkpoint(Callback):
    """Saves the run: the newest state as ``last.pt``, the best as ``best.pt``.

    A file holds everything that continuing exactly needs, and describes itself: ``cvkit.load(path)`` predicts with it. A run
    that is stopped by Ctrl-C, SIGTERM or a callback is saved where it stands.

    Args:
        directory: Where the files go; one directory a run.
        monitor: The logged name that decides what is best, e.g. ``"val_accuracy"``; ``None`` keeps no best.
        mode: ``"min"`` or ``"max"``; by default as the metric says.
        every_epochs: Save ``last.pt`` after this many epochs.
        every_steps: Save ``last.pt`` also after this many updates, in the middle of an epoch.
        keep_last: How many of the newest states are kept; those before ``last.pt`` as ``step-00000120.pt``.
        background: Whether files are written while the training goes on: it waits only until the state has been copied, into
            memory that is used again (as much as the file is large). One file is written at a time; what goes wrong is raised
            at the next save, at the latest at the end of the run.

    Raises:
        ArgumentError: A number below 1, or, when the run starts, a monitor that will never be logged.
        CheckpointError: Another run is at work in the directory, the directory was removed or replaced during the run, or
            a file cannot be written.
    """

    order: ClassVar[int] = LAST
    monitor: Monitor | None

    def __init__(
        self,
        directory: str | Path,
        *,
        monitor: str | None = "val_loss",
        mode: Literal["min", "max"] | None = None,
        every_epochs: int = 1,
        every_steps: int | None = None,
        keep_last: int = 1,
        background: bool = False,
    ) -> None:
        for name, value in (("every_epochs", every_epochs), ("every_steps", every_steps), ("keep_last", keep_last)):
            if value is not None and value < 1:
                raise ArgumentError(
                    f"{name} cannot be used", got=value, expected="at least 1", fix=f"pass {name}=1 or more"
                )
        self.directory = Path(directory)
        self.monitor = Monitor(monitor, mode) if monitor is not None else None
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.keep_last = keep_last
        self.background = background
        self._saved_step = -1
        self._writer = AsyncWriter()
        self._buffers = Buffers()
        self._claim: Claim | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the directory while inside; ``fit`` does so from before it looks for a checkpoint."""
        if not is_first():  # rank 0 writes for all
            yield
            return
        with locked_directory(self.directory) as self._claim:
            try:
                yield
            finally:
                self._claim = None

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest file, or ``None`` before the first was written."""
        path = self.directory / "last.pt"
        return path if path.exists() else None

    @property
    def best_checkpoint(self) -> Path | None:
        """The file of the best epoch, or ``None`` before there was one."""
        path = self.directory / "best.pt"
        return path if path.exists() else None

    def checkpoints(self) -> list[Path]:
        """Returns the files in the directory that a run can continue from, the newest first."""
        earlier = sorted(self.directory.glob("step-*.pt"), reverse=True)
        named = [self.directory / "last.pt", *earlier, self.directory / "best.pt"]
        return [path for path in named if path.is_file()]

    def on_fit_start(self, state: TrainState) -> None:
        """Checks that what is monitored will be logged, and clears away what a kill left of a file being written."""
        self._saved_step = -1  # what another run has saved at a step is not this one's
        for left in self.directory.glob(".*.pt.*.tmp") if is_first() else ():
            with written("the checkpoint", self.directory / "last.pt"):
                left.unlink()
        if self.monitor is not None:
            self.monitor.check(state)

    def on_batch_end(self, state: TrainState) -> None:
        """Saves in the middle of an epoch, where asked to."""
        due = self.every_steps is not None and not state.engine.group_open and state.step % self.every_steps == 0
        if due and state.step != self._saved_step and state.batch_index < state.batches_per_epoch:
            self._save(state, last=True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Saves the newest state, and the best."""
        state.settle_stop()
        improved = self.monitor is not None and state.finite and self.monitor.improved(state.logs)
        due = (
            (state.epoch + 1) % self.every_epochs == 0
            or state.epoch + 1 == state.epochs
            or state.stop_reason is not None
        )
        self._save(state, best=improved, last=due)

    def on_fit_end(self, state: TrainState) -> None:
        """Saves a run that was stopped in the middle of an epoch, and waits until everything is written."""
        stopped = state.stop_reason is not None and state.exception is None and state.epochs_done == state.epoch
        try:
            if stopped and (state.step != self._saved_step or state.stop_reason in SIGNALLED):
                self._save(state, last=True)
        finally:
            self._writer.wait()

    def _save(self, state: TrainState, *, best: bool = False, last: bool = False) -> None:
        if not (best or last):
            return
        if state.engine.hooks is not None and not state.engine.hooks.may_save(state):
            return
        content, step, claim = snapshot.capture(state), state.step, self._claim

        def write() -> None:
            if claim is not None:
                claim.check()
            if best:  # first, and as a file of its own: last.pt must never know of a best that is not on the disk
                save_checkpoint(self.directory / "best.pt", content)
            if last:
                self._write_last(content, step)

        if self.background:
            self._writer.wait()  # its buffers are those that are filled now
            if is_first():
                content = self._buffers.copy(content)
                self._writer.start(write)
        else:
            first_of_all(write)
        if last:
            self._saved_step = step

    def _write_last(self, content: Mapping[str, Any], step: int) -> None:
        path = save_checkpoint(self.directory / "last.pt", content)
        if self.keep_last > 1:
            earlier = self.directory / f"step-{step:08d}.pt"
            with written("the checkpoint", earlier):
                _link(path, earlier)
                for old in sorted(self.directory.glob("step-*.pt"), reverse=True)[self.keep_last :]:
                    old.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value so far."""
        return {"best": self.monitor.best} if self.monitor is not None and math.isfinite(self.monitor.best) else {}

    def must_match(self) -> dict[str, Any]:
        """Returns what decides which epoch is the best; when and how files are written may change."""
        return self.monitor.must_match() if self.monitor is not None else {"monitor": "none"}

    def load_changed(self, state: Mapping[str, Any], changed: Collection[str]) -> None:
        """Takes back the best value, unless it is of another logged one."""
        if not {"monitor", "mode"} & set(changed):
            self.load_state_dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back the best value."""
        if self.monitor is not None:
            self.monitor.best = state["best"]


def _link(source: Path, target: Path) -> None:
    """Gives a file that was written and verified a second name, atomically; copies where the disk has no links."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            with open(source, "rb") as read, open(temporary, "xb") as write:
                while chunk := read.read(1 << 20):
                    write.write(chunk)
                write.flush()
                os.fsync(write.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(target.parent)
