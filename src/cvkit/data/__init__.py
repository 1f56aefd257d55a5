"""Where samples live, and in which order they come.

===================  ==========================================================================================
``from_folder``      a directory to two loaders, in one call
``mnist``            a public set to two loaders; also ``fashion_mnist``, ``cifar10``, ``cifar100``
``FolderDataset``    the folder is the label
``ParallelDataset``  labels in a directory of their own: text files, masks or images
``FilenameDataset``  the label is in the file's name
``TableDataset``     a CSV file or rows say which label an image has
``ShardDataset``     samples inside tar files, on this machine or remote
``ArrayDataset``     images or features in memory
``split``            a dataset in two, each class by the same share; groups stay together
``kfold``            k ways to split it, each sample validated once
``concat``           several datasets as one, their classes numbered together
``Loader``           order, workers, cache and transform, to batches
``report``           what is in a dataset, and what is wrong with it: leaks, duplicates, suspicious files
``Manifest``         what the content of files was
``write_shards``     any dataset into tar files
``write_shapes``     a generated dataset, for trying things on
``decode``           bytes to an 8-bit image
===================  ==========================================================================================
"""

from cvkit.data.datasets.arrays import ArrayDataset
from cvkit.data.datasets.base import Dataset, Subset, concat
from cvkit.data.datasets.filename import FilenameDataset
from cvkit.data.datasets.folder import FolderDataset
from cvkit.data.datasets.joined import JoinedDataset
from cvkit.data.datasets.parallel import ParallelDataset
from cvkit.data.datasets.shards import ShardDataset
from cvkit.data.datasets.splitting import kfold, split
from cvkit.data.datasets.synthetic import write_shapes
from cvkit.data.datasets.table import TableDataset
from cvkit.data.datasets.verification import Verification
from cvkit.data.decode import decode
from cvkit.data.folder_data import FolderData, from_folder
from cvkit.data.loader import Loader, RawBatch
from cvkit.data.manifest import Manifest
from cvkit.data.public import cifar10, cifar100, fashion_mnist, mnist
from cvkit.data.reporting.report import DataReport, report
from cvkit.data.shard_writer import write_shards

__all__ = [
    "ArrayDataset",
    "DataReport",
    "Dataset",
    "FilenameDataset",
    "FolderData",
    "FolderDataset",
    "JoinedDataset",
    "Loader",
    "Manifest",
    "ParallelDataset",
    "RawBatch",
    "ShardDataset",
    "Subset",
    "TableDataset",
    "Verification",
    "cifar10",
    "cifar100",
    "concat",
    "decode",
    "fashion_mnist",
    "from_folder",
    "kfold",
    "mnist",
    "report",
    "split",
    "write_shapes",
    "write_shards",
]
