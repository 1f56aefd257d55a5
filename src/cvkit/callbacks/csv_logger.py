"""``CSVLogger``: one line an epoch in a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar

from cvkit.errors import ArgumentError
from cvkit.training.hooks import OBSERVER, Callback
from cvkit.training.state import TrainState

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Writes the history to a CSV file, whole again after each epoch, so that a resumed run leaves no line twice.

    Args:
        path: The file; its directory is made if missing.

    Raises:
        ArgumentError: When a new run starts and the file is there already.
    """

    order: ClassVar[int] = OBSERVER

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_start(self, state: TrainState) -> None:
        """Refuses to write over another run's file."""
        if self.path.exists() and not state.resumed:
            raise ArgumentError(
                f"{self.path} already holds a run",
                got=f"{len(self.path.read_text(encoding='utf-8').splitlines())} lines",
                expected="a new file, for a new run",
                fix="choose another path, or delete the file, or resume the run",
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Writes the file."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, state.history.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(state.history.rows)
        temporary.replace(self.path)
