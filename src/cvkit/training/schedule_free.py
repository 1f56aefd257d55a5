"""Optimizers that keep two sets of weights, one to train and one to use, and switch by their ``train()`` and ``eval()``.

Source: Defazio et al., The Road Less Scheduled, 2024 (arXiv:2405.15682). The package ``schedulefree`` and those of
pytorch-optimizer are such. The weights to use are validated and saved, and are in the model when ``fit`` returns; the weights
to train come back bit by bit, which the optimizer's own arithmetic would not give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from cvkit.errors import ArgumentError
from cvkit.training.state import TrainState

__all__ = ["leave", "refuse", "start", "switching", "usable_weights"]


def switching(optimizers: Sequence[Optimizer]) -> list[Any]:
    """Returns the optimizers that have a ``train()`` and an ``eval()``."""
    return [one for one in optimizers if callable(getattr(one, "train", None)) and callable(getattr(one, "eval", None))]


def start(optimizers: Sequence[Optimizer]) -> None:
    """Switches to the weights to train."""
    for one in switching(optimizers):
        one.train()


def leave(optimizers: Sequence[Optimizer]) -> None:
    """Switches to the weights to use, which are then the model's."""
    for one in switching(optimizers):
        one.eval()


@contextmanager
def usable_weights(optimizers: Sequence[Optimizer]) -> Iterator[bool]:
    """Has the weights to use in the model inside; those to train are back afterwards, bit by bit.

    Yields:
        Whether there are any: without such an optimizer nothing happens.
    """
    own = switching(optimizers)
    if not own:
        yield False
        return
    held = [parameter for one in own for group in one.param_groups for parameter in group["params"]]
    values = [parameter.detach().clone() for parameter in held]
    leave(own)
    try:
        yield True
    finally:
        start(own)
        with torch.no_grad():
            for parameter, value in zip(held, values, strict=True):
                parameter.copy_(value)


def refuse(state: TrainState, name: str) -> None:
    """Refuses a callback that averages weights beside an optimizer that does.

    Raises:
        ArgumentError: There is such an optimizer.
    """
    for one in switching(state.optimizers):
        raise ArgumentError(
            f"{name} does not go with the optimizer {type(one).__name__}",
            got="an optimizer that averages the weights itself (it has train() and eval())",
            expected="one average of the weights",
            fix=f"leave {name} out, or take another optimizer",
        )
