"""``Prune``: Optuna decides after each epoch whether a trial is worth going on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cvkit.errors import MissingDependencyError
from cvkit.training.callback import OBSERVER, Callback
from cvkit.training.monitor import Monitor
from cvkit.training.state import TrainState

__all__ = ["Prune"]


class Prune(Callback):
    """Tells an Optuna trial each epoch's value, and ends the training where the study's pruner says so.

    The training then raises ``optuna.TrialPruned``, which Optuna understands when the objective lets it pass. A training that
    is resumed tells a new trial the epochs before as well, so that the pruner decides as it would have.

    Args:
        trial: The trial that the objective was called with.
        monitor: The logged value to report; which way is better, the study says.

    Raises:
        ArgumentError: When the run starts: the monitor will never be logged.
    """

    order: ClassVar[int] = OBSERVER

    def __init__(self, trial: Any, monitor: str = "val_loss") -> None:
        self.trial = trial
        self._watched = Monitor(monitor, "min")  # checks the name; the direction does not matter here

    def on_fit_start(self, state: TrainState) -> None:
        """Checks that the value will be logged, and reports the epochs before a resume."""
        self._watched.check(state)
        for row in state.history:
            self._report(row)

    def on_epoch_end(self, state: TrainState) -> None:
        """Reports the value.

        Raises:
            optuna.TrialPruned: The pruner says that the trial is not worth going on with.
            MissingDependencyError: It says so, and optuna is not installed.
        """
        self._report(state.logs)
        if self.trial.should_prune():
            value = state.logs[self._watched.name]
            raise _pruned(f"{self._watched.name} was {value:.4g} after epoch {state.epoch + 1}")

    def elsewhere(self, directory: Path) -> Callback:
        """Returns a copy that reports nothing, for a dry run: its numbers are of two batches."""
        return _DryPrune(self._watched.name)

    def _report(self, row: Mapping[str, float]) -> None:
        if self._watched.name in row:
            self.trial.report(float(row[self._watched.name]), int(row["epoch"]) - 1)


class _DryPrune(Callback):
    """Checks the monitor's name."""

    def __init__(self, monitor: str) -> None:
        self._watched = Monitor(monitor, "min")

    def on_fit_start(self, state: TrainState) -> None:
        self._watched.check(state)


def _pruned(message: str) -> Exception:
    """Returns what Optuna takes for a pruned trial."""
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            "Prune cannot tell Optuna that the trial is pruned",
            got=str(error),
            expected="optuna in this environment",
            fix='pip install "cvkit[optuna]"',
        ) from error
    pruned: Exception = optuna.TrialPruned(message)
    return pruned
