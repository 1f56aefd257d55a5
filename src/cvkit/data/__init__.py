"""Where samples live, and in which order they come.

=================  ======================================================================
``from_folder``    a directory to two loaders, in one call
``FolderDataset``  the folder is the label
``ArrayDataset``   pictures or features in memory
``split``          a data set in two, each class by the same share
``Loader``         order, workers, cache and transform, to batches
``write_shapes``   a generated data set, for trying things on
``decode``         bytes to an 8-bit picture
=================  ======================================================================
"""

from cvkit.data.arrays import ArrayDataset
from cvkit.data.compose import FolderData, from_folder
from cvkit.data.dataset import Dataset, Subset, split
from cvkit.data.decode import decode
from cvkit.data.folder import FolderDataset, Verification
from cvkit.data.loader import Loader, RawBatch
from cvkit.data.synthetic import write_shapes

__all__ = [
    "ArrayDataset",
    "Dataset",
    "FolderData",
    "FolderDataset",
    "Loader",
    "RawBatch",
    "Subset",
    "Verification",
    "decode",
    "from_folder",
    "split",
    "write_shapes",
]
