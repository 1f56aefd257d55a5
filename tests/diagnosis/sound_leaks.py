"""Sound programs that share something between train and val, and not their samples."""

import torch
from corpus import network, sound
from mistakes_labels import loader, tensors
from mistakes_leaks import Files, write
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split


@sound
def one_batch_again_and_again():
    data = tensors(16)
    return {"model": network(), "train": DataLoader(data, 16, shuffle=True), "val": DataLoader(data, 16), "epochs": 2}


@sound
def a_val_too_small_to_matter():
    data = tensors(12)
    return {"model": network(), "train": loader(data, batch_size=4), "val": DataLoader(data, 4)}


@sound
def two_parts_of_one_dataset():
    train, val = random_split(tensors(96), [72, 24], generator=torch.Generator().manual_seed(0))
    return {"model": network(), "train": loader(train), "val": DataLoader(val, 8)}


@sound
def views_of_one_tensor():
    inputs, targets = tensors(96).tensors
    train, val = (TensorDataset(inputs[one], targets[one]) for one in (slice(64), slice(64, 96)))
    return {"model": network(), "train": loader(train), "val": DataLoader(val, 8)}


@sound
def two_datasets_over_one_folder_with_other_transforms():
    root = write("train", 0, 48)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0)).tolist()
    train, val = Subset(Files(root), order[:32]), Subset(Files(root), order[32:])
    return {"model": network(classes=2), "train": loader(train), "val": DataLoader(val, 8)}


@sound
def features_of_few_values():
    inputs = torch.randint(0, 2, (128, 4)).float()
    targets = (inputs.sum(1) > 2).long()
    train, val = (TensorDataset(inputs[one], targets[one]) for one in (slice(96), slice(96, 128)))
    return {"model": nn.Sequential(nn.Linear(4, 2)), "train": loader(train), "val": DataLoader(val, 8)}


@sound
def the_very_same_loader():
    train = loader(tensors())
    return {"model": network(), "train": train, "val": train}
