"""``cvkit.fit`` as it comes, preflight included."""

from __future__ import annotations

from collections.abc import Callable

from peers import cvkit
from peers.work import Tracked, Work


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """The same call with the default for ``preflight``."""
    return cvkit.prepare(work, bar, preflight=True)
