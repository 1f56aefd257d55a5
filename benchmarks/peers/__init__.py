"""One module a contender, each with ``prepare(work, bar)``; imported in a process of its own, so none disturbs another."""

from __future__ import annotations

TITLES = {
    "again": "the hand-written loop again (noise)",
    "in_place": "hand-written, sums added to at each step",
    "cvkit": "**cvkit.fit**",
    "cvkit_preflight": "cvkit.fit, preflight on",
    "tutorial": "tutorial loop, `.item()` each step",
    "skorch": "skorch",
    "ignite": "Ignite",
    "fastai": "fastai",
    "lightning": "Lightning",
    "keras": "Keras (torch backend)",
}
"""Every contender's row title, by module name, in the table's order."""

OURS = ("again", "in_place", "cvkit", "cvkit_preflight", "tutorial")
"""Contenders that need nothing but cvkit; the others are the optional group ``bench``."""

BARLESS = ("again", "in_place")
"""Contenders that have no bar."""
