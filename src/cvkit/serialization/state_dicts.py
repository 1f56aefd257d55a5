"""Plain weights in files, as the ecosystem writes them: read without running anything in them, and checked as far as can be."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeGuard

import torch
from torch import Tensor

from cvkit.errors import MissingDependencyError, ModelError
from cvkit.serialization import archive

__all__ = ["bare", "bytes_held", "matched", "read", "safetensors", "unusable_tensor"]

_WRITE_IT = "write it with cvkit.save_weights(model, path) or torch.save(model.state_dict(), path)"
_NESTS = ("model", "state_dict", "model_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")
_SMALL = 1 << 26
"""Bytes below which it does not matter that a tensor claims more of them than it has."""


def safetensors(path: Path) -> Any:
    """Returns the package that reads and writes ``.safetensors`` files.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import safetensors.torch as package
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} needs safetensors",
            got=str(error),
            expected="the package safetensors",
            fix='pip install "cvkit[safetensors]"',
        ) from error
    return package


def read(path: Path) -> dict[str, Any]:
    """Reads a state dict from a file; nothing in the file is run.

    It may be one that ``torch.save(model.state_dict(), path)`` wrote, a safetensors file, a checkpoint of ``fit``, or a
    dictionary that holds the weights under ``"model"``, ``"state_dict"`` or ``"model_state_dict"``, as other trainers write it.
    cvkit's own files are compared with their SHA-256, other archives of torch's with the CRC of each record. A file in torch's
    format from before 1.6, and a safetensors file, hold no checksum.

    Args:
        path: The file.

    Returns:
        The weights by their names in the file, on the CPU.

    Raises:
        ModelError: No such file, a damaged one, or one that holds no weights; it is named.
        MissingDependencyError: A safetensors file, and the package is not installed.
    """
    try:
        with open(path, "rb") as file:
            if archive.is_safetensors(file):
                content = safetensors(path).load(_check_integer(file))
            else:
                _check(file, path)
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except FileNotFoundError:
        there = sorted(one.name for one in path.parent.iterdir() if one.is_file()) if path.parent.is_dir() else []
        raise _unusable(
            path,
            "no such file" + (f"; beside it: {', '.join(there[:5])}" if there else ""),
            "check the path",
        ) from None
    except (ModelError, MissingDependencyError):
        raise
    # a file made to do harm makes the readers raise whatever they stumble over
    except Exception as error:
        got, fix = (archive.foreign(path) if path.is_file() else None) or (archive.reason(error)[:300], _WRITE_IT)
        raise _unusable(path, got, fix) from error
    return _found(content, path)


