"""Plain weights in and out, in the ecosystem's own formats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cvkit.calls import warn
from cvkit.errors import CheckpointError, ModelError
from cvkit.module_state import unwrap
from cvkit.serialization import state_dicts
from cvkit.serialization.checkpoint import place, plain, save_checkpoint

__all__ = ["load_weights", "save_weights"]

M = TypeVar("M", bound=nn.Module)


def save_weights(model: nn.Module, path: str | Path) -> Path:
    """Writes the weights of a model to a file that every program of the ecosystem reads.

    A path that ends in ``.safetensors`` is written in that format. Any other is what ``torch.save(model.state_dict(), path)``
    writes, with cvkit's checksum after it: ``model.load_state_dict(torch.load(path, weights_only=True))`` reads it. Names are
    those of the module itself, without ``module.`` or ``_orig_mod.`` of a wrapper. As with a checkpoint, the file under
    ``path`` is always whole.

    Args:
        model: Any module.
        path: The file's name; its directory is made if missing.

    Returns:
        The path.

    Raises:
        CheckpointError: A state that holds more than tensors and plain types, or a disk that does not take the file.
        MissingDependencyError: A safetensors file, and the package is not installed.
    """
    path = Path(path)
    state = {_own_name(name): value for name, value in unwrap(model).state_dict().items()}
    if path.suffix != ".safetensors":
        return save_checkpoint(path, state)
    package = state_dicts.safetensors(path)
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(
            f"{odd[0]!r} cannot go into a safetensors file",
            got=type(state[odd[0]]).__name__,
            expected="tensors only",
            fix="save it to a .pt file",
        )
    # the format wants each tensor in memory of its own; what shares some, as tied weights do, is written for each name
    tensors = {
        name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in plain(state, "state").items()
    }
    written: bytes = package.save(tensors, metadata={"format": "pt"})
    return place(
        path, lambda temporary: _write(temporary, written), lambda temporary: _compare(temporary, written), "weights"
    )


def _own_name(name: str) -> str:
    """Returns the name that a weight has where no submodule is compiled."""
    return name.replace("._orig_mod.", ".")


def _write(path: Path, written: bytes) -> None:
    with open(path, "xb") as file:
        file.write(written)
        file.flush()
        os.fsync(file.fileno())


def _compare(path: Path, written: bytes) -> None:
    if path.read_bytes() != written:
        raise CheckpointError(
            f"{path} is damaged", got="other bytes", expected="those that were written", fix="check the disk"
        )


def load_weights(model: M, path: str | Path, *, strict: bool = True) -> M:
    """Reads weights from a file into a model, in place; nothing in the file is run.

    Files of :func:`save_weights`, of ``torch.save(model.state_dict(), path)``, safetensors files, checkpoints of ``fit`` and of
    other trainers (weights under ``"state_dict"`` or ``"model_state_dict"``) are understood, and prefixes such as ``module.``,
    ``_orig_mod.`` or ``model.`` are taken off where the model does not have them.

    Args:
        model: The module, or one wrapped by DDP or ``torch.compile``.
        path: The file.
        strict: Whether every weight must have its counterpart. ``False`` loads those that fit, and warns of the others.

    Returns:
        The same model.

    Raises:
        ModelError: No such file, a damaged one, a whole pickled model (it says how to convert it), or weights that do not
            fit: what is missing, too much, or of another shape is named, and the model is as before.
        MissingDependencyError: A safetensors file, and the package is not installed.
    """
    path = Path(path)
    inner = unwrap(model)
    own = inner.state_dict()
    names = {_own_name(name): name for name in own}
    state = state_dicts.matched(state_dicts.read(path), names)
    other = {name: value for name, value in state.items() if name in names and not _fits(value, own[names[name]])}
    missing = [name for name in names if name not in state]
    surplus = [name for name in state if name not in names]
    differing = [f"{name} {_shape(value)} for {_shape(own[names[name]])}" for name, value in other.items()]
    told = "; ".join(
        f"{kind}: {_listed(found)}"
        for kind, found in (("missing", missing), ("not in the model", surplus), ("of another shape", differing))
        if found
    )
    if odd := state_dicts.unusable_tensor({names.get(name, name): value for name, value in state.items()}, own):
        raise ModelError(
            f"the weights in {path} cannot be used",
            got=odd,
            expected=f"tensors of the same kind as those of this {type(inner).__name__}",
            fix="save them as plain tensors: to_dense(), dequantize(), contiguous()",
        )
    good = {names[name]: value for name, value in state.items() if name in names and name not in other}
    if told and (strict or not good):
        raise ModelError(
            f"the weights in {path} do not fit this {type(inner).__name__}",
            got=told,
            expected=f"its {len(names)} weights, by name and shape",
            fix="build the model that they were saved from, or load those that fit with strict=False",
        )
    if told:
        warn(f"{len(good)} of {len(names)} weights were loaded from {path}; {told}")
    inner.load_state_dict(good, strict=False)
    return model


def _fits(value: object, own: object) -> bool:
    return not isinstance(own, Tensor) or (isinstance(value, Tensor) and value.shape == own.shape)


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _listed(names: list[str] | Mapping[str, Any]) -> str:
    shown = list(names)[:4]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
