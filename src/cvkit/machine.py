"""How many processes of a run share this machine."""

from __future__ import annotations

import os

__all__ = ["processes_here"]


def processes_here() -> int:
    """Returns how many processes ``torchrun`` has started on this machine: cores and memory are divided by it."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(int(given), 1) if given.isdigit() else 1
