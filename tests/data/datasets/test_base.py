import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

from cvkit.data import ArrayDataset, FolderDataset, Loader, Subset, split, write_shapes
from cvkit.data.datasets.base import class_names, fingerprint_of, is_deterministic
from cvkit.errors import ArgumentError, DataError
from cvkit.transforms import segmentation_train, small_image_eval


def labelled(targets, **options):
    return ArrayDataset(np.arange(len(targets), dtype=np.float32)[:, None], targets, **options)


class Only:
    """A dataset of a user's own: targets, and nothing else."""

    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return index, self.targets[index]


# Subset


def test_a_part_holds_its_samples_in_its_order():
    data = labelled([0, 1, 2, 0], classes=["a", "b", "c"])
    part = Subset(data, [3, 1, 1, -2])
    assert (len(part), part.indices, part.targets, part.classes) == (4, [3, 1, 1, -2], [0, 1, 1, 2], ["a", "b", "c"])
    assert [image.item() for image, _ in part] == [3, 1, 1, 2]
    assert part[-1][1] == 2
    with pytest.raises(IndexError):
        part[4]


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, torch.tensor, lambda one: range(one[0], one[-1] + 1)])
def test_indices_may_come_in_any_form(kind):
    part = Subset(labelled([0, 1, 2, 0]), kind([1, 2, 3]))
    assert part.indices == [1, 2, 3]
    assert [type(one) for one in part.indices] == [int] * 3


def test_no_indices_are_a_part_too():
    assert len(Subset(labelled([0]), [])) == 0
    assert Subset(labelled([0]), []).targets == []


@pytest.mark.parametrize(
    ("indices", "got", "fix"),
    [
        ([0, 3, 4], "3 and 1 more", "name samples that are there"),
        ([-4], "-4 and 0 more", "name samples that are there"),
        ([0.0, 1.0], "float64 (2,)", "name samples that are there"),
        ([[0, 1]], "int64 (1, 2)", "name samples that are there"),
        (["a"], "<U1 (1,)", "name samples that are there"),
        (np.array([True, False, True]), "bool (3,)", "a mask is turned into indices by mask.nonzero()"),
    ],
)
def test_indices_that_are_none_are_refused(indices, got, fix):
    with pytest.raises(ArgumentError) as caught:
        Subset(labelled([0, 1, 2]), indices)
    assert str(caught.value) == (
        f"indices cannot be used\n  got: {got}\n  expected: integers from 0 to 2\n  fix: {fix}"
    )


def test_a_part_of_a_part_leads_to_the_whole():
    part = Subset(Subset(labelled([0, 1, 2, 3]), [3, 2, 1]), [0, 2])
    assert (part.targets, [image.item() for image, _ in part]) == ([3, 1], [3, 1])
    assert pickle.loads(pickle.dumps(part)).targets == [3, 1]


def test_the_fingerprint_of_a_part_sees_whole_and_choice():
    data, other = labelled([0, 1, 2]), labelled([0, 1, 1], classes=["0", "1", "2"])
    found = {Subset(one, indices).fingerprint for one in (data, other) for indices in ([0, 1], [1, 0], [0])}
    assert len(found) == 6
    assert Subset(data, (0, 1)).fingerprint == Subset(data, np.array([0, 1])).fingerprint
    assert Subset(Only([1, 2]), [0]).fingerprint != Subset(Only([1, 2, 3]), [0]).fingerprint


def test_a_part_of_a_foreign_data_set_has_what_that_has():
    part = Subset(Only([5, 6]), [1])
    assert (part[0], part.classes, part.paths, part.targets, part.on_error, part.deterministic) == (
        (1, 6),
        None,
        None,
        [6],
        "raise",
        False,
    )
    assert not hasattr(part, "read")
    with pytest.raises(AttributeError, match=r"^'Subset' object has no attribute 'transform'$"):
        part.transform  # noqa: B018


# split


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_each_class_is_split_by_its_share_and_no_sample_is_lost(targets, fraction, seed):
    counts = {target: targets.count(target) for target in targets}
    if max(counts.values()) < 2:
        with pytest.raises(ArgumentError, match=r"^this dataset cannot be split\n"):
            split(Only(targets), fraction, seed)
        return
    rest, part = split(Only(targets), fraction, seed)
    assert sorted([*rest.indices, *part.indices]) == list(range(len(targets)))
    assert rest.indices == sorted(rest.indices)
    assert part.indices == sorted(part.indices)
    for target, count in counts.items():
        taken = part.targets.count(target)
        assert abs(taken - count * fraction) <= 1
        assert 0 < taken < count or count == 1
        assert taken == 0 or count > 1
    assert split(Only(targets), fraction, seed)[1].indices == part.indices


def test_a_split_draws_no_global_number_and_depends_on_its_seed():
    data = Only([0, 1] * 50)
    before = torch.get_rng_state()
    parts = [split(data, 0.3, seed)[1].indices for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(part) for part in parts}) == 4


@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, list, lambda one: [str(i) for i in one], lambda one: list(map(np.int64, one))]
)
def test_targets_may_come_in_any_form(kind):
    _, part = split(Only(kind([0, 0, 0, 0, 1, 1, 1, 1])), 0.25)
    assert sorted(int(target) for target in part.targets) == [0, 1]