def _check_integer(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _check(file: IO[bytes], path: Path) -> None:
    """Compares an archive with its checksums; ``torch.load`` looks at none.

    Raises:
        ModelError: They do not fit.
    """
    sealed = archive.seal(file)
    if sealed is not None and not archive.intact(file, sealed):
        raise _damaged(path, "bytes that do not fit its checksum")
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        return
    if excess := archive.excess(file, os.fstat(file.fileno()).st_size):
        got, fix = archive.foreign(path) or (excess, _WRITE_IT)
        raise _unusable(path, got, fix)
    if sealed is None:
        with zipfile.ZipFile(file) as records:
            if wrong := records.testzip():
                raise _damaged(path, f"bytes of {wrong!r} that do not fit their CRC")
            if records.comment.startswith(archive.MAGIC):
                raise _damaged(path, "its end is missing")


def _damaged(path: Path, how: str) -> ModelError:
    return _unusable(path, f"a damaged file: {how}", "copy it again from where it came")


def _found(content: Any, path: Path) -> dict[str, Any]:
    """Returns the weights in what a file holds."""
    nests = [content, *(content.get(nest) for nest in _NESTS)] if isinstance(content, Mapping) else []
    for one in nests:
        if _is_state(one):
            return dict(one)
    held = f"a dictionary of {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, Mapping) else None
    raise _unusable(path, held or type(content).__name__, _WRITE_IT)


def _is_state(content: object) -> TypeGuard[Mapping[str, Any]]:
    return (
        isinstance(content, Mapping)
        and all(isinstance(key, str) for key in content)
        and any(isinstance(value, Tensor) for value in content.values())
    )


def _unusable(path: Path, got: str, fix: str) -> ModelError:
    return ModelError(
        f"the weights in {path} cannot be used",
        got=got,
        expected="a state dict: a dictionary of tensors by name, in torch's or the safetensors format",
        fix=fix,
    )


def bare(name: str) -> str:
    """Returns the name of a weight without what ``DataParallel``, DDP and ``torch.compile`` put before it."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name.replace("._orig_mod.", ".")


def matched(state: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Returns weights by the names that a model has for them.

    What wrappers put before a name goes, as far as more of the names then fit: a model may have a submodule that is called as a
    wrapper's is. Where the names then fit no better than by chance, because the model was an attribute of something, as
    Lightning's ``self.model``, the prefix goes that makes the most of them fit.

    Args:
        state: Weights by the names in the file.
        wanted: The names that the model has.
    """
    names = set(wanted)
    readings = list(_readings(state))
    named = max(readings, key=lambda one: len(names & one.keys()))  # the first of several: as little as possible goes
    if names & named.keys():
        return named
    named = readings[-1]
    prefixes = {name[: place + 1] for name in named for place, sign in enumerate(name) if sign == "."}
    scores = {prefix: sum(f"{prefix}{name}" in named for name in names) for prefix in prefixes}
    best = max(sorted(scores), key=lambda prefix: scores[prefix], default="")
    if not best or not scores[best]:
        return named
    return {name.removeprefix(best): value for name, value in named.items()}


def _readings(state: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields weights as they are named, and without one wrapper after the other, as long as no two get the same name."""
    one = dict(state)
    while len(one) == len(state):
        yield one
        inner = {_without_one(name): value for name, value in one.items()}
        if inner.keys() == one.keys():
            return
        one = inner


def _without_one(name: str) -> str:
    wrapper = next((wrapper for wrapper in _WRAPPERS if name.startswith(wrapper)), "")
    return name.removeprefix(wrapper).replace("._orig_mod.", ".")


def unusable_tensor(state: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Returns the first weight that is of another kind than the model's own; ``None`` where there is none.

    A sparse, quantized, nested or complex tensor is no value for a plain weight: some are refused by torch in words of its own,
    a complex one is taken without its imaginary part. A tensor without values (on the meta device) is none for any, nor is one
    that repeats few values (a stride of 0) to a size that the file does not hold.

    Args:
        state: The weights by name.
        own: The model's own, of which those with the same name are compared.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        kind, wanted = _kind(value), _kind(own[name]) if isinstance(own.get(name), Tensor) else "a plain tensor"
        if value.is_meta:
            return f"{name}: a tensor without values"
        if kind != wanted:
            return f"{name}: {kind} for {wanted}"
        if kind == "a plain tensor" and _claimed(value) > max(_SMALL, value.untyped_storage().nbytes()):
            return f"{name}: {_claimed(value)} bytes, of which the file holds {value.untyped_storage().nbytes()}"
    return None


def _kind(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.layout is not torch.strided:
        return f"a tensor of the layout {str(tensor.layout).removeprefix('torch.')}"
    return "a complex tensor" if tensor.is_complex() else "a plain tensor"


def _claimed(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def bytes_held(state: Mapping[str, Any]) -> int:
    """Returns how many bytes of values the plain tensors in a state dict have; those that several of them share count once."""
    held: dict[int, int] = {}
    for value in state.values():
        if isinstance(value, Tensor) and not value.is_meta and _kind(value) in ("a plain tensor", "a complex tensor"):
            storage = value.untyped_storage()
            held[storage._cdata] = storage.nbytes()
    return sum(held.values())
