"""Leaving a module as it was: mode, weights, gradients, hooks and random generators, whatever happens in between."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvkit import seeding

__all__ = ["Scope", "evaluation_mode", "train_mode", "unchanged", "unwrap", "with_weights"]

Scope: TypeAlias = Literal["modes", "buffers", "weights"]

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where ``nn.Module`` keeps its hooks."""


@contextmanager
def unchanged(
    *modules: nn.Module,
    scope: Scope = "weights",
    optimizers: Sequence[Optimizer] = (),
    generators: Sequence[torch.Generator] = (),
) -> Iterator[None]:
    """Puts back on leaving what happens inside to modules, also after an exception or Ctrl-C.

    Always: the mode of each submodule, ``requires_grad`` of each parameter, hooks, and every global random generator. What
    lies elsewhere, e.g. in a Python attribute of a layer, is not seen.

    Args:
        modules: The modules.
        scope: What else is put back. ``"modes"``: nothing, which costs no copy. ``"buffers"``: the values of the buffers, e.g.
            running statistics. ``"weights"``: parameters and buffers, the device that they are on, and gradients, which are
            ``None`` inside; it takes one copy of the weights.
        optimizers: For ``"weights"``: optimizers whose settings and state are put back, too. Inside they begin with a copy of
            their state.
        generators: Further generators to put back, e.g. those of a loader.
    """
    layers = list(dict.fromkeys(layer for module in modules for layer in module.modules()))
    drawn = [(generator, generator.get_state()) for generator in generators]
    with ExitStack() as stack:
        for generator, state in drawn:
            stack.callback(generator.set_state, state)
        stack.enter_context(seeding.preserved())
        stack.enter_context(_structure(layers))
        if scope == "buffers":
            stack.enter_context(_values([buffer for module in modules for buffer in module.buffers()]))
        elif scope == "weights":
            stack.enter_context(_settings(optimizers))
            stack.enter_context(_weights(_tensors(modules, optimizers)))
        yield


@contextmanager
def evaluation_mode(*modules: nn.Module, scope: Scope = "modes") -> Iterator[None]:
    """Puts modules into evaluation mode inside; see :func:`unchanged` for what is put back afterwards.

    Each submodule's flag is set directly: a ``train()`` that a module overrides is not called.
    """
    with unchanged(*modules, scope=scope):
        for module in modules:
            for layer in module.modules():
                layer.training = False
        yield


@contextmanager
def with_weights(model: nn.Module, weights: Mapping[str, Any] | None) -> Iterator[None]:
    """Puts other weights into a model inside, e.g. averaged ones; its own are back afterwards.

    Args:
        model: The model.
        weights: A state dict that fits; ``None`` changes nothing.
    """
    if weights is None:
        yield
        return
    own = copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    try:
        yield
    finally:
        model.load_state_dict(own)


def train_mode(model: nn.Module) -> None:
    """Puts a model into training mode, all but what :func:`cvkit.models.freeze` has frozen.

    A frozen batch norm in training mode would still move its statistics.
    """
    model.train()
    for module in model.modules():
        if getattr(module, "cvkit_frozen", False):
            module.eval()


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the module inside ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def _structure(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Puts back modes, hooks, which tensors are registered, and which of them take gradients."""
    modes = [(layer, layer.training) for layer in layers]
    # a script module keeps what it has in C++ and takes no hooks
    before = [
        (layer, {name: copy.copy(vars(layer)[name]) for name in _HOOKS if name in vars(layer)}, _registered(layer))
        for layer in layers
        if not isinstance(layer, torch.jit.ScriptModule)
    ]
    trained = [(one, one.requires_grad) for layer in layers for one in layer.parameters(recurse=False)]
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
        for layer, hooks, (parameters, buffers) in before:
            for name, entries in hooks.items():
                current = vars(layer)[name]
                current.clear()
                current.update(entries)
            layer._parameters.update(parameters)
            layer._buffers.update(buffers)
        for parameter, wanted in trained:
            parameter.requires_grad_(wanted)


def _registered(layer: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(layer._parameters), dict(layer._buffers)


@contextmanager
def _values(tensors: Sequence[Tensor]) -> Iterator[None]:
    saved = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in saved:
                tensor.copy_(values)


@contextmanager
def _weights(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Gives each tensor its memory back, which may lie on another device than it is on by then, with what it held."""
    saved = [(one, one.data, one.data.clone(), one.grad if one.is_leaf else None) for one in tensors]
    for tensor, *_ in saved:
        tensor.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, memory, values, gradient in saved:
                memory.copy_(values)
                tensor.data = memory
                if tensor.is_leaf:
                    tensor.grad = gradient


@contextmanager
def _settings(optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """Puts back the settings and the state of optimizers, which work on a copy of their state inside."""
    held = [(one, dict(vars(one)), [dict(group) for group in one.param_groups]) for one in optimizers]
    try:
        for optimizer in optimizers:
            _lend_state(optimizer)
        yield
    finally:
        for optimizer, attributes, groups in held:
            vars(optimizer).clear()
            vars(optimizer).update(attributes)
            for group, saved in zip(optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(saved)


def _lend_state(optimizer: Optimizer) -> None:
    """Gives an optimizer a copy of its state to work on; a learning rate that is a tensor is set in place."""
    state: collections.defaultdict[Any, Any] = collections.defaultdict(dict)
    for key, values in optimizer.state.items():
        state[key] = {name: copy.deepcopy(value) for name, value in values.items()}
    optimizer.state = state
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].clone()


def _tensors(modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> list[Tensor]:
    """Returns each parameter and buffer once."""
    found = {id(one): one for module in modules for one in (*module.parameters(), *module.buffers())}
    found |= {id(one): one for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]}
    return list(found.values())
