"""cvkit: typed PyTorch training components for computer vision.

``fit`` trains any ``nn.Module`` on any loader; ``data``, ``transforms`` and ``models`` help to get both; ``callbacks`` save,
stop, log and show; ``load`` turns a checkpoint into predictions.
"""

from cvkit import callbacks, data, errors, export, metrics, models, plots, recipes, transforms
from cvkit import integrations as _integrations  # noqa: F401  # puts the names of other libraries where fit finds them
from cvkit.inference import Prediction, Predictions, Predictor, load, predict
from cvkit.losses import register_loss
from cvkit.training import (
    Callback,
    FitResult,
    History,
    LRCurve,
    Runtime,
    TrainState,
    evaluate,
    find_batch_size,
    find_lr,
    fit,
    load_checkpoint,
    load_weights,
    preflight,
    save_checkpoint,
    save_weights,
)

__all__ = [
    "Callback",
    "FitResult",
    "History",
    "LRCurve",
    "Prediction",
    "Predictions",
    "Predictor",
    "Runtime",
    "TrainState",
    "callbacks",
    "data",
    "errors",
    "evaluate",
    "export",
    "find_batch_size",
    "find_lr",
    "fit",
    "load",
    "load_checkpoint",
    "load_weights",
    "metrics",
    "models",
    "plots",
    "predict",
    "preflight",
    "recipes",
    "register_loss",
    "save_checkpoint",
    "save_weights",
    "transforms",
]
