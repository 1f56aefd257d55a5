"""``CSVLogger``: one line an epoch in a file, and one every few steps in another."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from cvkit.errors import ArgumentError
from cvkit.metrics.async_scalars import AsyncScalars
from cvkit.serialization.checkpoint import sync_directory
from cvkit.serialization.file_errors import written
from cvkit.training.callback import OBSERVER, Callback
from cvkit.training.state import TrainState

__all__ = ["CSVLogger"]

STEP_COLUMNS = ("epoch", "step", "train_loss", "lr")


class CSVLogger(Callback):
    """Writes the history to a CSV file, whole again after each epoch, so that no line is ever there twice.

    The file is replaced at once, after its content has reached the disk: it is whole whoever reads it, and whenever the run is
    killed. A name that is first logged later is a column that is empty before.

    Args:
        path: The file; its directory is made if missing.
        every_steps: How many updates lie between two lines of a second file, ``log-steps.csv`` beside ``log.csv``, with the
            loss of the batch and the learning rate; ``None`` for no such file. Lines that a killed run wrote beyond its
            checkpoint are taken out of it when the run is resumed.

    Raises:
        ArgumentError: ``every_steps`` below 1, or, when a new run starts, a file that is there already.
        CheckpointError: A file cannot be written, e.g. because the disk is full.
    """

    order: ClassVar[int] = OBSERVER
    first_rank_only: ClassVar[bool] = True

    def __init__(self, path: str | Path, *, every_steps: int | None = None) -> None:
        if every_steps is not None and (isinstance(every_steps, bool) or every_steps < 1):
            raise ArgumentError(
                "every_steps cannot be used",
                got=repr(every_steps),
                expected="an integer of at least 1, or None",
                fix="CSVLogger(path, every_steps=50)",
            )
        self.path = Path(path)
        self.every_steps = every_steps
        self._losses = AsyncScalars()
        self._lines: list[tuple[float, ...]] = []
        self._seen = 0

    @property
    def steps_path(self) -> Path:
        """The file of the steps."""
        return self.path.with_name(f"{self.path.stem}-steps{self.path.suffix}")

    def elsewhere(self, directory: Path) -> CSVLogger:
        """Returns a copy that writes into another directory, for a dry run."""
        directory.mkdir(parents=True, exist_ok=True)
        return CSVLogger(directory / self.path.name, every_steps=self.every_steps)

    def on_fit_start(self, state: TrainState) -> None:
        """Refuses to write over another run's files; takes out of the steps' what will come again."""
        paths = [self.path, *([self.steps_path] if self.every_steps is not None else [])]
        _check_writable(self.path)
        held = next((path for path in paths if path.exists()), None)
        if held is not None and not state.engine.resumed:
            raise ArgumentError(
                f"{held} already holds a run",
                got=f"{len(held.read_text(encoding='utf-8').splitlines())} lines",
                expected="a new file, for a new run",
                fix="choose another path, or delete the file, or resume the run",
            )
        self._losses, self._lines, self._seen = AsyncScalars(), [], state.step
        if self.every_steps is not None:
            _replace(self.steps_path, _csv([STEP_COLUMNS, *_lines_until(self.steps_path, state.step)]))

    def on_batch_end(self, state: TrainState) -> None:
        """Files the loss away for a line, without waiting for the device."""
        if self.every_steps is None or state.step == self._seen or state.step % self.every_steps != 0:
            return
        self._seen = state.step
        if state.loss is not None:
            self._losses.put((state.epoch + 1, state.step, state.lr), state.loss)
        self._take(self._losses.arrived())

    def on_epoch_end(self, state: TrainState) -> None:
        """Writes both files."""
        _replace(self.path, state.history.to_csv())
        self._flush()

    def on_fit_end(self, state: TrainState) -> None:
        """Writes the lines that are left."""
        self._flush()

    def state_dict(self) -> dict[str, Any]:
        """Puts the lines on the disk, so that a checkpoint never is ahead of them; there is no state."""
        self._flush()
        return {}

    def _take(self, points: Iterable[tuple[Any, float]]) -> None:
        self._lines += [(epoch, step, loss, lr) for (epoch, step, lr), loss in points]

    def _flush(self) -> None:
        self._take(self._losses.all())
        if self._lines:
            with written("the log", self.steps_path):
                _append(self.steps_path, _csv(self._lines))
            self._lines = []


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _lines_until(path: Path, step: int) -> list[list[str]]:
    """Returns the whole lines of a steps' file up to a step; a last one that was cut off is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [line for line in list(csv.reader(io.StringIO(whole)))[1:] if int(line[1]) <= step]


def _check_writable(path: Path) -> None:
    """Makes the directory, and refuses before training what would fail after the first epoch."""
    if path.is_dir():
        raise ArgumentError(
            f"{path} cannot be written",
            got="a directory",
            expected="a file",
            fix=f"CSVLogger({str(path / 'log.csv')!r})",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ArgumentError(
            f"{path} cannot be written",
            got=f"{type(error).__name__}: {error}",
            expected="a directory that can be written to",
            fix="choose another path, or see whether the disk is full or read-only",
        ) from error


def _append(path: Path, text: str) -> None:
    """Writes lines to the end of a file, all of them or none."""
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(text.encode())
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # what failed first is what is told
                file.truncate(size)
            raise


def _replace(path: Path, text: str) -> None:
    """Writes a file that is either the old one or the new one, also when the power goes."""
    temporary = path.with_name(f".{path.name}.tmp")
    with written("the log", path):
        try:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
