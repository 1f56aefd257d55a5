"""``MLflow``: logs to MLflow, where mlflow is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvkit.integrations.tracker import Tracker, missing

__all__ = ["MLflow"]


class MLflow(Tracker):
    """Logs each epoch's row to MLflow, by optimizer step.

    A resumed training goes on in the same run, without a point that is there twice. Where runs are kept is decided by
    ``mlflow.set_tracking_uri`` or the environment variable ``MLFLOW_TRACKING_URI``.

    Args:
        experiment: The experiment's name.
        config: Parameters of the run, e.g. ``{"lr": 1e-3}``; epochs and seed are added.
        run_name: The run's name; by default MLflow makes one up.

    Raises:
        MissingDependencyError: When the run starts: mlflow is not installed.
    """

    def __init__(
        self, experiment: str, *, config: Mapping[str, Any] | None = None, run_name: str | None = None
    ) -> None:
        super().__init__(config or {})
        self.experiment, self.run_name = experiment, run_name
        self._logged = -1

    def _load(self) -> Any:
        try:
            import mlflow
        except ImportError as error:
            raise missing("MLflow", "mlflow", error) from error
        return mlflow

    def _start(self, config: Mapping[str, Any]) -> None:
        package = self._load()
        package.set_experiment(self.experiment)
        run = package.start_run(run_id=self.id, run_name=self.run_name)
        if self.id is None:  # MLflow changes no parameter later
            self.id = str(run.info.run_id)
            package.log_params(dict(config))
        points = package.MlflowClient().get_metric_history(self.id, "train_loss")
        self._logged = max((point.step for point in points), default=-1)

    def _has(self, step: int) -> bool:
        return step <= self._logged  # MLflow would keep both points

    def _log(self, row: Mapping[str, float], step: int) -> None:
        self._load().log_metrics(dict(row), step=step)

    def _finish(self, reason: str, *, failed: bool) -> None:
        package = self._load()
        package.set_tag("stop_reason", reason)
        package.end_run("FAILED" if failed else "FINISHED")
