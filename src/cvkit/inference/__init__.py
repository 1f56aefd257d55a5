"""Predictions: from a checkpoint file alone, or from a module in hand.

===============  ================================================================
``load``         a checkpoint file to a predictor
``Predictor``    a model with everything that it needs to look at images
``Prediction``   what it says of one image
``Predictions``  what it says of many, in their order
``predict``      the outputs of any module over any loader
===============  ================================================================
"""

from cvkit.inference.loading import load
from cvkit.inference.prediction import Prediction, Predictions
from cvkit.inference.predictor import Predictor
from cvkit.inference.raw_outputs import predict

__all__ = ["Prediction", "Predictions", "Predictor", "load", "predict"]
