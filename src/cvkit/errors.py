"""The errors of cvkit: what failed, what arrived, what was expected, what to do.

Every error here derives from :class:`CvkitError`, so ``except cvkit.errors.CvkitError`` catches what the
library says and nothing else. Each can be rebuilt from its one message string, which is what lets it
travel out of a data-loading worker process unharmed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArgumentError",
    "CallError",
    "CheckpointError",
    "CvkitError",
    "CvkitWarning",
    "DataError",
    "DeviceError",
    "ImageError",
    "MissingDependencyError",
    "ModelError",
    "PreflightError",
    "RankError",
    "UnknownNameError",
    "unknown_name",
]


class CvkitError(Exception):
    """Base of every error that cvkit raises on purpose.

    Args:
        what: What failed, in one sentence.
        got: What arrived.
        expected: What was expected instead.
        fix: What to do now.
    """

    def __init__(
        self,
        what: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        fix: object | None = None,
    ) -> None:
        lines = [what]
        for label, value in (("got", got), ("expected", expected), ("fix", fix)):
            if value is not None:
                lines.append(f"  {label}: {value}")
        super().__init__("\n".join(lines))


class ArgumentError(CvkitError, ValueError):
    """An argument has a value that cannot be used."""


class CallError(ArgumentError, TypeError):
    """A call does not fit a function's signature: an argument that it does not have, or one that is missing."""


class UnknownNameError(ArgumentError):
    """A name (of a model, loss, optimizer, metric, preset, hook, …) is not known."""


class DataError(CvkitError):
    """A dataset, its labels or its layout on disk are not what was said of them."""


class ImageError(DataError):
    """One image file cannot be decoded, or has no right answer as an 8-bit image."""


class ModelError(CvkitError):
    """A model cannot be built, adapted or loaded as asked."""


class DeviceError(CvkitError, RuntimeError):
    """A device or a precision was asked for that this machine does not have."""


class CheckpointError(CvkitError):
    """A checkpoint or another file of a run cannot be written, is damaged, or does not fit the run."""


class PreflightError(CvkitError):
    """A run cannot work.

    Attributes:
        findings: What was found, as :class:`cvkit.diagnosis.Finding`; empty where something else was wrong.
    """

    findings: tuple[object, ...] = ()


class RankError(CvkitError, RuntimeError):
    """Another process of a run on several has failed, is gone, or does something else; it is named."""


class MissingDependencyError(CvkitError, ImportError):
    """An optional dependency is not installed."""


class CvkitWarning(UserWarning):
    """Something that does not stop the run but should be known."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Builds the error for a name that is not known, nearest known ones first.

    Args:
        kind: What the name was to name, e.g. ``"optimizer"``.
        name: What arrived.
        known: Every name that would have been right.

    Returns:
        The error, to be raised by the caller.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "choose one of these"
    shown = ", ".join(names) if len(names) <= 40 else ", ".join(names[:40]) + f", … ({len(names)} in all)"
    return UnknownNameError(f"unknown {kind} {name!r}", expected=f"one of: {shown}", fix=fix)
