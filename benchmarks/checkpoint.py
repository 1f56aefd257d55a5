"""How long training stands still while a checkpoint is saved.

A ResNet-50 is trained with Adam by ``fit`` (on tiny images, so that steps are short); after every step the same state is
saved in one of these ways, in turn: ``torch.save`` as in tutorials, ``torch.save`` flushed to the disk, and the ``Checkpoint``
callback, blocking and in the background. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.training import TrainState, snapshot


class Savers(cvkit.Callback):
    """Saves after every step in the next of several ways, and takes the time that the loop waits for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blocking = Checkpoint(directory / "blocking", monitor=None)
        self.background = Checkpoint(directory / "background", monitor=None, background=True)
        self.ways: dict[str, Callable[[TrainState], object]] = {
            "`torch.save`": lambda state: self._torch_save(state, flush=False),
            "`torch.save`, then fsync": lambda state: self._torch_save(state, flush=True),
            "`Checkpoint`": lambda state: self.blocking._save(state, last=True),
            "`Checkpoint(background=True)`": lambda state: self.background._save(state, last=True),
        }
        self.waited: dict[str, list[float]] = {name: [] for name in [*self.ways, "a step beside the writing"]}
        self.alone: list[float] = []
        self._began = 0.0
        self._turn = 0

    def _torch_save(self, state: TrainState, *, flush: bool) -> None:
        with open(self.directory / "tutorial.pt", "wb") as file:
            torch.save(snapshot.capture(state), file)
            if flush:
                file.flush()
                os.fsync(file.fileno())

    def on_batch_start(self, state: TrainState) -> None:
        """Looks whether a file is being written, and starts the clock."""
        self._writing = self.background._writer.busy
        self._began = time.perf_counter()

    def on_batch_end(self, state: TrainState) -> None:
        """Takes the time of the step, and of the next way to save."""
        step = time.perf_counter() - self._began
        if self._turn >= len(self.ways):  # the first round warms up
            (self.waited["a step beside the writing"] if self._writing else self.alone).append(step)
        self.background._writer.wait()  # a file that is still being written would be waited for by the next
        name = list(self.ways)[self._turn % len(self.ways)]
        began = time.perf_counter()
        self.ways[name](state)
        if self._turn >= len(self.ways):
            self.waited[name].append(time.perf_counter() - began)
        self._turn += 1

    def on_fit_end(self, state: TrainState) -> None:
        """Waits for the last file."""
        self.background._writer.wait()


def main(arguments: list[str] | None = None) -> None:
    """Trains, saves, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--directory", type=Path, help="on the disk that is asked about; a temporary one by default")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = cvkit.models.create(options.model, num_classes=10)
    batches = [(torch.randn(4, 3, 32, 32), torch.randint(10, (4,))) for _ in range(4)]
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        savers = Savers(Path(folder))
        cvkit.fit(
            model,
            batches,
            epochs=options.rounds + 1,
            optimizer="adam",
            device="cpu",
            callbacks=[savers],
            progress=False,
        )
        size = (Path(folder) / "tutorial.pt").stat().st_size / 1e6
    print(f"{options.model} and Adam: {size:.0f} MB, {options.rounds} rounds; torch {torch.__version__}\n")
    print("| | training stands still, ms (10–90 %) | × `torch.save` in the same round |\n| --- | --- | --- |")
    reference = savers.waited["`torch.save`"]
    for name in savers.ways:
        times = savers.waited[name]
        ratios = [one / other for one, other in zip(times, reference, strict=True)]
        print(f"| {name} | {spread([1000 * one for one in times], 0)} | {spread(ratios, 3)} |")
    beside = savers.waited["a step beside the writing"]
    print(f"\na step takes {spread([1000 * one for one in savers.alone], 0)} ms; ", end="")
    print(f"while a file is being written beside it {spread([1000 * one for one in beside], 0)} ms")


def spread(values: list[float], digits: int) -> str:
    """Returns the median with the 10th and 90th percentile."""
    if len(values) < 2:
        return ", ".join(f"{value:.{digits}f}" for value in values) or "–"
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return f"{statistics.median(values):.{digits}f} ({cuts[0]:.{digits}f} … {cuts[-1]:.{digits}f})"


if __name__ == "__main__":
    main()
