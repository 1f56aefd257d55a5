"""Other libraries, one a file: each is imported where it is used, and may be missing.

=====================  ========================================================================
``timm``               optimizers as ``"timm:NAME"``
``pytorch_optimizer``  optimizers as ``"pytorch_optimizer:NAME"``
``torchmetrics``       the metrics ``"auroc"`` and ``"average_precision"``
``wandb``              ``WandB``, a callback that logs to Weights & Biases
``mlflow``             ``MLflow``, a callback that logs to MLflow
``trackio``            ``Trackio``, a callback that logs to trackio
``optuna``             ``Prune``, a callback for studies; also as ``cvkit.callbacks.Prune``
``hub``                ``push`` to the Hugging Face Hub; ``cvkit.load("hf://…")``
=====================  ========================================================================
"""

from cvkit.integrations import pytorch_optimizer, timm, torchmetrics

__all__ = ["pytorch_optimizer", "timm", "torchmetrics"]
