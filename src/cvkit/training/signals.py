"""Ctrl-C and SIGTERM: the step under way ends, the checkpoint is saved, and then the run does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvkit.training.state import TrainState

__all__ = ["SIGNALLED", "graceful"]

_REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

SIGNALLED = frozenset(_REASONS.values())
"""The reasons to stop that a signal gives: a run stopped so continues right there on resume."""


@contextmanager
def graceful(state: TrainState) -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second does what it always did.

    Handlers are set in the main thread only, and put back afterwards. After a SIGTERM the process then ends by that
    signal, with its usual code, unless the script has a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()
    before: dict[signal.Signals, Any] = {}
    received: list[signal.Signals] = []

    def handle(number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        if os.getpid() != owner:  # a forked data worker: Ctrl-C is the parent's business, SIGTERM ends it
            if which is signal.SIGTERM:
                signal.signal(which, signal.SIG_DFL)
                signal.raise_signal(which)
            return
        if which in received:
            signal.signal(which, before[which])
            signal.raise_signal(which)
            return
        received.append(which)
        state.request_stop(_REASONS[which])

    try:
        for which in _REASONS:
            held = signal.getsignal(which)
            # ignored by whoever started us (nohup), or set by other than Python: leave it
            if held is not None and held is not signal.SIG_IGN:
                before[which] = held
                signal.signal(which, handle)
        yield
    finally:
        for which, held in before.items():
            signal.signal(which, held)
    if signal.SIGTERM in received:
        signal.raise_signal(signal.SIGTERM)
