"""What ``TensorBoard`` adds to a step, and what a call of each of its parts costs.

    python benchmarks/tensorboard_cost.py               # about three minutes
    python benchmarks/tensorboard_cost.py --rounds 5

The step: an MLP 32 → 64 → 10 on batches of 32 in memory, as in ``loop.py``, through ``fit`` without the callback, with it, and
with a loop's usual three calls of ``SummaryWriter.add_scalar`` each step; in each round all of them, in an order that changes,
each over a short and a long epoch, so that what a run costs once drops out. The parts: histograms of a ResNet-18, the graph, a
grid of inputs, the epoch's row, each beside tensorboardX's own where it has one. One thread; CPU time of the process; medians
with the 10th and 90th percentile.

(The file is not called ``tensorboard.py``: started from this directory, ``import tensorboard`` would find it instead.)
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboardX import SummaryWriter
from torch import nn

import cvkit
from cvkit.callbacks import TensorBoard
from cvkit.callbacks.tensorboard import image_grid, model_graph
from cvkit.callbacks.tensorboard.histograms import histograms
from cvkit.callbacks.tensorboard.writers import EventFiles
from cvkit.transforms import classification_eval

SHORT, LONG = 100, 1600
"""Steps of the two epochs whose difference is timed."""


class Usual(cvkit.Callback):
    """Three scalars each step, as tutorials write them."""

    def __init__(self, directory: Path) -> None:
        self.writer = SummaryWriter(str(directory))

    def on_batch_end(self, state: Any) -> None:
        """Writes them."""
        self.writer.add_scalar("loss", state.loss.item(), state.step)
        self.writer.add_scalar("lr", state.lr, state.step)
        self.writer.add_scalar("epoch", state.epoch, state.step)

    def on_fit_end(self, state: Any) -> None:
        """Ends the writing."""
        self.writer.close()


STEPS: dict[str, Callable[[Path], list[Any]]] = {
    "without": lambda directory: [],
    "without, again": lambda directory: [],
    "TensorBoard, a point every 50 steps": lambda directory: [TensorBoard(directory)],
    "TensorBoard, a point every step": lambda directory: [TensorBoard(directory, every_steps=1)],
    "three add_scalar of tensorboardX each step": lambda directory: [Usual(directory)],
}


def epoch_seconds(callbacks: list[Any], steps: int) -> float:
    """Trains one epoch and returns its CPU time."""
    torch.manual_seed(0)
    batch = (torch.randn(32, 32), torch.randint(0, 10, (32,)))
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    began = time.process_time()
    cvkit.fit(
        model,
        [batch] * steps,
        epochs=1,
        optimizer="momentum",
        lr=0.01,
        callbacks=callbacks,
        device="cpu",
        progress=False,
        preflight=False,
    )
    return time.process_time() - began


def time_steps(rounds: int) -> dict[str, list[float]]:
    """Returns, for each way, the microseconds that it adds to a step, one a round."""
    added: dict[str, list[float]] = {name: [] for name in STEPS}
    names = list(STEPS)
    for number in range(-1, rounds):  # one round to warm up
        slopes = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory() as place:
                short = epoch_seconds(STEPS[name](Path(place) / "short"), SHORT)
                slopes[name] = (epoch_seconds(STEPS[name](Path(place) / "long"), LONG) - short) / (LONG - SHORT)
        for name in names:
            if number >= 0:
                added[name].append((slopes[name] - slopes["without"]) * 1e6)
    return added


class Timed(TensorBoard):
    """Times its own hooks, step by step: what a loaded machine takes away in between is not in the median."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.between: list[float] = []
        self.at: list[float] = []

    def on_gradients_ready(self, state: Any) -> None:
        """Times the first of a step's hooks."""
        began = time.perf_counter()
        super().on_gradients_ready(state)
        self.before = time.perf_counter() - began

    def on_batch_end(self, state: Any) -> None:
        """Times the last of a step's hooks."""
        began = time.perf_counter()
        super().on_batch_end(state)
        took = self.before + time.perf_counter() - began
        (self.at if state.step % self.every_steps == 0 else self.between).append(took * 1e6)


