"""Other libraries, one a file: each is imported where it is used, and may be missing.

=====================  ========================================================================
``timm``               optimizers as ``"timm:NAME"``
``pytorch_optimizer``  optimizers as ``"pytorch_optimizer:NAME"``
=====================  ========================================================================
"""

from cvkit.integrations import pytorch_optimizer, timm

__all__ = ["pytorch_optimizer", "timm"]
