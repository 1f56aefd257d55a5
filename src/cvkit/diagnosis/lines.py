"""Where in the user's files an error came up."""

from __future__ import annotations

import linecache
import os
import sysconfig
from pathlib import Path

import torch

__all__ = ["user_line"]

_OTHERS = tuple(
    os.path.join(one, "")
    for one in {
        str(Path(__file__).parents[1]),
        str(Path(torch.__file__).parent),
        sysconfig.get_paths()["stdlib"],
        sysconfig.get_paths()["purelib"],
        sysconfig.get_paths()["platlib"],
    }
)
"""Where no file of a user's lies: this package, torch, the standard library, installed packages."""


def user_line(error: BaseException) -> str | None:
    """Returns the innermost line of a user's file that an error passed through: file, line, function, and what it says.

    Args:
        error: A raised error.

    Returns:
        E.g. ``train.py:17, in forward: x = self.conv(x)``; ``None`` where no line of the user's was involved.
    """
    found, trace = None, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((*_OTHERS, "<frozen")):
            text = linecache.getline(code.co_filename, trace.tb_lineno).strip()
            found = f"{os.path.relpath(code.co_filename) if _near(code.co_filename) else code.co_filename}:{trace.tb_lineno}"
            found += f", in {code.co_name}" + (f": {text}" if text else "")
        trace = trace.tb_next
    return found


def _near(file: str) -> bool:
    return os.path.isabs(file) and file.startswith(os.path.join(os.getcwd(), ""))
