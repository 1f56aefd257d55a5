"""cvkit: typed PyTorch training components for computer vision.

``fit`` trains any ``nn.Module`` on any loader; ``data``, ``transforms`` and ``models`` help to get both; ``callbacks`` save,
stop, log and show; ``load`` turns a checkpoint into predictions.
"""

from cvkit import callbacks, data, errors, metrics, models, transforms
from cvkit.inference import Prediction, Predictor, load, predict
from cvkit.training import (
    Callback,
    FitResult,
    History,
    Runtime,
    TrainState,
    evaluate,
    fit,
    load_checkpoint,
    preflight,
    save_checkpoint,
)

__all__ = [
    "Callback",
    "FitResult",
    "History",
    "Prediction",
    "Predictor",
    "Runtime",
    "TrainState",
    "callbacks",
    "data",
    "errors",
    "evaluate",
    "fit",
    "load",
    "load_checkpoint",
    "metrics",
    "models",
    "predict",
    "preflight",
    "save_checkpoint",
    "transforms",
]
