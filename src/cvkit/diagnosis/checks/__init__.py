"""The checks, a file for each kind of mistake; importing this room files them all into the table."""

from cvkit.diagnosis.checks import (
    batch,
    between,
    coupling,
    dead,
    finite,
    hidden,
    inputs,
    labels,
    leaks,
    modes,
    pairs,
    reach,
    rereading,
    settings,
    targets,
    values,
)

__all__ = [
    "batch",
    "between",
    "coupling",
    "dead",
    "finite",
    "hidden",
    "inputs",
    "labels",
    "leaks",
    "modes",
    "pairs",
    "reach",
    "rereading",
    "settings",
    "targets",
    "values",
]
