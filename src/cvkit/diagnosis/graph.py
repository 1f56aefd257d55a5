"""The autograd graph of a loss: which tensors it starts from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["leaves"]

MOST_NODES = 200_000
"""As many operations are looked at."""


def leaves(loss: Any) -> list[Tensor]:
    """Returns the tensors that the gradient of a loss goes to, each once.

    Args:
        loss: A loss with its graph; anything else has no leaves.
    """
    if not isinstance(loss, Tensor) or loss.grad_fn is None:
        return []
    found: list[Tensor] = []
    seen: set[Any] = {None}
    waiting: list[Any] = [loss.grad_fn]
    while waiting and len(seen) < MOST_NODES:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found.append(variable)
        waiting += [one for one, _ in node.next_functions]
    return found