def test_targets_that_are_no_classes_are_one_group():
    _, part = split(labelled([0.5, 1.5, 2.5, 3.5]), 0.25)
    assert len(part) == 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_of_nothing_or_all_is_refused(fraction):
    with pytest.raises(ArgumentError) as caught:
        split(Only([0, 0]), fraction)
    assert str(caught.value) == (
        f"fraction cannot be used\n  got: {fraction}\n  expected: a number between 0 and 1\n  fix: fraction=0.2"
    )


def test_what_cannot_be_split_says_why():
    with pytest.raises(ArgumentError) as caught:
        split(TensorDataset(torch.zeros(3)), 0.5)
    assert str(caught.value) == (
        "this dataset cannot be split by class\n  got: TensorDataset of 3 samples without targets\n"
        "  expected: targets, one a sample\n  fix: give the dataset a list of targets"
    )
    short = Only([0, 0, 1, 1])
    short.__class__ = type("Short", (Only,), {"__len__": lambda self: 5})
    with pytest.raises(ArgumentError, match=r"\n  got: Short of 5 samples with 4 targets\n"):
        split(short, 0.5)
    with pytest.raises(ArgumentError) as caught:
        split(Only([0, 1, 2]), 0.5)
    assert str(caught.value) == (
        "this dataset cannot be split\n  got: 3 samples in 3 classes, no class with two\n"
        "  expected: at least one class of two samples or more\n"
        "  fix: add samples, or choose the two parts by hand: Subset(dataset, indices)"
    )


# what both rest on


def test_what_is_known_to_be_the_same_each_time():
    data = labelled([0, 1])

    class Own(ArrayDataset):
        def __getitem__(self, index):
            return torch.rand(1), 0

    class Renamed(ArrayDataset):
        pass

    own = Own(np.zeros((2, 1), np.float32), [0, 1])
    assert is_deterministic(data)
    assert is_deterministic(Renamed(np.zeros((2, 1), np.float32), [0, 1]))
    assert is_deterministic(ConcatDataset([data, Subset(data, [0]), TorchSubset(data, [1])]))
    assert not is_deterministic(own)
    assert not is_deterministic(Subset(own, [0]))
    assert not is_deterministic(ConcatDataset([data, own]))
    assert not is_deterministic([1, 2])


def test_class_names_stand_for_one_class_each():
    assert class_names(iter(["b", "a"])) == ["b", "a"]
    for wrong, fix in (("cat", "['cat']"), (["a", "a"], "train.classes"), ([0, 1], "train.classes")):
        with pytest.raises(ArgumentError) as caught:
            class_names(wrong)
        assert str(caught.value) == (
            f"classes cannot be used\n  got: {wrong!r}\n  expected: a list of names, each of them once\n"
            f"  fix: classes={fix}"
        )


def test_a_fingerprint_tells_parts_apart():
    one = np.arange(6)
    assert fingerprint_of(one) == fingerprint_of(one.copy()) == fingerprint_of(one.reshape(3, 2).T.T.reshape(6))
    found = [
        fingerprint_of("ab", "c"),
        fingerprint_of("a", "bc"),
        fingerprint_of("abc"),
        fingerprint_of(one),
        fingerprint_of(one.reshape(2, 3)),
        fingerprint_of(one.reshape(2, 3).T),
        fingerprint_of(one.astype(np.int32)),
        fingerprint_of([0, 1, 2, 3, 4, 5]),
        fingerprint_of(["a\udcff"]),
    ]
    assert len(set(found)) == len(found)


def test_a_part_is_verified_and_names_its_own_files_only(tmp_path):
    data = FolderDataset(write_shapes(tmp_path, per_class=2))
    (tmp_path / data.paths[1]).write_bytes(b"no image")
    assert Subset(data, [0, 2]).verify()
    found = Subset(data, [1, 2]).verify()
    assert (found.count, list(found.bad)) == (2, [data.paths[1]])
    with pytest.raises(ArgumentError, match=r"^these samples cannot be verified\n  got: part of a list"):
        Subset([1, 2], [0]).verify()


def test_a_getitem_of_the_users_own_wins_over_read(tmp_path):
    class Inverted(FolderDataset):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return image, 2 - target

    whole = Inverted(write_shapes(tmp_path, per_class=2))
    for data in (whole, Subset(whole, range(6))):
        _, targets = next(iter(Loader(data, 6, transform=small_image_eval(16))))
        assert targets.tolist() == [2, 2, 1, 1, 0, 0]


def test_a_mask_that_is_no_image_would_stay_behind_and_is_refused(tmp_path):
    class Masked(FolderDataset):
        def __getitem__(self, index):
            image, _ = super().__getitem__(index)
            return image, torch.zeros(image.height, image.width, dtype=torch.long)

    data = Masked(write_shapes(tmp_path, per_class=1))
    with pytest.raises(
        DataError, match=r"gives a mask as Tensor, which stays behind its image\n  got: a target of shape \(32, 32\)"
    ):
        next(iter(Loader(data, 2, transform=segmentation_train(16))))
