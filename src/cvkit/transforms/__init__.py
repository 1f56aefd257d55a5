"""Transforms in two stages: one picture in a worker, then a whole batch on the device.

==========================================  ==============================================================
``classification_train``, ``…_eval``        photos: random resized crop, or the middle
``small_image_train``, ``…_eval``           CIFAR-like: padded random crop, or the whole picture
``digits_train``, ``…_eval``                MNIST-like: grey, shifted, never mirrored, or the whole picture
``Transform``                               what they all are
==========================================  ==============================================================
"""

from cvkit.transforms.base import Transform
from cvkit.transforms.presets import (
    classification_eval,
    classification_train,
    digits_eval,
    digits_train,
    small_image_eval,
    small_image_train,
)

__all__ = [
    "Transform",
    "classification_eval",
    "classification_train",
    "digits_eval",
    "digits_train",
    "small_image_eval",
    "small_image_train",
]
