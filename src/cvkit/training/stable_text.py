"""What an object is, as text that is the same in every process: by which two runs are compared.

A default ``repr`` holds an address, a pickle runs code, and a path says where somebody keeps the files. What is read here
instead: the names of classes and functions, attributes that are plain values or tensors, and a digest of the code of what is
not part of a library.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Description", "describe", "digest", "plain_text"]

PYTHON = f"{sys.implementation.cache_tag}{'-O' * sys.flags.optimize}"
"""What the code of a function is compiled for; code for another Python is not compared."""

_SHOWN = 16
"""How many numbers of a tensor, or members of a list, are written out; of more there is a digest."""

_LONG = 160
"""How many characters of a value are written out."""

_DEEP = 12

_OPERATORS = {"__call__"}
"""Methods with underscores that decide what an object does."""

_DOCSTRING = 0x4000000
"""The flag of code, from Python 3.13 on, whose first constant is a docstring."""


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """What an object is.

    Attributes:
        shape: The names of what it is made of, e.g. ``"Compose([Resize, Normalize])"``.
        values: Its plain attributes as text, by their path, e.g. ``{"transforms[0].size": "[224]"}``.
        code: A digest of the code in it that is not part of a library, with the Python it is for; empty where there is none.
    """

    shape: str
    values: dict[str, str]
    code: str


def describe(value: object) -> Description:
    """Describes an object."""
    reader = _Reader()
    shape = reader.read(value, "")
    code = f"{PYTHON} {digest(''.join(reader.code))}" if reader.code else ""
    return Description(shape or reader.values.pop(""), reader.values, code) if value is not None else _NOTHING


_NOTHING = Description("none", {}, "")


def plain_text(value: object) -> str | None:
    """Returns a plain value as text; ``None`` for an object that is none.

    Plain are numbers, strings, tensors, arrays, types and lists, tuples, sets and dicts of these. An absolute path, which
    differs from one machine to the other, is ``"a path"``.
    """
    text = _plain(value, 0)
    return text if text is None or len(text) <= _LONG else f"{text[:_LONG]}… {digest(text)}"


class _Reader:
    """Collects what is known of an object and of those that it holds."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.code: list[str] = []
        self._inside: list[object] = []

    def read(self, value: object, path: str) -> str:
        """Files what is known of a value under its path; returns its name, and none for a plain value."""
        text = plain_text(value)
        if text is not None:
            self.values[path] = text
            return ""
        if len(self._inside) >= _DEEP or any(value is one for one in self._inside):
            return _named(type(value))
        self._inside.append(value)
        try:
            return self._read(value, path)
        finally:
            self._inside.pop()

    def _read(self, value: object, path: str) -> str:
        if isinstance(value, list | tuple):
            return f"[{self._all(enumerate(value), path)}]"
        if isinstance(value, Mapping):
            return f"{{{self._all(((repr(key), one) for key, one in value.items()), path)}}}"
        if isinstance(value, functools.partial):
            name = self.read(value.func, path)
            self._all(enumerate(value.args), path)
            for key, one in value.keywords.items():
                self.read(one, _at(path, key))
            return f"partial({', '.join([name, *(f'{key}=' for key in value.keywords)])})"
        if isinstance(value, types.MethodType):
            self._code_of(value.__func__)
            return f"{_named(type(value.__self__))}.{value.__name__}"
        if isinstance(value, types.FunctionType):
            return self._function(value, path)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType | np.ufunc):
            return value.__name__
        return self._object(value, path)

    def _all(self, members: Any, path: str) -> str:
        """Reads the members of a container; returns the names of those that have one."""
        names = [self.read(one, f"{path}[{key}]") for key, one in members]
        return ", ".join(name for name in names if name)

    def _function(self, function: types.FunctionType, path: str) -> str:
        """Reads a function: its code, what it closes over, and its defaults; one of a library by its name alone."""
        name = function.__qualname__.rpartition("<locals>.")[2].replace("<lambda>", "lambda")
        if _of_library(function.__code__):
            inner = getattr(function, "__wrapped__", None)
            return name if inner is None else self.read(inner, path) or name
        self._code_of(function)
        for key, one in [*_closure(function), *_defaults(function)]:
            if isinstance(one, nn.Module) and next(one.parameters(), None) is not None:
                continue  # a network, perhaps the one that is trained
            if _plain(one, 0) is not None or callable(one) or isinstance(one, list | tuple):
                self.read(one, _at(path, key))
        return name

    def _code_of(self, function: object) -> None:
        code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
        if isinstance(code, types.CodeType) and not _of_library(code):
            self.code.append(_digest(code))

    def _object(self, value: object, path: str) -> str:
        """Reads an object that is called, or the first one: its class, its plain attributes, and its code."""
        name = _named(type(value))
        known = (
            callable(value) or dataclasses.is_dataclass(value) or len(self._inside) == 1 or isinstance(value, nn.Module)
        )
        if not known:
            return name
        inner = [self.read(one, _at(path, key)) for key, one in self._attributes(value)]
        self.code += _class_code(type(value))
        held = ", ".join(one for one in inner if one)
        return f"{name}({held})" if held else name

    def _attributes(self, value: object) -> Iterator[tuple[str, Any]]:
        """Yields what an object holds under names of its own; what begins with an underscore is its own business."""
        found = dict(vars(value)) if hasattr(value, "__dict__") else {}
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    found.setdefault(name, getattr(value, name))
        if isinstance(value, nn.Module):
            found.pop("training", None)
            found |= vars(value)["_buffers"]  # those that are None as well: class weights that may come
            found |= {key: one.shape for key, one in value.named_parameters(recurse=False)}
            found |= dict(value.named_children())
        yield from ((key, one) for key, one in found.items() if not str(key).startswith("_"))


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _named(kind: type) -> str:
    return kind.__qualname__.rpartition("<locals>.")[2]


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # an empty one, of a name that is bound later
            continue
        yield name, held


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    given = function.__defaults__ or ()
    code = function.__code__
    yield from zip(code.co_varnames[: code.co_argcount][code.co_argcount - len(given) :], given, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


# --- plain values


def _plain(value: object, depth: int) -> str | None:
    if isinstance(value, enum.Enum):
        return f"{_named(type(value))}.{value.name}"
    if value is None or isinstance(value, bool | int | float | complex | bytes):
        return repr(value)
    if isinstance(value, str):
        return "a path" if _is_place(value) else repr(str(value))
    if isinstance(value, PurePath):
        return "a path" if value.is_absolute() else repr(value.as_posix())
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _numbers(value)
    if isinstance(value, torch.device):
        return "a device"  # which one may change
    if isinstance(value, torch.dtype | np.dtype | range | torch.memory_format):
        return str(value)
    if isinstance(value, type):
        return _named(value)
    return _members(value, depth) if isinstance(value, list | tuple | set | frozenset | Mapping) else None


def _members(value: Any, depth: int) -> str | None:
    """Returns a container of plain values as text, sets and dicts in an order that does not depend on the process."""
    if depth > _DEEP:
        return None
    if isinstance(value, Mapping):
        pairs = [(_plain(key, depth + 1), _plain(one, depth + 1)) for key, one in value.items()]
        texts: list[str | None] = [None if None in pair else f"{pair[0]}: {pair[1]}" for pair in pairs]
    else:
        texts = [_plain(one, depth + 1) for one in value]
    found = [text for text in texts if text is not None]
    if len(found) < len(texts):
        return None
    if not isinstance(value, list | tuple):
        found.sort()
    shown = ", ".join(found) if len(found) <= _SHOWN else f"{len(found)} values, {digest(', '.join(found))}"
    return f"[{shown}]" if isinstance(value, list | tuple) else f"{{{shown}}}"


def _numbers(value: Tensor | np.ndarray[Any, Any] | np.generic) -> str:
    """Returns a tensor's or an array's numbers, or of many a digest; neither says where they are."""
    if isinstance(value, Tensor):
        hosted = value.layout == torch.strided and not value.is_meta and not value.is_quantized and not value.is_nested
        if not hosted or type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            return f"{value.dtype} {tuple(value.shape)}"
        value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if value.numel() > _SHOWN:
            data = value.reshape(-1).view(torch.uint8).numpy()
            kind = str(value.dtype).removeprefix("torch.")
            return f"{kind} {tuple(value.shape)} {hashlib.blake2b(data.data, digest_size=6).hexdigest()}"
        return repr(value.tolist())
    if value.dtype.hasobject:
        return f"objects {value.shape}"
    if value.size > _SHOWN:
        whole = np.ascontiguousarray(value).tobytes()
        return f"{value.dtype} {value.shape} {hashlib.blake2b(whole, digest_size=6).hexdigest()}"
    return repr(value.tolist())


def _is_place(text: str) -> bool:
    """Whether a string says where something lies on this machine."""
    here = os.getcwd()
    return os.path.isabs(text) or (here != os.path.dirname(here) and here in text)


# --- code


def digest(text: str) -> str:
    """Returns a short hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


@functools.cache
def _libraries() -> tuple[str, ...]:
    """The directories of code that changes with its version, not with the run: Python's own, and this package."""
    places = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    own = str(Path(__file__).resolve().parents[1])
    return tuple(f"{os.path.realpath(place)}{os.sep}" for place in {own, *places})


@functools.lru_cache(maxsize=4096)
def _is_library(file: str) -> bool:
    parts = file.replace("\\", "/").split("/")
    if "site-packages" in parts or "dist-packages" in parts or file.startswith(("<frozen", "<eval_with_key")):
        return True
    return os.path.isabs(file) and os.path.realpath(file).startswith(_libraries())


def _of_library(code: types.CodeType) -> bool:
    return _is_library(code.co_filename)


@functools.lru_cache(maxsize=4096)
def _digest(code: types.CodeType) -> str:
    """Returns a digest of what code does: neither lines and file nor the docstring count, nor the names of its variables."""
    constants = list(code.co_consts)
    documented = sys.version_info < (3, 13) or bool(code.co_flags & _DOCSTRING)
    if documented and constants and isinstance(constants[0], str):
        constants[0] = None  # as where there is none
    parts = [code.co_code.hex(), repr(code.co_names), repr((code.co_argcount, code.co_kwonlyargcount, code.co_flags))]
    return digest("\n".join([*parts, *(_constant(one) for one in constants)]))


def _constant(value: object) -> str:
    if isinstance(value, types.CodeType):
        return _digest(value)
    if isinstance(value, frozenset):
        return repr(sorted(_constant(one) for one in value))
    if isinstance(value, tuple):
        return repr([_constant(one) for one in value])
    return f"{type(value).__name__} {value!r}"


def _class_code(kind: type) -> list[str]:
    """Returns digests of a class's methods, but for those that are about looking at it; none for a library's class."""
    found = []
    for one in kind.__mro__:
        for name, member in sorted(vars(one).items()):
            if name.startswith("__") and name not in _OPERATORS:
                continue
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if isinstance(member, types.FunctionType) and name not in ("extra_repr", "must_match"):
                inner = inspect.unwrap(member)
                code = getattr(inner, "__code__", None)
                if isinstance(code, types.CodeType) and not _of_library(code):
                    found.append(f"{name}{_digest(code)}")
    return found
