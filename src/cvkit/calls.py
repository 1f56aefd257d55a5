"""Between a user's call and the library: a wrong call is answered, and a warning points at the user's line."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

import torch

from cvkit.errors import CallError, CvkitWarning

__all__ = ["answered", "warn"]

F = TypeVar("F", bound=Callable[..., Any])

_INSIDE = (*(os.path.join(Path(one).parent, "") for one in (__file__, torch.__file__)), contextlib.__file__)
"""Files whose lines say nothing to a user: ours, and those that we are called through."""


def warn(message: str) -> None:
    """Warns with a :class:`~cvkit.errors.CvkitWarning` whose location is the line of the user that led to it.

    That is the first frame outside of the package, of torch and of ``contextlib``, however deep in the library this is called.

    Args:
        message: What should be known.
    """
    frame: FrameType | None = sys._getframe(1)
    outermost = frame
    while frame is not None and frame.f_code.co_filename.startswith(_INSIDE):
        outermost, frame = frame, frame.f_back
    found = frame or outermost or sys._getframe()
    warnings.warn_explicit(
        message,
        CvkitWarning,
        filename=found.f_code.co_filename,
        lineno=found.f_lineno,
        module=str(found.f_globals.get("__name__", "<unknown>")),
        registry=found.f_globals.setdefault("__warningregistry__", {}),
    )


def answered(
    *,
    renamed: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
    needed: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Callable[[F], F]:
    """Returns a decorator that answers a call which does not fit a function's signature with what to write instead.

    The signature stays as it is, for ``inspect``, for editors and for type checkers.

    Args:
        renamed: For arguments of the function, or of others like it, the names that they have elsewhere, apart by blanks.
        elsewhere: Names of what is said in another way here, each with how.
        needed: Arguments that must be given, each with an example, e.g. ``{"epochs": "epochs=10"}``.
        name: What the function is called in the message: of an ``__init__`` the class's name.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                inspect.signature(function).bind(*args, **kwargs)
            except TypeError:
                answer = _answer(name, function, args, kwargs, renamed or {}, elsewhere or {}, needed or {})
                raise answer from None
            return function(*args, **kwargs)

        return cast(F, call)

    return decorate


def _answer(
    called: str | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    renamed: Mapping[str, str],
    elsewhere: Mapping[str, str],
    needed: Mapping[str, str],
) -> CallError:
    """Returns the error on a call whose arguments do not fit a signature."""
    name = called or function.__name__
    parameters = dict(inspect.signature(function).parameters)
    if called is not None:  # of a method the caller does not give the first
        del parameters[next(iter(parameters))]
        args = args[1:]
    by_place = [key for key, one in parameters.items() if one.kind is not one.KEYWORD_ONLY]
    unknown = [key for key in kwargs if key not in parameters]
    given = {*by_place[: len(args)], *kwargs}
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in given]
    examples = [needed.get(key, f"{key}=…") for key in missing]
    if unknown:
        hints = {key: _hint(key, parameters, given, renamed, elsewhere) for key in unknown}
        several = "s" if len(unknown) > 1 else ""
        return CallError(
            f"{name} has no argument{several} {', '.join(unknown)}",
            got=", ".join(f"{key}={_shown(kwargs[key])}" for key in unknown),
            expected=f"arguments of {name}: {', '.join(parameters)}",
            fix="; ".join(f"{key}: {hint}" if several else hint for key, hint in hints.items()),
        )
    if len(args) > len(by_place):
        return CallError(
            f"{name} takes at most {len(by_place)} arguments by position",
            got=f"{len(args)}: {', '.join(_shown(one) for one in args)}",
            expected=f"{', '.join(by_place)} by position, and the others by name",
            fix=f"name the others: {name}({', '.join([*by_place, *examples] if examples else [*by_place, '…'])})",
        )
    if missing:
        return CallError(
            f"{name} needs {', '.join(missing)}",
            got=f"a call with {', '.join(key for key in parameters if key in given) or 'no argument'}",
            expected=f"{', '.join(missing)}, which {'have' if len(missing) > 1 else 'has'} no default",
            fix=f"pass e.g. {', '.join(examples)}",
        )
    twice = next(key for key in by_place[: len(args)] if key in kwargs)
    return CallError(
        f"{name} got {twice} twice",
        got=f"{_shown(args[by_place.index(twice)])} by position, and {twice}={_shown(kwargs[twice])}",
        expected="each argument once",
        fix=f"leave one of the two out; by position come {', '.join(by_place)}",
    )


def _hint(
    key: str, known: Mapping[str, Any], given: set[str], renamed: Mapping[str, str], elsewhere: Mapping[str, str]
) -> str:
    """Returns what to write in place of an argument that is not known."""
    if key in elsewhere:
        return elsewhere[key]
    own = next((one for one, others in renamed.items() if one in known and key in others.split()), None)
    if own is not None:
        return f"it is called {own} here: {own}=…"
    near = difflib.get_close_matches(key, [one for one in known if one not in given], n=1)
    return f"did you mean {near[0]}=…?" if near else "leave it out"


def _shown(value: object) -> str:
    """Returns a plain value as it is written, and the type of anything else."""
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else type(value).__name__
