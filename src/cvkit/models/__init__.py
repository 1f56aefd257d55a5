"""Models by name, and helpers that change a model that is there.

=====================  =================================================================
``create``             any model by name: built in, torchvision's or timm's
``names``              every name
``register``           a name for your own builder
``from_config``        the same architecture again, from ``model.cvkit_config``
``replace_head``       another number of classes
``append_head``        a new layer behind a pretrained head
``adapt_input``        another number of channels
``freeze``             trains only the head
``unfreeze``           trains everything again, or a part by name or by depth
``param_groups``       no decay where it does harm, and a learning rate for each part
``find_blocks``        the blocks that depth and rates go by
``summary``            layers, shapes, parameters and multiply-adds
``checkpoint_blocks``  less memory: blocks compute again in the backward pass
=====================  =================================================================
"""

from cvkit.models import autoencoder, classifiers, resnet, unet  # noqa: F401  importing them files the built-in names
from cvkit.models.adapt import adapt_input, append_head, replace_head
from cvkit.models.freezing import freeze, unfreeze
from cvkit.models.groups import param_groups
from cvkit.models.parts import find_blocks
from cvkit.models.recompute import checkpoint_blocks
from cvkit.models.registry import create, from_config, names, register
from cvkit.models.summary import Layer, Summary, summary

__all__ = [
    "Layer",
    "Summary",
    "adapt_input",
    "append_head",
    "checkpoint_blocks",
    "create",
    "find_blocks",
    "freeze",
    "from_config",
    "names",
    "param_groups",
    "register",
    "replace_head",
    "summary",
    "unfreeze",
]
