"""What could not be drawn, said once: in a warning, and on TensorBoard's text page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cvkit.callbacks.tensorboard.writers import EventWriter
from cvkit.calls import warn
from cvkit.errors import CheckpointError

__all__ = ["Notes"]


class Notes:
    """Options that do not fit the run: each is told of once, and is off from then on."""

    def __init__(self) -> None:
        self._off: set[str] = set()
        self._waiting: dict[str, str] = {}

    def on(self, option: str) -> bool:
        """Whether nothing has been said against an option."""
        return option not in self._off

    def warn_once(self, option: str, why: str) -> None:
        """Says why an option draws nothing."""
        if option not in self._off:
            self._off.add(option)
            self._waiting[option] = why
            warn(f"TensorBoard({option}=…) is left out: {why}")

    @contextmanager
    def guard(self, option: str, doing: str) -> Iterator[None]:
        """Turns what fails inside into a note: an image is not worth a training. A disk's errors are not held back."""
        try:
            yield
        except (OSError, CheckpointError):
            raise
        except Exception as error:
            said = str(error).strip().splitlines()
            self.warn_once(option, f"{doing} failed with {type(error).__name__}: {said[0] if said else 'no message'}")

    def write(self, writer: EventWriter, step: int) -> None:
        """Writes what is new."""
        while self._waiting:
            option, why = self._waiting.popitem()
            writer.text(f"notes/{option}", why, step)
