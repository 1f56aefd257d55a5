"""Images of data, predictions and runs (matplotlib: ``pip install "cvkit[plots]"``).

======================  ================================================================
``show_batch``          a batch as the model gets it, with the names of its targets
``show_predictions``    a batch with what a model says of it, wrong answers marked
``top_losses``          the samples that a model is most wrong about, with their files
``confusion_matrix``    which classes a model takes for which
``show_masks``          images with their masks, and those that a model finds
``plot_history``        losses and metrics of one run or several
======================  ================================================================

Each returns a matplotlib ``Figure`` that pyplot knows nothing of: no display is needed, and none has to be closed. A
notebook shows it as the last line of a cell; elsewhere ``figure.savefig("batch.png")`` writes it. None of them moves a
random generator or a loader.
"""

from cvkit.plots.confusion import confusion_matrix
from cvkit.plots.curves import plot_history
from cvkit.plots.grids import show_batch, show_predictions, top_losses
from cvkit.plots.masks import show_masks

__all__ = ["confusion_matrix", "plot_history", "show_batch", "show_masks", "show_predictions", "top_losses"]
