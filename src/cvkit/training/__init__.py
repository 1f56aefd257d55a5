"""The spine: the loop, its state, hooks, metrics and checkpoints; readable in one sitting.

=================  ==========================================================================================
``loop``           ``fit``, ``evaluate``, ``preflight``: the loop itself
``build``          from the arguments of ``fit`` to a complete state
``state``          ``TrainState``, ``FitResult``
``history``        ``History``: what was logged
``find_lr``        which learning rate to begin with
``undo``           training that leaves no trace
``hooks``          ``Callback`` and the dispatcher
``runtime``        device, precision, compilation: forward, backward, update
``feed``           batches from any loader, entered at any place
``losses``         losses by name, and how they reduce
``metrics``        what is computed beside the loss, summed exactly
``optimizers``     optimizers and schedules by name
``checkpoint``     one file, written and read
``weights``        plain weights in and out, for other programs
``snapshot``       a run as a plain dict, and back
``facts``          what decides a run, as text; ``described`` says what an object is
``changes``        what differs from the run that is continued: refused, or meant
``schedules``      a schedule's state, and a schedule put to where a run stands
``resume``         which file a run continues from
``signals``        Ctrl-C and SIGTERM
``preflight``      one batch traced, mistakes diagnosed
=================  ==========================================================================================
"""

from cvkit.serialization.checkpoint import load_checkpoint, save_checkpoint
from cvkit.serialization.weights import load_weights, save_weights
from cvkit.training.callback import HOOKS, Callback
from cvkit.training.find_lr import LRCurve, find_lr
from cvkit.training.loop import evaluate, fit, preflight
from cvkit.training.runtime import Runtime
from cvkit.training.state import FitResult, History, TrainState

__all__ = [
    "HOOKS",
    "Callback",
    "FitResult",
    "History",
    "LRCurve",
    "Runtime",
    "TrainState",
    "evaluate",
    "find_lr",
    "fit",
    "load_checkpoint",
    "load_weights",
    "preflight",
    "save_checkpoint",
    "save_weights",
]
