"""What is said where a file of the run cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvkit.errors import CheckpointError

__all__ = ["written"]


@contextmanager
def written(what: str, path: Path) -> Iterator[None]:
    """Names the file in an error of the system's on writing it.

    Args:
        what: What the file is, e.g. ``"the log"``.
        path: Where it is.

    Raises:
        CheckpointError: The system refused, e.g. because the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot write {what} {path}",
            got=f"{type(error).__name__}: {error}",
            expected="a disk that takes the run's files; the checkpoints that are there are whole",
            fix="see whether the disk is full or the directory is read-only, then run again with resume=True",
        ) from error
