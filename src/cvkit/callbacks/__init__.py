"""Callbacks: one a file. Changers run first, observers after them, ``Checkpoint`` last.

===================  ==================================================================
``Checkpoint``       the newest and the best state of the run, on disk
``EarlyStopping``    ends a run that has stopped improving
``LRSchedule``       steps a scheduler that you have built
``EMA``              an average of the weights, which is validated and saved
``TensorBoard``      scalars for TensorBoard
``CSVLogger``        one line an epoch
``Progress``         a bar, or one line an epoch; ``fit`` adds it by itself
===================  ==================================================================
"""

from cvkit.callbacks.checkpoint import Checkpoint
from cvkit.callbacks.csv_logger import CSVLogger
from cvkit.callbacks.early_stopping import EarlyStopping
from cvkit.callbacks.ema import EMA
from cvkit.callbacks.progress import Progress
from cvkit.callbacks.schedule import LRSchedule
from cvkit.callbacks.tensorboard import TensorBoard

__all__ = ["EMA", "CSVLogger", "Checkpoint", "EarlyStopping", "LRSchedule", "Progress", "TensorBoard"]