def time_hooks(rounds: int) -> dict[str, list[float]]:
    """Returns the microseconds of the callback's hooks, the median of each round."""
    found: dict[str, list[float]] = {"a step between points": [], "a step with a point": [], "a step on average": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            board = Timed(Path(place) / "run")
            epoch_seconds([board], LONG)
        between, at = statistics.median(board.between), statistics.median(board.at)
        share = 1 / board.every_steps
        for values, one in zip(found.values(), (between, at, between * (1 - share) + at * share), strict=True):
            values.append(one)
    return found


def parts(place: Path) -> dict[str, Callable[[], object]]:
    """Returns calls to be timed, by name."""
    torch.manual_seed(0)
    model = cvkit.models.create("resnet18", num_classes=10)
    weights = {f"weights/{name}": value for name, value in model.named_parameters()}
    writer, files = SummaryWriter(str(place / "theirs")), EventFiles(place / "ours", ("train", "val"), None)
    transform = classification_eval(224)
    inputs = torch.randn(16, 3, 224, 224)
    small = torch.randn(16, 3, 32, 32)
    row = {"loss": 1.0, "accuracy": 0.5, "lr": 0.1, "step/epoch": 1.0}

    def add_histograms() -> None:
        for name, value in weights.items():
            writer.add_histogram(name, value.detach(), 0)

    def add_row() -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, 0)

    def shown(images: torch.Tensor) -> np.ndarray:
        return image_grid.grid([image_grid.sized(one) for one in image_grid.to_pixels(images, transform)])

    call = model_graph.Call((inputs,), {})
    return {
        "four scalars": lambda: files.scalars("train", row, 0),
        "four scalars, tensorboardX": add_row,
        "histograms of a ResNet-18 (62 tensors, 11 million values)": lambda: files.histograms(histograms(weights), 0),
        "the same, tensorboardX": add_histograms,
        "16 images of 224×224": lambda: files.image("train", "inputs", shown(inputs), 0),
        "the same grid, tensorboardX": lambda: writer.add_image("inputs", shown(inputs), 0, dataformats="HWC"),
        "16 images of 32×32": lambda: files.image("train", "inputs", shown(small), 0),
        "the graph of a ResNet-18": lambda: files.graph(model, call),
        "the same, tensorboardX (torch.jit.trace)": lambda: writer.add_graph(model, inputs[:1]),
    }


def time_parts(rounds: int) -> dict[str, list[float]]:
    """Returns milliseconds a call, one a round; in each round every part, in an order that changes."""
    with tempfile.TemporaryDirectory() as place:
        calls = parts(Path(place))
        took: dict[str, list[float]] = {name: [] for name in calls}
        names = list(calls)
        for number in range(-1, rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                again = 50 if "scalars" in name else 1
                began = time.process_time()
                for _ in range(again):
                    calls[name]()
                if number >= 0:
                    took[name].append((time.process_time() - began) / again * 1e3)
    return took


def table(head: str, measured: dict[str, list[float]], digits: int) -> str:
    """Returns medians with the 10th and 90th percentile, as Markdown."""
    lines = [f"| | {head} |", "| --- | --- |"]
    for name, values in measured.items():
        tenths = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
        spread = f"({tenths[0]:,.{digits}f} … {tenths[-1]:,.{digits}f})"
        lines.append(f"| {name} | {statistics.median(values):,.{digits}f} {spread} |")
    return "\n".join(lines)


def main() -> None:
    """Measures both and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=["steps", "parts"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only != "parts":
        print(table("µs in the callback's hooks", time_hooks(given.rounds), 2), end="\n\n", flush=True)
        print(table("µs added to a step", time_steps(given.rounds), 1), end="\n\n", flush=True)
    if given.only != "steps":
        print(table("ms a call", time_parts(given.rounds), 2))


if __name__ == "__main__":
    main()
