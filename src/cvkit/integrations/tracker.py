"""What the callbacks for experiment trackers share: a run of the tracker that is found again after a resume."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cvkit.errors import MissingDependencyError
from cvkit.training.callback import OBSERVER, Callback
from cvkit.training.state import TrainState

__all__ = ["Tracker", "missing"]


def missing(callback: str, package: str, error: ImportError) -> MissingDependencyError:
    """Returns the error for a tracker that is not installed.

    Args:
        callback: The callback's name.
        package: The package that it needs, which is also the name of the extra.
        error: What the import said.
    """
    return MissingDependencyError(
        f"{callback} needs the package {package}",
        got=str(error),
        expected=f"{package} in this environment",
        fix=f'pip install "cvkit[{package}]"',
    )


class Tracker(Callback):
    """Logs each epoch's row to a run of a tracker, by optimizer step; the trackers derive from it.

    The run's id goes into the checkpoint, so that a resumed training goes on in the same run; what that run has logged
    already is not logged again. A dry run needs the package, and logs nothing.

    Attributes:
        id: The run's id at the tracker, or ``None`` before there is one.
    """

    order: ClassVar[int] = OBSERVER  # it comes after those callbacks that add to the row
    first_rank_only: ClassVar[bool] = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.id: str | None = None
        self._running = self._silent = self._restored = False

    def on_fit_start(self, state: TrainState) -> None:
        """Starts a run of the tracker, or goes on in the one that the checkpoint names."""
        self._load()
        if not self._restored:  # the id that it may hold is of another training
            self.id = None
        self._restored = False
        if not self._silent:
            self._start({**self.config, "epochs": state.epochs, "seed": state.seed})
            self._running = True

    def on_epoch_end(self, state: TrainState) -> None:
        """Logs the epoch's row, unless a run that was killed has logged it before."""
        if self._running and not self._has(state.step):
            self._log({name: value for name, value in state.logs.items() if name != "step"}, state.step)

    def on_fit_end(self, state: TrainState) -> None:
        """Tells the tracker how the run ended."""
        if self._running:
            self._running = False
            self._finish(
                state.stop_reason or ("failed" if state.exception else "finished"), failed=bool(state.exception)
            )

    def elsewhere(self, directory: Path) -> Callback:
        """Returns a copy that logs nothing, for a dry run: a tracker is no directory."""
        other = copy.copy(self)
        other._silent = True
        return other

    def state_dict(self) -> dict[str, Any]:
        """Returns the run's id."""
        return {"id": self.id} if self.id is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the run's id back."""
        self.id, self._restored = state["id"], True

    def _load(self) -> Any:
        """Returns the package."""
        raise NotImplementedError

    def _start(self, config: Mapping[str, Any]) -> None:
        """Starts or continues a run, and sets :attr:`id`."""
        raise NotImplementedError

    def _has(self, step: int) -> bool:
        """Whether the row of a step is there already."""
        raise NotImplementedError

    def _log(self, row: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def _finish(self, reason: str, *, failed: bool) -> None:
        raise NotImplementedError
