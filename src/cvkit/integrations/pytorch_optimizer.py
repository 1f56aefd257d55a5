"""The optimizers of pytorch-optimizer as ``"pytorch_optimizer:NAME"``, where it is installed: schedule-free ones and more."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer

from cvkit.errors import ArgumentError, MissingDependencyError, unknown_name
from cvkit.registry import optimizer_libraries

__all__ = ["build"]


@optimizer_libraries.register("pytorch_optimizer")
def build(name: str, params: list[Parameter], lr: float) -> Optimizer:
    """Builds an optimizer of pytorch-optimizer, with its own settings.

    Args:
        name: Its name, e.g. ``"schedulefreeadamw"``.
        params: The parameters.
        lr: Learning rate.

    Raises:
        MissingDependencyError: pytorch-optimizer is not installed.
        UnknownNameError: A name that it does not know.
        ArgumentError: One that takes more than parameters and a learning rate, as those that wrap another optimizer.
    """
    try:
        import pytorch_optimizer as library
    except ImportError as error:
        raise MissingDependencyError(
            f"the optimizer 'pytorch_optimizer:{name}' needs pytorch-optimizer",
            got=str(error),
            expected="the package pytorch-optimizer",
            fix="pip install pytorch-optimizer",
        ) from error
    known = list(library.get_supported_optimizers())
    if name not in known:
        raise unknown_name("optimizer of pytorch-optimizer", name, known)
    kind: Any = library.load_optimizer(name)
    try:
        built: Optimizer = kind(params, lr=lr)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"the optimizer 'pytorch_optimizer:{name}' cannot be built by its name",
            got=f"{type(error).__name__}: {error}",
            expected="one that takes parameters and a learning rate",
            fix=f'import pytorch_optimizer, and pass optimizer=lambda p: pytorch_optimizer.load_optimizer("{name}")(p, lr=…)',
        ) from error
    return built
