"""Training that leaves no trace: everything that it changes is put back afterwards, whatever ends it."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvkit.training import loaders

__all__ = ["undone"]


@contextmanager
def undone(modules: Sequence[nn.Module], optimizers: Sequence[Optimizer], loader: Any) -> Iterator[None]:
    """Puts back on leaving what training inside has changed, also after an exception or Ctrl-C.

    That is: parameters, buffers, gradients and modes of the modules, and the device that they are on; settings and
    state of the optimizers and the parameters that they hold; every global random generator, those of the loader, and
    its place. It takes one copy of the weights. What lies elsewhere, e.g. in a Python attribute of a layer, is not
    seen.

    Inside, the gradients are ``None`` and the optimizers begin with a copy of their state.

    Args:
        modules: The model, and whatever else is trained or keeps statistics.
        optimizers: Ready-made optimizers; those built inside need not be undone.
        loader: The training batches.
    """
    random = loaders.random_state(loader)
    layers = [(one, one.training, dict(one._parameters), dict(one._buffers)) for m in modules for one in m.modules()]
    held = [(one, dict(vars(one)), [dict(group) for group in one.param_groups]) for one in optimizers]
    tensors = [
        (tensor, tensor.data, tensor.data.clone(), tensor.grad if tensor.is_leaf else None)
        for tensor in _tensors(modules, optimizers)
    ]
    try:
        for tensor, *_ in tensors:
            tensor.grad = None
        for optimizer in optimizers:
            _lend_state(optimizer)
        with loaders.keeps_place(loader):
            yield
    finally:
        _put_back(tensors)
        for layer, training, parameters, buffers in layers:
            layer.training = training
            layer._parameters.update(parameters)
            layer._buffers.update(buffers)
        for optimizer, attributes, groups in held:
            vars(optimizer).clear()
            vars(optimizer).update(attributes)
            for group, saved in zip(optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(saved)
        loaders.restore_random(loader, random)


def _tensors(modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> list[Tensor]:
    """Returns each parameter and buffer once."""
    found = {id(one): one for module in modules for one in (*module.parameters(), *module.buffers())}
    found |= {id(one): one for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]}
    return list(found.values())


def _put_back(tensors: list[tuple[Tensor, Tensor, Tensor, Tensor | None]]) -> None:
    """Gives each tensor its memory back, which may lie on another device than it is on now, with what it held."""
    with torch.no_grad():
        for tensor, memory, values, gradient in tensors:
            memory.copy_(values)
            tensor.data = memory
            if tensor.is_leaf:
                tensor.grad = gradient


def _lend_state(optimizer: Optimizer) -> None:
    """Gives an optimizer a copy of its state to work on; a learning rate that is a tensor is set in place."""
    state: collections.defaultdict[Any, Any] = collections.defaultdict(dict)
    for key, values in optimizer.state.items():
        state[key] = {name: copy.deepcopy(value) for name, value in values.items()}
    optimizer.state = state
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].clone()
