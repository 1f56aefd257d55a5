"""Optimizers by name; fused where the device has it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from cvkit.arguments import check_number
from cvkit.errors import ArgumentError, UnknownNameError, unknown_name
from cvkit.registry import Registry, optimizer_libraries

__all__ = [
    "DEFAULT_LR",
    "current_lrs",
    "group_options",
    "optimizers",
    "ready_optimizers",
    "resolve_optimizers",
]

DEFAULT_LR = 1e-3

OptimizerFactory: TypeAlias = Callable[[list[Parameter]], "Optimizer | Sequence[Optimizer]"]

optimizers: Registry[Callable[..., Optimizer | list[Optimizer]]] = Registry("optimizer")
"""Optimizer builders by name: ``(params, lr) -> Optimizer``, or a list of them that share the parameters out."""

# A fused kernel updates all parameters in one go: 3 to 5 times faster a step than the default on a CPU too.
_FUSED_ON = ("cpu", "cuda", "mps")


def _fused(name: str, build: Callable[..., Optimizer], on: tuple[str, ...] = _FUSED_ON, **options: Any) -> None:
    def make(params: list[Parameter], lr: float) -> Optimizer:
        fused = all(p.device.type in on and p.is_floating_point() for p in params)
        return build(params, lr=lr, **options, **({"fused": True} if fused else {}))

    optimizers.register(name)(make)


class SGD(torch.optim.SGD):
    """torch's, that also takes parameters which get their first gradient later than others, as those unfrozen in between.

    Its fused step, as of torch 2.15, ends in a ``TypeError`` where some momentum is under way and some is not there yet; here
    that begins at zero, to the same effect.
    """

    def _init_group(self, group: Any, params: Any, grads: Any, momentum_buffer_list: Any) -> bool:
        sparse: bool = super()._init_group(group, params, grads, momentum_buffer_list)  # type: ignore[no-untyped-call]
        missing = [index for index, buffer in enumerate(momentum_buffer_list) if buffer is None]
        if 0 < len(missing) < len(momentum_buffer_list):
            for index in missing:
                momentum_buffer_list[index] = torch.zeros_like(params[index])
        return sparse


_fused("sgd", SGD)
_fused("momentum", SGD, momentum=0.9)
_fused("nesterov", SGD, momentum=0.9, nesterov=True)
_fused("adam", torch.optim.Adam)
_fused("adamw", torch.optim.AdamW)
_fused("adagrad", torch.optim.Adagrad, on=("cpu",))
_fused("rmsprop", torch.optim.RMSprop, on=())


@optimizers.register("muon")
def _muon(params: list[Parameter], lr: float) -> list[Optimizer]:
    """Builds torch's Muon over the weights of two dimensions, and AdamW over the rest.

    Muon's update is scaled to the size of AdamW's, so one learning rate and one decay suit both. Sources: Jordan et al., Muon,
    2024; Liu et al., Muon is Scalable for LLM Training, 2025 (arXiv:2502.16982), section 2.2.
    """
    flat = [one for one in params if one.ndim == 2]
    rest = [one for one in params if one.ndim != 2]
    if not flat:
        raise ArgumentError(
            "the optimizer muon has nothing to do",
            got=f"{len(rest)} parameters, none of two dimensions",
            expected="a model with linear layers or attention: Muon takes no convolutions, norms or biases",
            fix='pass optimizer="adamw"',
        )
    hidden = torch.optim.Muon(flat, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [hidden, *([torch.optim.AdamW(rest, lr=lr, weight_decay=0.01)] if rest else [])]


def resolve_optimizers(
    given: str | Optimizer | Sequence[Optimizer] | OptimizerFactory, model: nn.Module, lr: float
) -> list[Optimizer]:
    """Turns what ``fit`` got as ``optimizer`` into a list of optimizers over the model's parameters.

    Args:
        given: A name, also ``"timm:NAME"`` or ``"pytorch_optimizer:NAME"``, an optimizer, a sequence of them, or a factory
            ``params -> Optimizer``.
        model: The model, already on its device.
        lr: The learning rate, for a name.

    Raises:
        UnknownNameError: A name that is not known.
        ArgumentError: Nothing to train, a learning rate that would have no effect, or an optimizer of another model.
    """
    # frozen ones too: without a gradient an optimizer leaves them as they are, and it has them when they are unfrozen
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise ArgumentError(
            "the model has nothing to train",
            got=f"{type(model).__name__} with {len(parameters)} parameters, none with requires_grad",
            expected="at least one trainable parameter",
            fix="unfreeze a part of it, e.g. model.requires_grad_(True)"
            if parameters
            else "make its layers attributes in __init__, or put them into an nn.ModuleList or nn.ModuleDict: those in a "
            "Python list or dict, and those that forward makes, are no part of the model",
        )
    if isinstance(given, str):
        build = _builder(given)
        check_number("lr", lr, at_least=0, expected="a number of at least 0", fix="pass e.g. lr=1e-3")
        named = build(parameters, lr)
        return list(named) if isinstance(named, Sequence) else [named]
    if lr != DEFAULT_LR:
        raise ArgumentError(
            "lr has no effect beside an optimizer that brings its own",
            got=f"lr={lr} and {_named(given)}",
            expected="lr only with an optimizer given by name",
            fix="set the learning rate where the optimizer is built, e.g. optimizer=lambda p: torch.optim.SGD(p, lr=0.1)",
        )
    built = given(parameters) if callable(given) and not isinstance(given, Optimizer | Sequence) else given
    found = list(built) if isinstance(built, Sequence) else [built]
    for one in found:
        if not isinstance(one, Optimizer):
            raise ArgumentError(
                "optimizer cannot be used",
                got=repr(one),
                expected="a name, a torch.optim.Optimizer, a sequence of them, or a factory params -> Optimizer",
                fix='pass e.g. optimizer="adamw"',
            )
    _check_owned(found, model)
    _check_steps(found)
    return found


_IN_TIMM = ("adan", "lamb", "lars", "lion", "madgrad")
"""What users ask for without its library's name."""

