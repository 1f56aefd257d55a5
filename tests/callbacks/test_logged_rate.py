"""The learning rate that is logged is the one that the last update was made with, wherever it is logged."""

import csv

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, StepLR

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cvkit.callbacks import Checkpoint, CSVLogger, LRSchedule, TensorBoard


def halving(optimizer, total=None):
    return LambdaLR(optimizer, lambda step: 0.5**step)


class ByHand:
    """A callback of a user's own that moves the rate before the observers look."""

    def on_batch_end(self, state):
        for group in state.optimizer.param_groups:
            group["lr"] *= 0.5


def run(tiny, directory, way, *extra, tensor=False, **kwargs):
    """Trains with the rate moved in some way; returns the rate of each update, read off the optimizer, and the result."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    # two groups, the second of a rate of its own
    optimizer = SGD(
        [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.25}], lr=torch.tensor(1.0) if tensor else 1.0
    )
    seen = {}

    def look(state, calls):
        seen[state.step + 1] = [float(group["lr"]) for group in optimizer.param_groups]

    changer = {
        "schedule": [],
        "every step": [LRSchedule(halving(optimizer))] if way == "every step" else [],
        "every epoch": [LRSchedule(StepLR(optimizer, 1, gamma=0.5), every="epoch")] if way == "every epoch" else [],
        "by hand": [ByHand()],
    }[way]
    result = tiny.run(
        *changer,
        tiny.Do("on_gradients_ready", look),
        *extra,
        CSVLogger(directory / "log.csv", every_steps=1),
        TensorBoard(directory / "board", every_steps=1),
        model=model,
        optimizer=optimizer,
        schedule=halving if way == "schedule" else None,
        **kwargs,
    )
    return seen, result


def scalars(directory, tag):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {event.step: event.value for event in accumulator.Scalars(tag)}


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {int(row["step"]): float(row["lr"]) for row in csv.DictReader(file)}


WAYS = ("schedule", "every step", "every epoch", "by hand")


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    ("way", "tensor"), [*((way, False) for way in WAYS), ("schedule", True), ("every step", True)], ids=str
)
def test_the_rate_that_is_logged_is_the_one_that_was_used(tiny, tmp_path, way, accumulate, tensor):
    seen, result = run(tiny, tmp_path, way, accumulate=accumulate, tensor=tensor)
    first = {step: rates[0] for step, rates in seen.items()}
    assert len(set(first.values())) > 1
    ends = {int(row["step"]): row["lr"] for row in result.history}
    assert ends == {step: first[step] for step in ends}
    assert len(ends) == 2
    assert table(tmp_path / "log.csv") == ends
    assert table(tmp_path / "log-steps.csv") == first
    board = tmp_path / "board" / "train"
    assert scalars(board, "lr") == pytest.approx(ends)
    assert scalars(board, "step/lr") == pytest.approx(first)
    for index in (0, 1):
        assert scalars(board, f"step/lr/{index}") == pytest.approx({step: rates[index] for step, rates in seen.items()})


def test_before_an_update_it_is_the_rate_to_come_and_after_it_the_one_that_was_used(tiny):
    found = []
    hooks = [
        tiny.Do(f"on_{hook}", lambda state, calls, hook=hook: found.append((hook, state.step, state.lr)))
        for hook in ("epoch_start", "batch_start", "gradients_ready", "batch_end", "validation_batch_end", "epoch_end")
    ]
    tiny.run(*hooks, optimizer=lambda p: SGD(p, lr=1.0), schedule=halving, epochs=1)
    updates = [
        one
        for step in range(4)
        for one in (
            ("batch_start", step, 0.5**step),
            ("gradients_ready", step, 0.5**step),
            ("batch_end", step + 1, 0.5**step),
        )
    ]
    assert found == [
        ("epoch_start", 0, 1.0),
        *updates,
        *[("validation_batch_end", 4, 0.125)] * 4,
        ("epoch_end", 4, 0.125),
    ]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "by hand"])
@pytest.mark.parametrize(
    ("hook", "call"),
    [("on_batch_end", 2), ("on_batch_end", 4), ("on_validation_batch_end", 2), ("on_batch_end", 6)],
    ids=["in an epoch", "at its last batch", "in its validation", "in the last epoch"],
)
def test_after_a_resume_the_same_rates_are_logged(tiny, tmp_path, way, hook, call):
    _, whole = run(tiny, tmp_path / "whole", way)

    def stop(state, calls):
        if calls == call:
            state.request_stop("terminated")

    again = tmp_path / "again"
    run(tiny, again, way, Checkpoint(again / "run"), tiny.Do(hook, stop))
    _, result = run(tiny, again, way, Checkpoint(again / "run"), resume=True)
    assert result.history["lr"] == whole.history["lr"]
    for name in ("log.csv", "log-steps.csv"):
        assert (again / name).read_text() == (tmp_path / "whole" / name).read_text()
