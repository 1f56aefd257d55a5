"""``WandB``: logs to Weights & Biases, where wandb is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvkit.integrations.tracker import Tracker, missing

__all__ = ["WandB"]


class WandB(Tracker):
    """Logs each epoch's row to Weights & Biases, by optimizer step.

    A resumed training goes on in the same run, without a point that is there twice. Whether runs go to the server is decided
    by wandb's own settings, e.g. the environment variable ``WANDB_MODE=offline``.

    Args:
        project: The project's name.
        config: What else the run is to be found by, e.g. ``{"lr": 1e-3}``; epochs and seed are added.
        options: More arguments of ``wandb.init``, e.g. ``{"entity": "team", "tags": ["baseline"]}``.

    Raises:
        MissingDependencyError: When the run starts: wandb is not installed.
    """

    def __init__(
        self, project: str, *, config: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(config or {})
        self.project, self.options = project, dict(options or {})
        self._run: Any = None

    def _load(self) -> Any:
        try:
            import wandb
        except ImportError as error:
            raise missing("WandB", "wandb", error) from error
        return wandb

    def _start(self, config: Mapping[str, Any]) -> None:
        package = self._load()
        self._run = package.init(project=self.project, id=self.id, resume="allow", config=dict(config), **self.options)
        self.id = self._run.id

    def _has(self, step: int) -> bool:
        return step < int(self._run.step)  # a continued run begins after its last step

    def _log(self, row: Mapping[str, float], step: int) -> None:
        self._run.log(dict(row), step=step)

    def _finish(self, reason: str, *, failed: bool) -> None:
        self._run.summary["stop_reason"] = reason
        self._run.finish(exit_code=int(failed))
        self._run = None
