"""``Progress``: a bar in terminals and notebooks, one line an epoch everywhere else, and a table at the end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TextIO

from cvkit.calls import warn
from cvkit.metrics.async_scalars import WeightedSum
from cvkit.registry import default_callbacks
from cvkit.training.callback import OBSERVER, Callback, ask
from cvkit.training.monitor import Monitor
from cvkit.training.state import TrainState

__all__ = ["Progress"]

ROWS = 12
"""As many epochs are in the table at the end; of a longer run the first, the best and the last ones."""

COLUMNS = 80
"""Of a terminal that does not say how wide it is."""

WAITING = 0.3
"""From this share of an epoch on, the wait for data is told."""


@default_callbacks.register("progress")
class Progress(Callback):
    """Shows how far the run is.

    In a terminal or notebook a bar (tqdm) with the time left, for the epoch and for the run, the samples a second and the
    running loss and metrics. It is refreshed at most ten times a second with what has arrived from the device, so that it
    never waits. At the end of each epoch, and everywhere else, one line with the epoch's values; after the last one a table
    with the best epoch marked, and where the checkpoints are.

    The time left is reckoned from the epoch under way and, for its validation, from the one before. Where the model has waited
    for data for a third of an epoch or more, its line says so. When the terminal goes away the run goes on without it.

    Args:
        file: Where it goes; by default standard error, in a notebook standard output.
        every: Seconds between two refreshes, at least 0.1.
        bar: Whether there is a bar; by default if ``file`` is a terminal, or in a notebook.
        table: Whether there is a table at the end of a run of more than one epoch.
    """

    order: ClassVar[int] = OBSERVER
    first_rank_only: ClassVar[bool] = True
    shows_progress = True

    def __init__(
        self, *, file: TextIO | None = None, every: float = 0.1, bar: bool | None = None, table: bool = True
    ) -> None:
        self.file = file
        self.every = max(every, 0.1)
        self.bar = bar
        self.table = table
        self._out = _Output(None)
        self._bar: Any = None
        self._bars = False
        self._next = self._began = self._now = self._epoch_began = 0.0
        self._first = self._validated = self._finished = 0
        self._samples = 0.0
        self._tail: float | None = None
        self._pace: float | None = None

    def on_fit_start(self, state: TrainState) -> None:
        """Says where a resumed run continues."""
        notebook = _in_notebook()
        self._out = _Output(self.file or (sys.stdout if notebook else sys.stderr))
        self._bars = self.bar if self.bar is not None else (self._out.isatty() or notebook)
        self._next, self._finished, self._tail, self._pace = 0.0, 0, None, None
        self._began = self._now = time.perf_counter()
        if state.epoch >= state.epochs:
            self._out.say(f"nothing left to do: {state.epoch} of {state.epochs} epochs are finished")
        elif state.step > 0:
            self._out.say(f"continuing in epoch {state.epoch + 1} of {state.epochs}, at step {state.step}")

    def on_epoch_start(self, state: TrainState) -> None:
        """Notes where the epoch begins, and when."""
        now = time.perf_counter()
        if self._finished:  # from the last batch to here: the validation, and saving
            self._tail = now - self._now
        self._epoch_began = self._now = now
        self._first, self._validated = state.batch_index, 0
        self._samples = state.engine.train_meters.losses.weight
        if self._bars and now >= self._next:
            self._refresh(state, now)

    def on_batch_end(self, state: TrainState) -> None:
        """Refreshes the bar, when it is time."""
        now = self._now = time.perf_counter()
        if self._bars and now >= self._next:
            self._refresh(state, now)

    def on_validation_batch_end(self, state: TrainState) -> None:
        """Refreshes the bar while the validation is under way, when it is time."""
        self._validated += 1
        if self._bars and (now := time.perf_counter()) >= self._next:
            self._refresh(state, now)

    def on_epoch_end(self, state: TrainState) -> None:
        """Takes the bar away and writes the epoch's line."""
        self._close()
        self._finished += 1
        now = time.perf_counter()
        trained, seconds = self._now - self._epoch_began, now - self._epoch_began
        samples = state.engine.train_meters.losses.weight - self._samples
        parts = [f"epoch {state.epoch + 1}/{state.epochs}"]
        parts += [f"{name} {_short(value)}" for name, value in state.logs.items() if _captions(name)]
        parts.append(f"{seconds:.1f} s")
        if trained > 0 and samples > 0:
            parts.append(_rate(samples / trained))
        if seconds > 1 and state.data_seconds > WAITING * seconds:
            parts.append(f"{state.data_seconds / seconds:.0%} of it waiting for data")
        self._pace = trained / max(state.batch_index - self._first, 1)
        self._tail = seconds - trained
        if state.epoch + 1 < state.epochs and state.stop_reason is None:
            left = (state.epochs - state.epoch - 1) * (self._pace * state.batches_per_epoch + self._tail)
            parts.append(f"{_clock(left)} left")
        self._out.say("  ".join(parts))

    def on_fit_end(self, state: TrainState) -> None:
        """Takes the bar away, says why the run ended early, and shows the table."""
        self._close()
        if state.stop_reason is not None:
            inside = state.batch_index > 0 and state.epochs_done == state.epoch
            where = f"in epoch {state.epoch + 1}" if inside else f"after epoch {state.epochs_done}"
            self._out.say(f"stopped {where} at step {state.step}: {state.stop_reason}")
        if self.table and self._finished and len(state.history) > 1 and state.exception is None:
            for line in _summary(state, time.perf_counter() - self._began, self._finished, self._out.width() or None):
                self._out.say(line)
        self._finished = 0

    def _refresh(self, state: TrainState, now: float) -> None:
        self._next = now + self.every
        if self._bar is None:
            self._bar = self._opened(state)
        parts = self._parts(state, now)
        size = self._bar.format_dict.get("ncols")
        # what comes first is what matters; a bar of eight columns is left of a narrow terminal
        total = state.batches_per_epoch
        room = size - len(f"{self._bar.desc}: 100%|{'':8}| {total}/{total}") if size else None
        while room is not None and len(parts) > 1 and sum(len(part) + 2 for part in parts) > room:
            parts.pop()
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.n = min(state.batch_index, state.batches_per_epoch)
        self._bar.refresh()

    def _opened(self, state: TrainState) -> Any:
        # tqdm.auto picks the notebook's widget where there is one; imported here, it costs 30 ms
        from tqdm.auto import tqdm

        unsized = self._out.width() == 0
        return tqdm(
            total=state.batches_per_epoch,
            initial=state.batch_index,
            desc=f"epoch {state.epoch + 1}/{state.epochs}",
            file=self._out,
            leave=False,
            dynamic_ncols=not unsized,
            ncols=COLUMNS if unsized else None,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            delay=1e-9,  # above 0, so that it is shown by refresh() and not by being opened
        )

    def _parts(self, state: TrainState, now: float) -> list[str]:
        """Returns what stands beside the bar, what matters most first."""
        meters, seconds = state.engine.train_meters, self._now - self._epoch_began
        done = state.batch_index - self._first
        losses = meters.losses
        losses.send()
        parts = [f"validating {self._validated}/{len(state.val)}"] if not state.training else []
        left = self._left(state, now, done)
        if left is not None:
            parts.append(f"{_clock(left)} left")
        if losses.weight:
            parts.append(f"loss {_short(losses.mean)}")
        if left is not None and state.epoch + 1 < state.epochs:
            whole = self._batch_seconds(done) * state.batches_per_epoch + self._validation(state, done)
            parts.append(f"run {_clock(left + whole * (state.epochs - state.epoch - 1))}")
        if done and seconds > 0 and losses.weight > self._samples:
            parts.append(_rate((losses.weight - self._samples) / seconds))
        return parts + [f"{name} {_short(value)}" for name, value in _running(meters.metrics)]

    def _batch_seconds(self, done: int) -> float:
        """Returns the seconds a batch takes: in this epoch, or at its very beginning in the one before."""
        if done > 0:
            return (self._now - self._epoch_began) / done
        return self._pace or 0.0

    def _validation(self, state: TrainState, done: int) -> float:
        """Returns the seconds between two epochs' batches; before the first validation a guess: a forward is a third of all."""
        if self._tail is not None:
            return self._tail
        return len(state.val) * self._batch_seconds(done) / 3 if state.val is not None else 0.0

    def _left(self, state: TrainState, now: float, done: int) -> float | None:
        """Returns the seconds that are left of the epoch, or ``None`` while nothing is known."""
        if not state.training and self._validated:
            return (now - self._now) / self._validated * max(len(state.val) - self._validated, 0)
        if not done and self._pace is None:
            return None
        return self._batch_seconds(done) * (state.batches_per_epoch - state.batch_index) + self._validation(state, done)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Output:
    """A terminal or file to write to, which may go away, or not know a letter, while the run goes on."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file  # there is no standard error where there is no console

    def __getattr__(self, name: str) -> Any:  # tqdm asks for encoding and fileno
        return getattr(self._file, name)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._file is not None and not self._file.closed and self._file.isatty()

    def width(self) -> int | None:
        """Columns of the terminal, 0 where it does not say (``docker exec -t``, ``script``), ``None`` where it is none."""
        from tqdm.utils import _screen_shape_wrapper  # knows the terminals of every system

        shape: Any = _screen_shape_wrapper() if self.isatty() else None
        return shape(self._file)[0] if shape is not None else None

    def say(self, line: str) -> None:
        """Writes a line."""
        self.write(f"{line}\n")
        self.flush()

    def write(self, text: str) -> int:
        """Writes; a letter that the encoding lacks becomes a question mark."""
        if self._file is not None:
            encoding = getattr(self._file, "encoding", None) or "utf-8"
            try:
                self._file.write(text.encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Sends on its way what was written."""
        if self._file is not None:
            try:
                self._file.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._file = None
        warn(f"progress is no longer shown, the run goes on: {error}")


