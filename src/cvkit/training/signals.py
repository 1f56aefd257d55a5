"""Ctrl-C and SIGTERM: the step under way ends, the checkpoint is saved, and then the run does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cvkit import worker_signals
from cvkit.training.state import TrainState

__all__ = ["SIGNALLED", "graceful"]

_REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

SIGNALLED = frozenset(_REASONS.values())
"""The reasons to stop that a signal gives: a run stopped so continues right there on resume."""


_AGAIN = b"cvkit: the run is stopping and will be saved; Ctrl-C once more ends it now, without that\n"


@contextmanager
def graceful(state: TrainState) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into a request to stop, in this process alone: its workers ignore them meanwhile.

    One that comes again while the run stops does not disturb its save: ``timeout`` sends each twice, and whoever starts a
    script often hands on what the script gets from its terminal too. Only a third SIGINT does what it always did; to end a run
    that does not answer to SIGTERM there is SIGKILL.

    Handlers are set in the main thread only, and put back afterwards. After a SIGTERM the process then ends by that
    signal, with its usual code, unless the script has a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        with worker_signals.mine().holding():
            yield
        return
    owner = os.getpid()
    before: dict[signal.Signals, Any] = {}
    received: list[signal.Signals] = []

    def handle(number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        if os.getpid() != owner:  # a forked process: Ctrl-C is the parent's business, SIGTERM ends it
            if which is signal.SIGTERM:
                signal.signal(which, signal.SIG_DFL)
                signal.raise_signal(which)
            return
        received.append(which)
        state.request_stop(_REASONS[which])
        if which is signal.SIGINT and received.count(which) == 2:
            os.write(2, _AGAIN)  # not by print: the line that is interrupted may be printing
        elif which is signal.SIGINT and received.count(which) > 2:
            signal.signal(which, before[which])
            signal.raise_signal(which)

    try:
        for which in _REASONS:
            held = signal.getsignal(which)
            # ignored by whoever started us (nohup), or set by other than Python: leave it
            if held is not None and held is not signal.SIG_IGN:
                before[which] = held
                signal.signal(which, handle)
        with worker_signals.mine().holding():
            yield
    finally:
        for which, held in before.items():
            signal.signal(which, held)
    if signal.SIGTERM in received:
        if state.engine.world is not None:
            state.engine.world.ends_by = signal.SIGTERM  # once the other ranks have what they need of this one
        else:
            signal.raise_signal(signal.SIGTERM)
