"""A model from a description that is not trusted: no larger than the weights that the same file holds.

It is built twice. The first time all of its tensors are on the meta device, where they have shapes and no values: what does not
fit the weights, or is larger than they are, is refused before it takes any memory. The second time it is built to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cvkit.errors import CheckpointError, CvkitError, MissingDependencyError
from cvkit.models import from_config
from cvkit.plain_values import line
from cvkit.serialization import state_dicts

__all__ = ["build", "load_weights"]

_FREE = 1 << 26
"""Bytes that a model may take beyond its weights: buffers that are not saved, and what a builder computes on its way."""

_TIMES = 4
"""How many times larger than in the file weights may be in memory; half precision becomes float32."""

_CALLS, _CALLS_A_WEIGHT = 2_000, 100
"""Calls of torch's functions that building may take. The models of torchvision take at most 12 for each of their weights."""

_DRAWS = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.log_normal_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_, nn.init.orthogonal_, nn.init.sparse_),
    *(nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.xavier_uniform_),
}
"""What gives weights their first, random values. They are zeros here: those of the file replace them."""


class _TooLargeError(Exception):
    """What is being built is larger than the file's weights."""


class _Bounded(TorchFunctionMode):
    """Stops a builder that makes more than the weights of a file have, and leaves out the random values of weights.

    Args:
        held: Bytes of the file's weights.
        count: How many they are.
    """

    def __init__(self, held: int, count: int) -> None:
        super().__init__()
        self.most = _FREE + _TIMES * held
        self.calls = _CALLS + _CALLS_A_WEIGHT * count
        self.taken = 0
        self.counted: set[int] = set()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise _TooLargeError("many more layers than the file has weights for")
        if function in _DRAWS:
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, nn.Parameter):
                return target if target.is_meta else _zeroed(target)
        made = function(*args, **(kwargs or {}))
        if type(made) is Tensor and made.layout is torch.strided and not made.is_nested:
            self._count(made)
        return made

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        if storage.nbytes() > self.most:
            raise _TooLargeError(f"a tensor of {storage.nbytes()} bytes")
        if not made.is_meta and storage._cdata not in self.counted:
            self.counted.add(storage._cdata)
            self.taken += storage.nbytes()
            if self.taken > self.most:
                raise _TooLargeError(f"tensors of {self.taken} bytes")


def _zeroed(weight: nn.Parameter) -> nn.Parameter:
    with torch.no_grad():
        weight.zero_()
    return weight


def build(config: Mapping[str, Any], state: Mapping[str, Any], path: str | Path) -> nn.Module:
    """Builds the model that a file describes, with the file's weights.

    Args:
        config: The description, see :func:`cvkit.models.from_config`.
        state: The weights by name.
        path: The file, for messages.

    Raises:
        CheckpointError: No model can be built from this, or it is not that of the weights.
        MissingDependencyError: It needs a package that is not installed.
    """
    held, count = state_dicts.bytes_held(state), len(state)
    try:
        skeleton = _skeleton(config, held, count)
        if skeleton is not None:
            _compare(skeleton, state, _FREE + _TIMES * held, path)
            del skeleton
        with _Bounded(held, count):
            model = from_config(config)
    except CheckpointError:
        raise
    except MissingDependencyError as error:
        raise MissingDependencyError(f"{path}: {error}") from error
    # what was chosen to do harm makes builders raise whatever they stumble over
    except Exception as error:
        raise _unbuildable(error, path) from error
    load_weights(model, state, path)
    return model


def _skeleton(config: Mapping[str, Any], held: int, count: int) -> nn.Module | None:
    """Builds a model without values; ``None`` for one that needs some while it is built."""
    try:
        with torch.device("meta"), _Bounded(held, count):
            return from_config(config)
    except Exception as error:
        if _needs_values(error):
            return None
        raise


def _needs_values(error: BaseException) -> bool:
    """Whether an operation has failed because a tensor on the meta device has no values."""
    while error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, NotImplementedError | RuntimeError) and "meta" in str(error)


def _compare(skeleton: nn.Module, state: Mapping[str, Any], most: int, path: str | Path) -> None:
    """Compares a model without values with the weights that it is to have.

    Raises:
        CheckpointError: It is far larger than they are, or they do not fit.
    """
    own = chain(skeleton.parameters(), skeleton.buffers())
    size = sum(one.untyped_storage().nbytes() for one in own if one.layout is torch.strided)
    if size > most:
        raise _unbuildable(_TooLargeError(f"a model of {size} bytes"), path)
    try:
        load_weights(skeleton, state, path, assign=True)
    except CheckpointError as error:
        if error.__cause__ is None or not _needs_values(error):  # a module's own way to load may need values too
            raise


def load_weights(model: nn.Module, state: Mapping[str, Any], path: str | Path, *, assign: bool = False) -> None:
    """Loads the weights of a file into a model.

    Args:
        model: The model.
        state: The weights by name.
        path: The file, for messages.
        assign: Whether the tensors themselves become the model's, instead of being copied.

    Raises:
        CheckpointError: They do not fit.
    """
    odd = state_dicts.unusable_tensor(state, model.state_dict())
    error: Exception | None = None
    if odd is None:
        try:
            model.load_state_dict(dict(state), assign=assign)
            return
        # a module loads as it likes, and a file made to do harm makes it raise whatever it stumbles over
        except Exception as failed:
            error = failed
    raise CheckpointError(
        f"the weights in {path} do not fit the model",
        got=odd if error is None else line(str(error)),
        expected=f"the weights of this {type(model).__name__}",
        fix="pass the model that the run was made with: cvkit.load(path, model=…)",
    ) from error


def _unbuildable(error: Exception, path: str | Path) -> CheckpointError:
    if isinstance(error, CvkitError):
        said = ", ".join(part.strip() for part in str(error).splitlines()[:2])
    else:
        said = str(error) if isinstance(error, _TooLargeError) else f"{type(error).__name__}: {error}"
    return CheckpointError(
        f"the model that {path} describes cannot be built",
        got=line(said),
        expected="the name of a model and arguments of its architecture, of the size of the weights in the file",
        fix="use another checkpoint of the run, or build the model yourself and pass it: cvkit.load(path, model=…); do "
        "not trust the file if it comes from elsewhere",
    )
