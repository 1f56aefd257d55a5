"""Metrics: ``Mean``, ``Accuracy``, ``Dice``, ``IoU``, and the protocol that any other object may follow."""

from cvkit.metrics.classification import Accuracy
from cvkit.metrics.core import Mean, Metric
from cvkit.metrics.segmentation import Dice, IoU

__all__ = ["Accuracy", "Dice", "IoU", "Mean", "Metric"]
