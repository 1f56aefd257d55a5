"""What is shown and said while many images are looked at."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cvkit.calls import warn

__all__ = ["bar", "warn_skipped"]

_SECONDS = 0.1
"""The least time between two refreshes of a bar."""


def bar(total: int, wanted: bool) -> Any:
    """Returns a progress bar over so many images, or ``None`` where none is wanted or nobody would see it.

    Args:
        total: How many images.
        wanted: Whether one is asked for; it is shown in a terminal or notebook only.
    """
    if not wanted or not (sys.stderr.isatty() or _in_notebook()):
        return None
    # tqdm.auto picks the notebook's widget where there is one; imported here, it costs 30 ms
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        desc="predicting",
        unit="image",
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        mininterval=_SECONDS,
    )


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose output is no terminal but shows widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def warn_skipped(skipped: Mapping[str, str], total: int) -> None:
    """Warns of images that were left out.

    Warns:
        CvkitWarning: Some were.
    """
    if skipped:
        first = next(iter(skipped.values())).splitlines()[0]
        warn(f"{len(skipped)} of {total} images were left out because they cannot be read, e.g. {first}")
