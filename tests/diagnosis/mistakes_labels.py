"""Labels that are wrong somewhere in the data, of which the first batch shows nothing."""

import torch
from corpus import images, mistake, network
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from cvkit.data import ArrayDataset, Loader


def tensors(count=48, classes=3, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    return TensorDataset(torch.randn(count, 3, size, size, generator=generator), targets)


def loader(data, **more):
    return DataLoader(data, **{"batch_size": 8, **({} if "sampler" in more else {"shuffle": True}), **more})


class Listed(Dataset):
    """Images with a list of labels, as people write it."""

    def __init__(self, targets, classes=None, name="targets", add=0, seed=0):
        setattr(self, name, targets)
        self.kept, self.add = targets, add
        self.inputs = torch.randn(len(targets), 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, index):
        return self.inputs[index], self.kept[index] + self.add


def rare(number, count=48):
    """Labels 0 to 2, and one other in the middle."""
    targets = [place % 3 for place in range(count)]
    targets[count // 2] = number
    return targets


@mistake("CV103", "CV305")
def a_fourth_class_in_the_middle(wrong):
    data = TensorDataset(torch.randn(48, 3, 8, 8), torch.tensor(rare(3 if wrong else 2)))
    return {"model": network(), "train": loader(data)}


@mistake("CV103", "CV305")
def minus_one_in_the_middle(wrong):
    return {"model": network(), "train": loader(Listed(rare(-1 if wrong else 2)))}


@mistake("CV103", "CV305")
def counted_from_1_and_the_first_batch_lacks_the_highest(wrong):
    targets = torch.tensor([1, 2, 1, 2, 1, 2, 1, 2] + [1, 2, 3, 2, 1, 3, 1, 2] * 5)
    return {
        "model": network(),
        "train": loader(TensorDataset(torch.randn(48, 3, 8, 8), targets - int(not wrong)), shuffle=False),
    }


@mistake("CV103", "CV305")
def beyond_in_val_through_a_subset(wrong):
    whole = Listed(rare(7 if wrong else 1, 96), name="labels", seed=1)
    return {"model": network(), "train": loader(tensors()), "val": loader(Subset(whole, range(32, 96)), shuffle=False)}


@mistake("CV103", "CV305")
def beyond_in_a_part_of_a_concat(wrong):
    data = ConcatDataset([Listed(rare(0)), Listed(rare(5 if wrong else 0))])
    return {"model": network(), "train": loader(data)}


@mistake("CV103", "CV305")
def beyond_in_cvkits_loader(wrong):
    data = ArrayDataset(torch.randn(48, 3, 8, 8), rare(3 if wrong else 1), classes=list("abcd"[: 3 + wrong]))
    return {"model": network(), "train": Loader(data, 8, shuffle=True)}


@mistake("CV104")
def one_class_only(wrong):
    whole = Listed(sorted(rare(0, 96)))
    part = Subset(whole, range(30)) if wrong else Subset(whole, range(0, 96, 3))
    return {"model": network(), "train": loader(part)}


@mistake("CV104")
def all_labels_zero(wrong):
    targets = torch.zeros(48, dtype=torch.long) if wrong else torch.arange(48) % 3
    return {"model": network(), "train": loader(TensorDataset(torch.randn(48, 3, 8, 8), targets))}


@mistake("CV105")
def a_sorted_dataset_cut_in_two(wrong):
    order = torch.arange(120) if wrong else torch.randperm(120, generator=torch.Generator().manual_seed(0))
    whole = TensorDataset(torch.randn(120, 3, 8, 8), torch.arange(120) // 40)
    parts = Subset(whole, order[:80].tolist()), Subset(whole, order[80:].tolist())
    return {"model": network(), "train": loader(parts[0]), "val": loader(parts[1], shuffle=False)}


@mistake("CV105")
def val_of_one_class(wrong):
    targets = torch.zeros(48, dtype=torch.long) if wrong else torch.arange(48) % 3
    return {
        "model": network(),
        "train": loader(tensors()),
        "val": loader(TensorDataset(torch.randn(48, 3, 8, 8), targets)),
    }


@mistake("CV106")
def imagenets_head(wrong):
    return {"model": network(classes=1000 if wrong else 3), "train": loader(tensors())}


@mistake("CV106")
def imagenets_head_on_a_list_of_batches(wrong):
    return {"model": network(classes=1000 if wrong else 3), "train": images(48)}


@mistake("CV107")
def a_weight_for_each_class(wrong):
    weights = torch.ones(3 if wrong else 48)
    return {"model": network(), "train": loader(tensors(), sampler=WeightedRandomSampler(weights, 48))}


@mistake("CV107")
def weights_of_the_whole_for_a_part(wrong):
    part = Subset(tensors(96), range(48))
    return {
        "model": network(),
        "train": loader(part, sampler=WeightedRandomSampler(torch.ones(96 if wrong else 48), 48)),
    }


@mistake("CV107")
def indices_of_the_whole_for_a_part(wrong):
    part = Subset(tensors(96), range(48, 96))
    places = range(48, 96) if wrong else range(48)
    return {"model": network(), "train": loader(part, sampler=SubsetRandomSampler(places))}


@mistake("CV101")
def val_lacks_the_first_class(wrong):
    val = Listed(rare(1) if not wrong else [one % 2 for one in range(48)], list("bc" if wrong else "abc"), seed=1)
    return {"model": network(), "train": loader(Listed(rare(0), list("abc"))), "val": loader(val, shuffle=False)}


@mistake("CV101")
def spelled_otherwise(wrong):
    val = Listed(rare(1), ["Cat" if wrong else "cat", "cow", "dog"], seed=1)
    train = Listed(rare(1), ["cat", "cow", "dog"])
    return {"model": network(), "train": loader(train), "val": loader(Subset(val, range(48)), shuffle=False)}


@mistake("CV102")
def sorted_and_not_shuffled_through_wrappers(wrong):
    data = ConcatDataset([Subset(Listed(sorted(rare(0))), range(40)), Listed(sorted(rare(0)))])
    return {"model": network(), "train": loader(data, shuffle=not wrong)}


@mistake("CV102")
def sorted_tensors(wrong):
    data = TensorDataset(torch.randn(48, 3, 8, 8), torch.arange(48) // 16)
    return {"model": network(), "train": loader(data, shuffle=not wrong)}


@mistake("CV102")
def sorted_downwards(wrong):
    data = TensorDataset(torch.randn(48, 3, 8, 8), 2 - torch.arange(48) // 16)
    return {"model": nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), "train": loader(data, shuffle=not wrong)}


@mistake("CV102")
def sorted_in_a_list_of_batches(wrong):
    targets = torch.arange(48) // 16 if wrong else torch.arange(48) % 3
    inputs = torch.randn(48, 3, 8, 8) + targets[:, None, None, None]
    return {"model": network(), "train": list(zip(inputs.split(4), targets.split(4), strict=True))}
