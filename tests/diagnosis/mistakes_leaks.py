"""Validation samples that are in train, too."""

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from corpus import mistake, network
from mistakes_inputs import bytes_of
from mistakes_labels import Listed, loader, rare, tensors
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset

import cvkit
from cvkit.data import ArrayDataset, FolderDataset, Loader

ROOT = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)


def write(name, start, count, copied=None):
    """Writes images of two classes into a folder; some of them are copied from another one."""
    root = ROOT / name
    if not root.exists():
        images = bytes_of(100).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for place in range(start, start + count):
            folder = root / "ab"[place % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(images[place])).save(folder / f"{place}.png")
        for path in sorted((ROOT / copied).rglob("*.png"))[:6] if copied is not None else ():
            shutil.copy(path, root / "a" / f"copy-{path.name}")
    return root


class Files(Dataset):
    """Like torchvision's ImageFolder."""

    def __init__(self, root):
        self.samples = [(str(path), "ab".index(path.parent.name)) for path in sorted(Path(root).rglob("*.png"))]
        self.classes = ["a", "b"]
        self.targets = [one for _, one in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, target = self.samples[index]
        return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255, target


@mistake("CV251")
def another_loader_over_the_same_dataset(wrong):
    data, other = tensors(), tensors(24, seed=1)
    return {"model": network(), "train": loader(data), "val": DataLoader(data if wrong else other, 16)}


@mistake("CV251")
def subsets_whose_indices_overlap(wrong):
    data = tensors(96)
    return {
        "model": network(),
        "train": loader(Subset(data, range(64))),
        "val": DataLoader(Subset(data, range(40 if wrong else 64, 96)), 8),
    }


@mistake("CV251")
def two_random_permutations(wrong):
    data = tensors(96)
    first, second = torch.randperm(96), torch.randperm(96)
    return {
        "model": network(),
        "train": loader(Subset(data, first[:72].tolist())),
        "val": DataLoader(Subset(data, (second if wrong else first)[72:].tolist()), 8),
    }


@mistake("CV251")
def samplers_that_overlap(wrong):
    data = tensors(96)
    train = loader(data, sampler=SubsetRandomSampler(range(64)))
    val = loader(data, sampler=SubsetRandomSampler(range(50 if wrong else 64, 96)))
    return {"model": network(), "train": train, "val": val}


@mistake("CV251")
def a_concat_that_holds_val(wrong):
    first, second, other = tensors(), tensors(24, seed=1), tensors(24, seed=2)
    return {
        "model": network(),
        "train": loader(ConcatDataset([first, second if wrong else other])),
        "val": DataLoader(second, 8),
    }


@mistake("CV251")
def the_same_tensors_in_two_datasets(wrong):
    inputs, targets = tensors(96).tensors
    half = slice(None) if wrong else slice(48)
    val = TensorDataset(inputs, targets) if wrong else TensorDataset(inputs[48:], targets[48:])
    return {"model": network(), "train": loader(TensorDataset(inputs[half], targets[half])), "val": DataLoader(val, 8)}


@mistake("CV253")
def a_third_of_val_is_in_train(wrong):
    inputs, targets = tensors(96).tensors
    begin = 56 if wrong else 64
    return {
        "model": network(),
        "train": loader(TensorDataset(inputs[:64].clone(), targets[:64])),
        "val": DataLoader(TensorDataset(inputs[begin : begin + 24].clone(), targets[begin : begin + 24]), 8),
    }


@mistake("CV253")
def arrays_split_twice(wrong):
    inputs, targets = tensors(96).tensors
    order, other = torch.randperm(96), torch.randperm(96)
    places = (other if wrong else order)[72:]
    return {
        "model": network(),
        "train": Loader(ArrayDataset(inputs[order[:72]], targets[order[:72]]), 8, shuffle=True),
        "val": Loader(ArrayDataset(inputs[places], targets[places]), 8),
    }


@mistake("CV253", "CV251")
def a_dataset_of_ones_own_built_twice(wrong):
    return {
        "model": network(),
        "train": loader(Listed(rare(0))),
        "val": DataLoader(Listed(rare(0), seed=int(not wrong)), 8),
    }


@mistake("CV252")
def the_same_folder_twice(wrong):
    train, val = write("train", 0, 48), write("val", 48, 24)
    return {
        "model": network(classes=2),
        "train": loader(Files(train)),
        "val": DataLoader(Files(train if wrong else val), 8),
    }


@mistake("CV252")
def copies_of_training_files(wrong):
    train, val, leaky = write("train", 0, 48), write("val", 48, 24), write("leaky", 48, 24, "train")
    return {
        "model": network(classes=2),
        "train": loader(Files(train)),
        "val": DataLoader(Files(leaky if wrong else val), 8),
    }


@mistake("CV252")
def copies_in_folders_of_cvkit(wrong):
    train, val, leaky = write("train", 0, 48), write("val", 48, 24), write("leaky", 48, 24, "train")
    first = FolderDataset(train)
    second = FolderDataset(leaky if wrong else val, classes=first.classes)
    how = cvkit.transforms.small_image_eval(8)
    loaders = [Loader(one, 8, shuffle=one is first, transform=how) for one in (first, second)]
    return {"model": network(classes=2), "train": loaders[0], "val": loaders[1]}


@mistake("CV252")
def two_lists_of_one_folder_that_overlap(wrong):
    train = write("train", 0, 48)
    return {
        "model": network(classes=2),
        "train": loader(Subset(Files(train), range(0, 48, 2))),
        "val": DataLoader(Subset(Files(train), range(0 if wrong else 1, 48, 3 if wrong else 2)), 8),
    }
