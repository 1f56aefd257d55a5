"""``cvkit.fit``."""

from __future__ import annotations

from collections.abc import Callable

from cvkit import fit
from peers.work import Tracked, Work


def prepare(work: Work, bar: bool, *, preflight: bool = False) -> Callable[[], Tracked]:
    """A call as a user writes it, preflight left out: it is a fixed cost, with a row of its own."""
    optimizer = work.optimizer()

    def run() -> Tracked:
        result = fit(
            work.model,
            work.batches,
            epochs=1,
            optimizer=optimizer,
            metrics=["accuracy"],
            progress=bar,
            preflight=preflight,
        )
        return result.history[-1]["train_loss"], result.history[-1]["train_accuracy"]

    return run
