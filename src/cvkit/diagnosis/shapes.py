"""Values in a few words, for messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["dtype_name", "number", "shape", "some"]


def shape(value: Any) -> str:
    """Returns a short description of what a batch holds."""
    if isinstance(value, Tensor):
        return f"{dtype_name(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, list | tuple) and len(value) <= 4:
        return f"({', '.join(shape(one) for one in value)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shape(one)}" for key, one in list(value.items())[:6]) + "}"
    return type(value).__name__


def dtype_name(dtype: torch.dtype) -> str:
    """Returns ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def some(names: Iterable[str]) -> str:
    """Returns the first five of some names, and how many there are besides."""
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def number(value: float) -> str:
    """Returns a number in three significant digits."""
    return f"{float(value):.3g}" if not isinstance(value, int | np.integer) else str(value)
