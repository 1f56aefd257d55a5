"""Parts of a dataset: groups stay together, classes keep their shares, and the same seed gives the same parts."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from cvkit.data import ArrayDataset, FolderDataset, kfold, split, write_shapes
from cvkit.errors import ArgumentError


def patients(count, seed=0):
    """A dataset of classes 0 and 1, one to nine samples a patient, and the patient of each sample."""
    draw = random.Random(seed)
    groups = [patient for patient in range(count) for _ in range(draw.randint(1, 9))]
    draw.shuffle(groups)
    targets = [int(draw.random() < 0.3) for _ in groups]
    targets[:2] = [0, 1]
    return ArrayDataset(torch.zeros(len(groups), 2), targets), [f"patient {one}" for one in groups]


def of(part, groups):
    return {groups[index] for index in part.indices}


@pytest.mark.parametrize("seed", range(4))
def test_split_keeps_groups_together_and_classes_near_their_share(seed):
    data, groups = patients(60, seed)
    train, val = split(data, 0.2, seed, groups=groups)
    assert not of(train, groups) & of(val, groups)
    assert sorted(train.indices + val.indices) == list(range(len(data)))
    assert abs(len(val) / len(data) - 0.2) < 0.03
    assert abs(np.mean(val.targets) - np.mean(data.targets)) < 0.05
    assert split(data, 0.2, seed, groups=groups)[1].indices == val.indices
    assert split(data, 0.2, seed + 1, groups=groups)[1].indices != val.indices


def test_split_without_groups_is_as_it_was():
    data = ArrayDataset(torch.zeros(20, 2), [0] * 12 + [1] * 8)
    assert split(data, 0.25, 3)[1].indices == split(data, 0.25, 3, groups=None)[1].indices == [2, 4, 7, 16, 17]


def test_two_groups_are_one_and_one():
    data = ArrayDataset(torch.zeros(10, 2), [0, 1] * 5)
    train, val = split(data, 0.2, groups=["a"] * 7 + ["b"] * 3)
    assert val.indices in ([7, 8, 9], list(range(7)))
    assert len(train) + len(val) == 10


def test_groups_can_be_read_off_the_path(tmp_path):
    write_shapes(tmp_path, per_class=12, size=8)
    data = FolderDataset(tmp_path)
    train, val = split(data, 0.25, groups=lambda path: int(path.rpartition("/")[2].partition(".")[0]) % 4)
    numbers = [{int(path.rpartition("/")[2].partition(".")[0]) % 4 for path in part.paths} for part in (train, val)]
    assert [len(one) for one in numbers] == [3, 1]
    assert not numbers[0] & numbers[1]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_folds_cover_each_sample_once_and_keep_shares(k):
    data = ArrayDataset(torch.zeros(50, 2), [0] * 29 + [1] * 21)
    folds = list(kfold(data, k))
    assert len(folds) == k
    assert sorted(index for _, val in folds for index in val.indices) == list(range(50))
    for train, val in folds:
        assert sorted(train.indices + val.indices) == list(range(50))
        counts = Counter(val.targets)
        assert abs(counts[0] - 29 / k) < 1
        assert abs(counts[1] - 21 / k) < 1
        assert abs(len(val) - 50 / k) < 1
    assert [val.indices for _, val in kfold(data, k)] == [val.indices for _, val in folds]
    assert [val.indices for _, val in kfold(data, k, seed=1)] != [val.indices for _, val in folds]


@pytest.mark.parametrize("k", [2, 4])
def test_folds_keep_groups_together(k):
    data, groups = patients(40, 5)
    folds = list(kfold(data, k, groups=groups))
    assert sorted(index for _, val in folds for index in val.indices) == list(range(len(data)))
    for train, val in folds:
        assert not of(train, groups) & of(val, groups)
        assert abs(len(val) / len(data) - 1 / k) < 0.05
        assert abs(np.mean(val.targets) - np.mean(data.targets)) < 0.1


def test_as_many_folds_as_groups():
    data = ArrayDataset(torch.zeros(12, 2), [0, 1] * 6)
    folds = list(kfold(data, 3, groups=["big"] * 10 + ["b", "c"]))
    assert sorted(len(val) for _, val in folds) == [1, 1, 10]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda data: split(data, 0.2, groups=[1, 2]),
            "groups do not fit the dataset\n  got: 2 groups\n  expected: one group for each of 6 samples\n"
            "  fix: give a sample that belongs to no other a group of its own",
        ),
        (
            lambda data: split(data, 0.2, groups=[1, 2, None, 1, 2, 1]),
            "groups do not fit the dataset\n  got: no group for 1 samples, e.g. sample 2\n"
            "  expected: one group for each of 6 samples\n  fix: give a sample that belongs to no other a group of its own",
        ),
        (
            lambda data: kfold(data, 3, groups=[1, 2, 1, 1, 2, 1]),
            "there are too few groups\n  got: 2 groups in 6 samples\n  expected: at least 3\n"
            "  fix: see that groups= names what a sample belongs to",
        ),
        (
            lambda data: split(data, 0.2, groups=str),
            "groups cannot be a function of the path here\n  got: a ArrayDataset, whose samples are no files\n"
            "  expected: one value a sample\n  fix: groups=[…]",
        ),
        (
            lambda data: kfold(data, 7),
            "k cannot be used\n  got: 7\n  expected: an integer from 2 to 6, the samples\n  fix: k=5",
        ),
        (
            lambda data: kfold([1, 2, 3], 2),
            "this dataset cannot be cut into folds by class\n  got: list of 3 samples without targets\n"
            "  expected: targets, one a sample\n  fix: give the dataset a list of targets",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ArgumentError) as error:
        call(ArrayDataset(torch.zeros(6, 2), [0, 1] * 3))
    assert str(error.value) == message