def _running(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """Returns the metrics whose value so far can be told without waiting: those that keep one tally."""
    found = []
    for name, metric in metrics.items():
        running_sum = getattr(metric, "running_sum", None)
        if isinstance(running_sum, WeightedSum):
            running_sum.send()
            if running_sum.weight:
                found.append((name, running_sum.mean))
    return found


def _summary(state: TrainState, seconds: float, now: int, width: int | None) -> list[str]:
    """Returns the table, and where the run is kept."""
    rows = state.history.rows
    name, mode = _watched(state)
    known = any(math.isfinite(row.get(name, math.nan)) for row in rows)
    best = rows.index(state.history.best(name, mode)) if known else None
    lines = _table(rows, ["epoch", *(one for one in state.history.columns if _captions(one))], name, best, width)
    here = "" if now == len(rows) else f" ({now} of them now)"
    lines.append(
        f"{len(rows)} epochs{here}, {state.step} steps, {_clock(seconds)}" + (f"; * best {name}" if known else "")
    )
    for which in ("best", "last"):
        kept = [ask(one, f"{which}_checkpoint") for one in (state.engine.hooks.callbacks if state.engine.hooks else ())]
        lines += [f"{which}: {path}" for path in kept if path is not None][:1]
    return lines


def _watched(state: TrainState) -> tuple[str, Literal["min", "max"] | None]:
    """Returns what decides which epoch is best: what a ``Checkpoint`` or ``EarlyStopping`` watches, else the loss."""
    monitors = [ask(one, "monitor") for one in reversed(state.engine.hooks.callbacks if state.engine.hooks else ())]
    found = next((one for one in monitors if isinstance(one, Monitor)), None)
    return (found.name, found.mode) if found else ("val_loss" if state.val is not None else "train_loss", "min")


def _table(
    rows: Sequence[dict[str, float]], names: list[str], watched: str, best: int | None, width: int | None
) -> list[str]:
    last = range(len(rows) - ROWS + 2, len(rows))
    shown = [i for i in range(len(rows)) if len(rows) <= ROWS or i in (0, best) or i in last]
    cells = {name: [name, *(_short(rows[i][name]) if name in rows[i] else "-" for i in shown)] for name in names}
    widths = {name: max(map(len, column)) for name, column in cells.items()}
    # in a narrow terminal the epoch and what is watched stay longest, then the validation, then the losses
    order = sorted(names, key=lambda one: (one != "epoch", one != watched, one[:4] != "val_", not one.endswith("loss")))
    while width is not None and len(order) > 1 and sum(widths[one] + 2 for one in order) > width:
        order.pop()
    names = [name for name in names if name in order]
    lines = ["  ".join(["", *(name.rjust(widths[name]) for name in names)])[1:]]
    for place, i in enumerate(shown, 1):
        if place > 1 and i != shown[place - 2] + 1:
            lines.append(" " + "...".rjust(widths[names[0]]))
        lines.append(("*" if i == best else " ") + "  ".join(cells[name][place].rjust(widths[name]) for name in names))
    return lines


def _captions(name: str) -> bool:
    """Whether a logged value is shown; what is a detail of another (``gradient_norm/layer1``) is in the history only."""
    return name not in ("epoch", "step") and "/" not in name


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _rate(samples: float) -> str:
    return f"{samples:,.0f} samples/s" if samples >= 100 else f"{samples:.2g} samples/s"


def _clock(seconds: float) -> str:
    """Returns a time as ``0:41`` or ``1:02:03``."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose output is no terminal but shows widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