_NOT_FOR_ALL = ("LBFGS", "Muon", "Optimizer", "SparseAdam")
"""What of ``torch.optim`` cannot train all parameters of an ordinary model by one step after each backward pass."""


def _builder(name: str) -> Callable[..., Optimizer | list[Optimizer]]:
    """Returns the builder of a name.

    Raises:
        UnknownNameError: There is none; one of torch's optimizers goes in by a factory.
    """
    if name in optimizers:
        return optimizers.get(name)
    if ":" in name:
        library, _, bare = name.partition(":")
        return functools.partial(optimizer_libraries.get(library), bare)
    if name in _IN_TIMM:
        raise UnknownNameError(
            f"unknown optimizer {name!r}",
            got="a name of timm's optimizers, which are not built in",
            expected=f"one of: {', '.join(optimizers.names())}; or timm:NAME, pytorch_optimizer:NAME",
            fix=f'pip install timm, and pass optimizer="timm:{name}"',
        )
    error = unknown_name("optimizer", name, optimizers.names())
    key = "".join(letter for letter in name.lower() if letter.isalnum())
    torchs = next((one for one in torch.optim.__all__ if one.lower() == key), None)
    if torchs is None or torchs in _NOT_FOR_ALL or torchs.lower() in optimizers:
        raise error
    raise UnknownNameError(
        f"unknown optimizer {name!r}",
        got=f"a name of torch.optim.{torchs}, which is not built in",
        expected=f"one of: {', '.join(optimizers.names())}; or a factory params -> Optimizer",
        fix=f"optimizer=lambda p: torch.optim.{torchs}(p, lr=…), and leave lr out",
    )


def current_lrs(optimizers: Sequence[Optimizer]) -> list[list[float | Tensor]]:
    """Returns the learning rate of each parameter group as it is set, one that is a tensor as a copy; waits for nothing."""
    return [
        [lr.clone() if isinstance(lr := group["lr"], Tensor) else lr for group in one.param_groups]
        for one in optimizers
    ]


def ready_optimizers(optimizer: Any) -> list[Optimizer]:
    """Returns the optimizers that were given as objects: those whose state must be left as it was."""
    several = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    return [one for one in several if isinstance(one, Optimizer)]


def group_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns the options of each parameter group, without its parameters."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def _check_steps(found: Iterable[Optimizer]) -> None:
    """Refuses an optimizer whose step wants to compute the loss itself, several times.

    Raises:
        ArgumentError: Such a one, as LBFGS.
    """
    for optimizer in found:
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise ArgumentError(
                f"the optimizer {type(optimizer).__name__} cannot be used",
                got="a step() that needs a closure, to compute the loss several times an update",
                expected="an optimizer whose step() follows one backward pass",
                fix="take another, or write its loop by hand around a cvkit.data.Loader",
            )


def _named(given: Any) -> str:
    """Returns what was given as an optimizer, without its forty lines of settings."""
    return f"an optimizer {type(given).__name__}" if isinstance(given, Optimizer) else f"optimizer={given!r:.80}"


def _check_owned(found: Iterable[Optimizer], model: nn.Module) -> None:
    """Refuses an optimizer that holds no parameter of the model: it would train something else."""
    own = {id(p) for p in model.parameters()}
    for optimizer in found:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        if not any(id(p) in own for p in held):
            raise ArgumentError(
                f"the optimizer {type(optimizer).__name__} holds no parameter of the model",
                got=f"{len(held)} parameters of something else",
                expected=f"parameters of the {type(model).__name__} given to fit",
                fix="build the optimizer after the model (and after replacing its layers), or pass a factory or a name",
            )
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                _follow(optimizer, parameter)


def _follow(optimizer: Optimizer, parameter: Parameter) -> None:
    """Moves an optimizer's tensors of one parameter to where the parameter is now."""
    state = optimizer.state.get(parameter)
    if not state:
        return
    for key, value in state.items():
        # "step" stays on the CPU unless the optimizer is fused or capturable, as in torch's own load_state_dict
        if isinstance(value, torch.Tensor) and key != "step":
            state[key] = value.to(parameter.device)
