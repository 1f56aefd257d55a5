"""A device that is full: what filled it, and which arguments give the same update with less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cvkit.diagnosis.shapes import shape
from cvkit.errors import DeviceError
from cvkit.training.state import TrainState

__all__ = ["explained"]


@contextmanager
def explained(state: TrainState) -> Iterator[None]:
    """Turns an error of torch's for a full device into one that says what to change.

    Raises:
        DeviceError: In place of ``torch.OutOfMemoryError``.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _answer(state, error) from error


def _answer(state: TrainState, error: Exception) -> DeviceError:
    size = getattr(state.train, "batch_size", None)
    held = sum(one.numel() * one.element_size() for one in state.model.parameters())
    extra = sum(
        value.numel() * value.element_size()
        for optimizer in state.optimizers
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )
    batch = f"; a batch {shape(state.batch)}" if state.batch is not None else ""
    got = (
        f"weights and their gradients of {_megabytes(2 * held)}, an optimizer of {_megabytes(extra)}{batch}; "
        f"the rest are the activations, which grow with the batch ({str(error).splitlines()[0][:200]})"
    )
    return DeviceError(
        f"CV805: the memory of {state.runtime.device} is full",
        got=got,
        expected="a batch whose activations fit beside weights, gradients and optimizer",
        fix=_smaller(size, state.accumulate),
    )


def _smaller(size: object, accumulate: int) -> str:
    """Returns arguments that give the same update with half the batch, or what else makes it smaller."""
    other = 'precision="bf16" nearly halves the activations, too'
    if isinstance(size, int) and size > 1:
        half = next(size // parts for parts in range(2, size + 1) if size % parts == 0)
        return (
            f"batch_size={half} in the loader of train and fit(accumulate={accumulate * (size // half)}): the same update, "
            f"batch norm apart, which then sees {half} samples at a time; {other}"
        )
    if size == 1:
        return f"smaller images or a smaller model; {other}"
    return (
        f"half the samples in a batch and fit(accumulate={2 * accumulate}): the same update, batch norm apart; {other}"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"
