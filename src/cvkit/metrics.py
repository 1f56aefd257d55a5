"""Metrics: ``Mean``, ``Accuracy``, and the protocol that any other object may follow."""

from cvkit.training.metrics import Accuracy, Mean, Metric

__all__ = ["Accuracy", "Mean", "Metric"]
