"""Transforms in two stages: one image in a worker, then a whole batch on the device.

==========================================  ==============================================================
``classification_train``, ``…_eval``        photos: random resized crop, or the middle
``small_image_train``, ``…_eval``           CIFAR-like: padded random crop, or the whole image
``digits_train``, ``…_eval``                MNIST-like: grey, shifted, never mirrored, or the whole image
``segmentation_train``, ``…_eval``          images and masks, moved together
``denoise``                                 a noisy image as input, the clean one as target
``from_weights``                            the preprocessing that pretrained weights expect
``Transform``, ``Framed``, ``Frame``        what they all are, and what they take of an image
==========================================  ==============================================================
"""

from cvkit.transforms.base import Framed, Transform
from cvkit.transforms.presets import (
    classification_eval,
    classification_train,
    denoise,
    digits_eval,
    digits_train,
    segmentation_eval,
    segmentation_train,
    small_image_eval,
    small_image_train,
)
from cvkit.transforms.pretrained import from_weights
from cvkit.transforms.sample import Frame

__all__ = [
    "Frame",
    "Framed",
    "Transform",
    "classification_eval",
    "classification_train",
    "denoise",
    "digits_eval",
    "digits_train",
    "from_weights",
    "segmentation_eval",
    "segmentation_train",
    "small_image_eval",
    "small_image_train",
]
