"""The checks, a file for each kind of mistake; importing this room files them all into the table."""

from cvkit.diagnosis.checks import batch, between, labels, modes, pairs, reach, settings, targets, values

__all__ = ["batch", "between", "labels", "modes", "pairs", "reach", "settings", "targets", "values"]
