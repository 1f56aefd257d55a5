"""Metrics: ``Mean``, ``Accuracy``, ``Dice``, ``IoU``, and the protocol that any other object may follow."""

from cvkit.training.metrics import Accuracy, Mean, Metric
from cvkit.training.overlap import Dice, IoU

__all__ = ["Accuracy", "Dice", "IoU", "Mean", "Metric"]
