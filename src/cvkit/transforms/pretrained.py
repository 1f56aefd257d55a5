"""``from_weights``: the preprocessing that pretrained weights expect, as a preset."""

from __future__ import annotations

from typing import Any

from cvkit.errors import ArgumentError
from cvkit.transforms.base import Transform
from cvkit.transforms.presets import classification_eval, segmentation_eval

__all__ = ["from_weights"]


def from_weights(weights: Any) -> Transform:
    """The preprocessing that pretrained weights of torchvision's expect, as an evaluation preset.

    Args:
        weights: An entry of a torchvision weights enum (``ResNet18_Weights.DEFAULT``), or its name
            (``"ResNet18_Weights.IMAGENET1K_V1"``).

    Raises:
        ArgumentError: No such weights, or a preprocessing for something other than classification or segmentation.
    """
    from torchvision.models import get_weight  # here, because it takes long to load
    from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

    try:
        recipe: Any = get_weight(weights).transforms() if isinstance(weights, str) else weights.transforms()
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ArgumentError(
            "weights cannot be used",
            got=f"{weights!r} ({error})",
            expected="an entry of a torchvision weights enum, or its name",
            fix='e.g. from_weights("ResNet18_Weights.IMAGENET1K_V1")',
        ) from error
    if not isinstance(recipe, ImageClassification | SemanticSegmentation):
        raise ArgumentError(
            "these weights' preprocessing is no preset",
            got=type(recipe).__name__,
            expected="that of a classifier or of a semantic segmentation",
            fix="pass weights.transforms() itself as the transform",
        )
    filters = {"mean": recipe.mean, "std": recipe.std, "interpolation": recipe.interpolation.value}
    if isinstance(recipe, ImageClassification):
        return classification_eval(recipe.crop_size[0], resize=recipe.resize_size[0], **filters)
    return segmentation_eval(recipe.resize_size[0], **filters)
