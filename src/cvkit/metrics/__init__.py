"""Metrics by name or as objects, and the protocol that any other object may follow.

==========================================  =================================================================
``"accuracy"``, ``"top5"`` (any number)     ``Accuracy``, ``TopK``
``"precision"``, ``"recall"``, ``"f1"``     ``Precision``, ``Recall``, ``F1``: the mean over classes or labels
``"class_accuracy"``                        ``ClassAccuracy``: one value a class
``"dice"``, ``"iou"``                       ``Dice``, ``IoU``, of regions
``"ece"``                                   ``CalibrationError``; ``fit_temperature`` mends it
``"auroc"``, ``"average_precision"``        through torchmetrics, where it is installed
``"mean"``                                  ``Mean`` of a function of each batch
==========================================  =================================================================

``register("name")`` files a class of yours under a name.
"""

from cvkit.metrics.calibration import CalibrationError, fit_temperature
from cvkit.metrics.classification import Accuracy, TopK
from cvkit.metrics.core import Mean, Metric, register
from cvkit.metrics.scores import F1, ClassAccuracy, Precision, Recall
from cvkit.metrics.segmentation import Dice, IoU

__all__ = [
    "F1",
    "Accuracy",
    "CalibrationError",
    "ClassAccuracy",
    "Dice",
    "IoU",
    "Mean",
    "Metric",
    "Precision",
    "Recall",
    "TopK",
    "fit_temperature",
    "register",
]
