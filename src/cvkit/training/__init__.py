"""The spine: the loop, its state, hooks, metrics and checkpoints; readable in one sitting.

====================  ========================================================================================
``loop``              ``fit``, ``evaluate``, ``preflight``: the loop itself
``engine``            one step executed: feed, forward, backward, update
``runtime``           device, precision, memory format, compilation
``state``             ``TrainState``, ``FitResult``; ``internals`` is what the engine keeps of a run
``callback``          ``Callback`` and the dispatcher
``setup``             from the arguments of ``fit`` to a complete state
``loaders``           batches from any loader, entered at any place
``history``           ``History``: what was logged
``meters``            loss and metrics of a phase
``optimizers``        optimizers and schedules by name; ``schedules`` puts one to where a run stands
``snapshot``          a run as a plain dict, and back
``resume``            which file a run continues from
``run_identity``      what decides a run, as text; ``run_changes`` compares, ``stable_text`` says what an object is
``signals``           Ctrl-C and SIGTERM
``find_lr``           which learning rate to begin with; ``batch_size`` how many samples fit on the device
``preflight``         one batch traced, mistakes diagnosed
====================  ========================================================================================
"""

from cvkit.serialization.checkpoint import load_checkpoint, save_checkpoint
from cvkit.serialization.weights import load_weights, save_weights
from cvkit.training.batch_size import find_batch_size
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
    "find_batch_size",
    "find_lr",
    "fit",
    "load_checkpoint",
    "load_weights",
    "preflight",
    "save_checkpoint",
    "save_weights",
]
