"""Sound programs whose labels a hasty check would suspect."""

import torch
from corpus import network, sound
from mistakes_labels import Listed, loader, rare, tensors
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)


@sound
def labels_from_1_that_getitem_makes_right():
    return {"model": network(), "train": loader(Listed([one + 1 for one in rare(0)], add=-1))}


@sound
def twenty_classes_in_batches_of_4():
    return {"model": network(classes=20), "train": loader(tensors(60, 20), batch_size=4)}


@sound
def a_small_part_of_ten_classes():
    whole = Listed([place % 10 for place in range(200)], classes=list("abcdefghij"))
    return {"model": network(classes=10), "train": loader(Subset(whole, range(0, 200, 29)), batch_size=4)}


@sound
def val_sorted_by_class():
    val = TensorDataset(torch.randn(48, 3, 8, 8), torch.arange(48) // 16)
    return {"model": network(), "train": loader(tensors()), "val": DataLoader(val, 8)}


@sound
def rare_classes_that_the_small_val_lacks():
    train = TensorDataset(torch.randn(200, 3, 8, 8), torch.tensor(([0] * 9 + [1]) * 19 + [2] * 10))
    val = TensorDataset(torch.randn(20, 3, 8, 8), torch.tensor(([0] * 9 + [1]) * 2))
    return {"model": network(), "train": loader(train), "val": loader(val)}


@sound
def one_class_and_a_loss_of_its_own():
    data = TensorDataset(torch.randn(48, 3, 8, 8), torch.zeros(48, dtype=torch.long))
    return {"model": network(), "train": loader(data), "step": lambda m, b, s: (m(b[0]) - 1).pow(2).mean()}


@sound
def one_frequent_class_not_shuffled():
    targets = torch.zeros(96, dtype=torch.long)
    targets[::24] = 1
    return {"model": network(classes=2), "train": DataLoader(TensorDataset(torch.randn(96, 3, 8, 8), targets), 8)}


@sound
def a_hundred_outputs_for_the_first_ten_classes_of_a_subset():
    whole = Listed([place % 100 for place in range(300)])
    part = Subset(whole, [place for place in range(300) if place % 100 < 10])
    return {"model": network(classes=100), "train": loader(part)}


@sound
def balanced_by_a_sampler():
    return {"model": network(), "train": loader(tensors(), sampler=WeightedRandomSampler(torch.rand(48), 24))}


@sound
def two_parts_by_samplers():
    whole = tensors(96)
    train, val = (loader(whole, sampler=SubsetRandomSampler(one)) for one in (range(64), range(64, 96)))
    return {"model": network(), "train": train, "val": val}


@sound
def ignored_samples_of_minus_100():
    data = TensorDataset(torch.randn(48, 3, 8, 8), torch.tensor(rare(-100)))
    return {"model": network(), "train": loader(data)}


@sound
def val_of_the_first_classes_only():
    train, val = Listed(rare(0), list("abc")), Listed(rare(0), list("abc"), seed=1)
    return {"model": network(), "train": loader(train), "val": loader(ConcatDataset([val]))}


@sound
def numbers_that_are_amounts_and_sorted():
    data = TensorDataset(torch.randn(48, 4), torch.linspace(0, 1, 48)[:, None])
    return {"model": nn.Linear(4, 1), "train": DataLoader(data, 8), "loss": "mse"}


@sound
def prototypes_of_other_classes_in_val():
    def step(model, batch, state):
        return F.cross_entropy(model(batch[0]), batch[1] % 3)

    val = TensorDataset(torch.randn(48, 3, 8, 8), torch.arange(48) % 3 + 3)
    return {"model": network(), "train": loader(tensors()), "val": loader(val), "step": step}
