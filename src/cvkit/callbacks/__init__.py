"""Callbacks: one a file. Changers run first, observers after them, ``Checkpoint`` last.

=====================  ===================================================================
``Checkpoint``         the newest and the best state of the run, on disk
``EarlyStopping``      ends a run that has stopped improving
``LRSchedule``         steps a scheduler that you have built
``GradualUnfreezing``  trains the head first, and more of the model as the epochs go by
``EMA``                an average of the weights, which is validated and saved
``SWA``                the average of the last epochs' weights, which is validated and saved
``TensorBoard``        curves, images, histograms, the graph and more for TensorBoard
``CSVLogger``          one line an epoch
``Progress``           a bar, or one line an epoch; ``fit`` adds it by itself
``GradientNorm``       how large the gradients are
``StopOnNaN``          ends a run whose loss is no number, and says where it came from
``Profile``            what the time of a step goes to
``Timer``              ends a run when its time is up
``Watch``              says which layers no gradient reaches any more
``Prune``              ends a trial of an Optuna study that is not worth going on with
=====================  ===================================================================
"""

from cvkit.callbacks.checkpoint import Checkpoint
from cvkit.callbacks.csv_logger import CSVLogger
from cvkit.callbacks.early_stopping import EarlyStopping
from cvkit.callbacks.ema import EMA
from cvkit.callbacks.gradient_norm import GradientNorm
from cvkit.callbacks.profile import Profile
from cvkit.callbacks.progress import Progress
from cvkit.callbacks.schedule import LRSchedule
from cvkit.callbacks.stop_on_nan import StopOnNaN
from cvkit.callbacks.swa import SWA
from cvkit.callbacks.tensorboard.callback import TensorBoard
from cvkit.callbacks.timer import Timer
from cvkit.callbacks.unfreezing import GradualUnfreezing
from cvkit.callbacks.watch import Watch
from cvkit.integrations.optuna import Prune

__all__ = [
    "EMA",
    "SWA",
    "CSVLogger",
    "Checkpoint",
    "EarlyStopping",
    "GradientNorm",
    "GradualUnfreezing",
    "LRSchedule",
    "Profile",
    "Progress",
    "Prune",
    "StopOnNaN",
    "TensorBoard",
    "Timer",
    "Watch",
]
