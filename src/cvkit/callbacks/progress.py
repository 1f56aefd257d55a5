"""``Progress``: a bar in terminals and notebooks, one line an epoch everywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar, TextIO

from cvkit.registry import default_callbacks
from cvkit.training.hooks import OBSERVER, Callback
from cvkit.training.state import TrainState

__all__ = ["Progress"]


@default_callbacks.register("progress")
class Progress(Callback):
    """Shows how far the run is.

    In a terminal or notebook a bar (tqdm), refreshed at most ten times a second with what has arrived from the device, so
    that it never waits; elsewhere, and at the end of each epoch, one line with the epoch's values.

    Args:
        file: Where it goes; standard error by default.
        every: Seconds between two refreshes.
        bar: Whether there is a bar; by default if ``file`` is a terminal, or in a notebook.
    """

    order: ClassVar[int] = OBSERVER
    shows_progress = True

    def __init__(self, *, file: TextIO | None = None, every: float = 0.1, bar: bool | None = None) -> None:
        self.file = file
        self.every = max(every, 0.1)
        self.bar = bar
        self._bar: Any = None
        self._next = 0.0
        self._started = 0.0

    def on_fit_start(self, state: TrainState) -> None:
        """Says where a resumed run continues."""
        if state.epoch >= state.epochs:
            self._say(f"nothing left to do: {state.epoch} of {state.epochs} epochs are finished")
        elif state.step > 0:
            self._say(f"continuing in epoch {state.epoch + 1} of {state.epochs}, at step {state.step}")

    def on_epoch_start(self, state: TrainState) -> None:
        """Opens the epoch's bar."""
        self._started = time.monotonic()
        out = self.file or sys.stderr
        wanted = self.bar if self.bar is not None else (out.isatty() or _in_notebook())
        if wanted:
            # tqdm.auto picks the notebook's widget where there is one; imported here, it costs 30 ms
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=len(state.train),
                initial=state.batch_index,
                desc=f"epoch {state.epoch + 1}/{state.epochs}",
                unit="batch",
                file=self.file,
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
                miniters=1,
            )
        self._next = time.perf_counter() + self.every

    def on_batch_end(self, state: TrainState) -> None:
        """Refreshes the bar, when it is time."""
        if self._bar is None or (now := time.perf_counter()) < self._next:
            return
        self._next = now + self.every
        losses = state.train_meters.losses
        losses.ship()
        if losses.weight:
            self._bar.set_postfix_str(f"loss {losses.mean:.4g}", refresh=False)
        self._bar.update(state.batch_index - self._bar.n)

    def on_validation_batch_end(self, state: TrainState) -> None:
        """Says that validation is under way."""
        if self._bar is not None and (now := time.perf_counter()) >= self._next:
            self._next = now + self.every
            self._bar.set_postfix_str("validating")

    def on_epoch_end(self, state: TrainState) -> None:
        """Closes the bar and writes the epoch's line."""
        self._close()
        values = "  ".join(f"{name} {value:.4g}" for name, value in state.logs.items() if name not in ("epoch", "step"))
        seconds = time.monotonic() - self._started
        self._say(f"epoch {state.epoch + 1}/{state.epochs}  {values}  {seconds:.1f} s")

    def on_fit_end(self, state: TrainState) -> None:
        """Closes what is open, and says why the run ended early."""
        self._close()
        if state.stop_reason is not None:
            inside = state.batch_index > 0 and state.epochs_done == state.epoch
            where = f"in epoch {state.epoch + 1}" if inside else f"after epoch {state.epochs_done}"
            self._say(f"stopped {where} at step {state.step}: {state.stop_reason}")

    def _say(self, line: str) -> None:
        print(line, file=self.file or sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose output is no terminal but shows widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
