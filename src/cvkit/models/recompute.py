"""Less memory for more time: blocks that keep no activations for the backward pass, and compute them once more there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cvkit.arguments import check_integer
from cvkit.models.parts import find_blocks

__all__ = ["checkpoint_blocks"]


def checkpoint_blocks(model: nn.Module, *, every: int | None = 1) -> list[str]:
    """Makes blocks of a model compute their activations again in the backward pass instead of keeping them.

    This is gradient (activation) checkpointing. Gradients are equal to those without it: dropout draws the same numbers again,
    and the statistics of batch norms are updated once, by the first pass. It costs about one more forward pass of these
    blocks. Weights, their names and the files that hold them are not changed; without gradients nothing is different.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

    Args:
        model: A model, changed in place.
        every: 1 for every block of :func:`find_blocks` but the head's, 2 for every second, and so on; ``None`` takes it off.

    Returns:
        The paths of the modules that compute twice.

    Raises:
        ArgumentError: ``every`` below 1.
    """
    if every is not None:
        check_integer("every", every, fix="every=1")
    for module in model.modules():
        if getattr(vars(module).get("forward"), "func", None) is _recomputed:
            del module.forward
    if every is None:
        return []
    blocks = find_blocks(model)
    # the last block's activations are wanted at once
    paths = [path for block in blocks[: len(blocks) - 1 : every] for path in block if path]
    for path in paths:
        module = model.get_submodule(path)
        vars(module)["forward"] = partial(
            _recomputed, module
        )  # an attribute of the instance: a copy of the model has its own
    return paths


def _recomputed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Runs a module's forward so that its backward pass runs it again."""
    forward = partial(type(module).forward, module)
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _spare_buffers(module)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _spare_buffers(module: nn.Module) -> Iterator[None]:
    """Gives a module copies of its buffers inside: running statistics would be updated a second time."""
    held = [(one, dict(one._buffers)) for one in module.modules()]
    for one, buffers in held:
        one._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for one, buffers in held:
            one._buffers.update(buffers)
