"""Optimizers and learning-rate schedules by name; fused where the device has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from cvkit.arguments import check_number
from cvkit.errors import ArgumentError, UnknownNameError, unknown_name
from cvkit.registry import Registry

__all__ = [
    "DEFAULT_LR",
    "current_lrs",
    "group_options",
    "optimizers",
    "resolve_optimizers",
    "resolve_schedules",
    "schedules",
]

DEFAULT_LR = 1e-3

OptimizerFactory: TypeAlias = Callable[[list[Parameter]], "Optimizer | Sequence[Optimizer]"]
ScheduleFactory: TypeAlias = Callable[[Optimizer, int], LRScheduler]

optimizers: Registry[Callable[..., Optimizer]] = Registry("optimizer")
"""Optimizer builders by name: ``(params, lr, fused) -> Optimizer``."""

schedules: Registry[ScheduleFactory] = Registry("schedule")
"""Schedule builders by name: ``(optimizer, total_steps) -> LRScheduler``, stepped at each update."""

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


def resolve_optimizers(
    given: str | Optimizer | Sequence[Optimizer] | OptimizerFactory, model: nn.Module, lr: float
) -> list[Optimizer]:
    """Turns what ``fit`` got as ``optimizer`` into a list of optimizers over the model's parameters.

    Args:
        given: A name, an optimizer, a sequence of them, or a factory ``params -> Optimizer``.
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
        return [build(parameters, lr)]
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


_NOT_FOR_ALL = ("LBFGS", "Muon", "Optimizer", "SparseAdam")
"""What of ``torch.optim`` cannot train all parameters of an ordinary model by one step after each backward pass."""


def _builder(name: str) -> Callable[..., Optimizer]:
    """Returns the builder of a name.

    Raises:
        UnknownNameError: There is none; one of torch's optimizers goes in by a factory.
    """
    if name in optimizers:
        return optimizers.get(name)
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


@schedules.register("cosine")
def _cosine(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)


@schedules.register("onecycle")
def _onecycle(optimizer: Optimizer, total: int) -> LRScheduler:
    knows = "momentum" in optimizer.defaults or "betas" in optimizer.defaults  # torch refuses to turn what is not there
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=total, cycle_momentum=knows)


@schedules.register("poly")
def _poly(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.PolynomialLR(optimizer, total_iters=total, power=0.9)  # Chen et al., DeepLab, 2017


@schedules.register("step")
def _step(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.StepLR(optimizer, step_size=max(1, -(-total // 3)), gamma=0.1)


@schedules.register("linear")
def _linear(optimizer: Optimizer, total: int) -> LRScheduler:
    return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=total)


def resolve_schedules(
    given: str | ScheduleFactory | LRScheduler | None, found: Sequence[Optimizer], total: int
) -> list[LRScheduler]:
    """Turns what ``fit`` got as ``schedule`` into one scheduler an optimizer.

    Args:
        given: A name, a factory ``(optimizer, total_steps) -> LRScheduler``, or nothing.
        found: The optimizers.
        total: The number of updates of the whole run.

    Raises:
        UnknownNameError: A name that is not known.
        ArgumentError: A ready-made scheduler (it does not say how often it wants to be stepped), or no scheduler at all.
    """
    if given is None:
        return []
    if isinstance(given, LRScheduler):
        raise ArgumentError(
            "schedule got a ready-made scheduler, which does not say how often it is to be stepped",
            got=type(given).__name__,
            expected="a name, or a factory (optimizer, total_steps) -> LRScheduler",
            fix='pass callbacks=[LRSchedule(scheduler, every="step")] (or every="epoch") and leave schedule out',
        )
    build = schedules.get(given) if isinstance(given, str) else given
    if not callable(build):
        raise ArgumentError(
            "schedule cannot be used", got=repr(given), expected="a name or a factory", fix='try "cosine"'
        )
    built = [build(optimizer, total) for optimizer in found]
    for one in built:
        if not isinstance(one, LRScheduler):
            raise ArgumentError(
                "the schedule factory did not give a scheduler",
                got=repr(one),
                expected="a torch.optim.lr_scheduler.LRScheduler",
                fix="return the scheduler: schedule=lambda optimizer, total: CosineAnnealingLR(optimizer, total)",
            )
    return built
