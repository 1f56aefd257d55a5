"""timm's optimizers as ``"timm:NAME"``, where timm is installed: lion, lamb, lars, adan and some ninety more."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer

from cvkit.errors import ArgumentError, MissingDependencyError, unknown_name
from cvkit.registry import optimizer_libraries

__all__ = ["build"]


@optimizer_libraries.register("timm")
def build(name: str, params: list[Parameter], lr: float) -> Optimizer:
    """Builds an optimizer of timm's, with its own settings; nothing decays.

    Args:
        name: timm's name, e.g. ``"lion"``.
        params: The parameters.
        lr: Learning rate.

    Raises:
        MissingDependencyError: timm, or what an optimizer of its own needs, is not installed.
        UnknownNameError: A name that timm does not know.
        ArgumentError: One that needs second derivatives.
    """
    try:
        import timm.optim
    except ImportError as error:
        raise _missing(name, error, "timm") from error
    optim: Any = timm.optim
    known = list(optim.list_optimizers())
    if name not in known:
        raise unknown_name("optimizer of timm's", name, known)
    info: Any = optim.get_optimizer_info(name)
    if info.second_order:
        raise ArgumentError(
            f"the optimizer 'timm:{name}' cannot be used",
            got="one that needs second derivatives",
            expected="an optimizer whose step() follows one backward pass",
            fix='take another, e.g. optimizer="timm:lamb"',
        )
    try:
        built: Optimizer = optim.create_optimizer_v2(params, opt=name, lr=lr)
    except (ImportError, AssertionError, RuntimeError) as error:  # timm asserts what its bnb… and fused… need
        raise _missing(name, error, "what this optimizer needs") from error
    return built


def _missing(name: str, error: Exception, package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"the optimizer 'timm:{name}' needs {package}",
        got=str(error),
        expected="the package timm" if package == "timm" else "an optimizer that this machine can run",
        fix="pip install timm" if package == "timm" else 'install it, or take another, e.g. optimizer="timm:lion"',
    )
