"""Modes that the program switches itself, and backward passes that it runs itself."""

from __future__ import annotations

from collections.abc import Iterator

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check


@check("CV701", "warning", "The mode is switched in forward or in the step", needs=["loss"], each=True)
def mode_switched(probe: Probe, side: Side) -> Iterator[Seen]:
    """self.eval() in forward ends dropout and batch norm's training; model.train() in a step validates with both."""
    if not side.trace.switched:
        return
    where = "the step" if probe.own_step else "forward"
    into, call = ("evaluation", ".eval()") if side.training else ("training", ".train()")
    yield Seen(
        f"{where} puts the model into {into} mode on a batch of {side.name}",
        got=f"model.training is {not side.training} after it",
        expected="fit sets the mode: training on the batches of train, evaluation on those of val",
        fix=f"leave out {call} in {where}",
    )


@check("CV621", "warning", "A backward pass in the step", needs=["gradients"])
def backward_twice(probe: Probe) -> Iterator[Seen]:
    """Fit runs the backward pass; one in the step as well counts every gradient twice."""
    early = probe.train.trace.early
    if early:
        yield Seen(
            f"{some(early)} have a gradient before the backward pass: the step runs one itself, and each counts twice",
            got=f"{len(early)} parameters with a gradient after the step",
            expected="none: fit runs loss.backward() on what the step returns",
            fix="leave out loss.backward() in the step, and return the loss",
        )
