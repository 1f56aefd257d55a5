"""``Trackio``: logs to trackio, where it is installed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from cvkit.integrations.tracker import Tracker, missing

__all__ = ["Trackio"]


class Trackio(Tracker):
    """Logs each epoch's row to trackio, by optimizer step.

    A resumed training goes on in the same run, which trackio finds by its name. What the checkpoint says was logged is not
    logged again; of a run that was killed after an epoch's row and before its checkpoint, that row is there twice.

    Args:
        project: The project's name.
        config: What else the run is to be found by, e.g. ``{"lr": 1e-3}``; epochs and seed are added.
        name: The run's name; by default one is made up.

    Raises:
        MissingDependencyError: When the run starts: trackio is not installed.
    """

    def __init__(self, project: str, *, config: Mapping[str, Any] | None = None, name: str | None = None) -> None:
        super().__init__(config or {})
        self.project, self.name = project, name
        self._run: Any = None

    def _load(self) -> Any:
        try:
            import trackio
        except ImportError as error:
            raise missing("Trackio", "trackio", error) from error
        return trackio

    def _start(self, config: Mapping[str, Any]) -> None:
        package = self._load()
        self.id = self.id or self.name or f"run-{uuid.uuid4().hex[:8]}"
        self._run = package.init(project=self.project, name=self.id, resume="allow", config=dict(config))

    def _has(self, step: int) -> bool:
        return False

    def _log(self, row: Mapping[str, float], step: int) -> None:
        self._load().log(dict(row), step=step)

    def _finish(self, reason: str, *, failed: bool) -> None:
        self._load().finish()
        self._run = None
