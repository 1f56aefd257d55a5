"""Arrays that are in memory are used where they are: the same batches as through images, without making one."""

import multiprocessing
import pickle
import random

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import Subset as TorchSubset
from torchvision.transforms import v2

from cvkit.data import ArrayDataset, Loader, split
from cvkit.data.datasets.arrays import in_memory
from cvkit.data.datasets.base import Subset
from cvkit.errors import DataError
from cvkit.transforms import classification_train, digits_train, small_image_eval, small_image_train

COUNT = 30


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _write_mnist(root, kind):
    raw = root / kind.__name__ / "raw"
    raw.mkdir(parents=True)
    for name, content, dims in (
        ("train-images-idx3-ubyte", numbers(COUNT, 28, 28), (COUNT, 28, 28)),
        ("train-labels-idx1-ubyte", np.arange(COUNT, dtype=np.uint8) % 10, (COUNT,)),
        ("t10k-images-idx3-ubyte", numbers(COUNT, 28, 28), (COUNT, 28, 28)),
        ("t10k-labels-idx1-ubyte", np.arange(COUNT, dtype=np.uint8) % 10, (COUNT,)),
    ):
        head = bytes([0, 0, 8, len(dims)]) + b"".join(size.to_bytes(4, "big") for size in dims)
        (raw / name).write_bytes(head + content.tobytes())
    return kind(root, train=True)


def _write_cifar(root, kind):
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    names = [name for name, _ in kind.train_list]
    for place, name in enumerate(names):
        count = COUNT // len(names)
        labels = [(place * count + i) % 10 for i in range(count)]
        content = {"data": numbers(count, 3072, seed=place), "labels": labels, "fine_labels": labels}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: list("abcdefghij")}))
    return kind(root, train=True)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        found = {
            kind.__name__: _write_mnist(root, kind)
            for kind in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST)
        }
        found |= {
            kind.__name__: _write_cifar(root, kind)
            for kind in (torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100)
        }
    targets = np.arange(COUNT) % 10
    found["grey"] = ArrayDataset(numbers(COUNT, 12, 12), targets)
    found["colour"] = ArrayDataset(numbers(COUNT, 12, 12, 3), targets)
    found["channels first"] = ArrayDataset(numbers(COUNT, 3, 12, 12), targets)
    found["features"] = ArrayDataset(numbers(COUNT, 7).astype(np.float32), targets / 3)
    found["many targets"] = ArrayDataset(numbers(COUNT, 7).astype(np.float32), numbers(COUNT, 2).astype(np.int64))
    return found


NAMES = ["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "grey", "colour", "channels first", "features", "many targets"]
IMAGES = NAMES[:7]


def epoch(loader, number=0, start=0):
    loader.set_epoch(number)
    return [loader.finish(raw) for raw in loader.batches(start)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def side(data):
    return data[0][0].size[0]


def grey(data):
    return data[0][0].mode == "L"


def stage(data):
    if grey(data):
        return digits_train(side(data))
    return small_image_train(side(data), cutmix=1.0, num_classes=10)


@pytest.mark.parametrize("part", ["whole", "part", "torch's part", "part of a part"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("staged", [False, True])
def test_the_batches_are_those_made_of_images_one_by_one(sets, monkeypatch, name, part, staged):
    whole = sets[name]
    chosen = [7, 3, 29, 3, 0, 12]
    data = {
        "whole": whole,
        "part": Subset(whole, chosen),
        "torch's part": TorchSubset(whole, chosen),
        "part of a part": Subset(TorchSubset(whole, chosen), [5, 1, 0]),
    }[part]
    transform = stage(whole) if staged and name in IMAGES else None
    plain = Loader(data, 4, transform=transform, shuffle=True, workers=0, cache=None)
    expected = [epoch(plain, number) for number in (0, 1)]
    loader = Loader(data, 4, transform=transform, shuffle=True, workers=2, cache="auto")
    monkeypatch.setattr(type(whole), "__getitem__", None)
    before = set(multiprocessing.active_children())
    assert same(epoch(loader, 0), expected[0])
    assert same(epoch(loader, 1), expected[1])
    assert same(epoch(loader, 1, start=1), expected[1][1:])
    assert set(multiprocessing.active_children()) <= before
    assert loader.peek().place == 0


@pytest.mark.parametrize("cache", ["auto", "ram", "device"])
def test_grey_arrays_are_not_copied(sets, cache):
    for name in ("MNIST", "FashionMNIST", "grey"):
        whole = sets[name]
        held = whole.images if name == "grey" else whole.data
        images, _ = in_memory(whole)
        assert images.data_ptr() == held.data_ptr()
        assert tuple(images.shape) == (COUNT, 1, *held.shape[1:])
        loader = Loader(whole, 4, transform=stage(whole), cache=cache)
        epoch(loader)
        assert loader._cache.get(torch.tensor([0]))[0].data_ptr() != held.data_ptr()
        assert loader.cached_bytes == held.nbytes + 8 * COUNT
        assert loader._cache._images.data_ptr() == held.data_ptr()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_is_changed_in_place_leaves_the_data_alone(sets, name):
    loader = Loader(sets[name], COUNT)
    for raw in loader.batches():
        raw.images.zero_()
        raw.targets.zero_()
    inputs, targets = next(iter(loader))
    assert bool(inputs.any())
    assert bool(targets.any())


def test_the_cache_need_not_be_filled_again_after_a_stage_that_changes_the_images(sets):
    for name in ("MNIST", "colour"):
        loader, plain = (
            Loader(sets[name], 4, transform=small_image_eval(20), shuffle=True, workers=0, cache=cache)
            for cache in ("auto", None)
        )
        assert same(epoch(loader, 0), epoch(plain, 0))
        assert same(epoch(loader, 1), epoch(plain, 1))
        assert loader.cached_bytes == COUNT * (3 * 20 * 20 + 8)


def test_grey_arrays_become_colour_where_the_preset_wants_it(sets):
    whole = sets["MNIST"]
    loader, plain = (
        Loader(whole, 4, transform=small_image_train(28), shuffle=True, workers=0, cache=cache)
        for cache in ("auto", None)
    )
    assert same(epoch(loader), epoch(plain))
    assert epoch(loader)[0][0].shape[1] == 3


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "colour"])
def test_random_crops_of_arrays_are_fresh_each_epoch(sets, name):
    for transform in (classification_train(8), v2.Compose([v2.RandomCrop(8), v2.PILToTensor()])):
        loader, plain = (
            Loader(sets[name], 4, transform=transform, shuffle=True, workers=0, cache=cache) for cache in ("auto", None)
        )
        first, second = epoch(loader, 0), epoch(loader, 1)
        assert same(first, epoch(plain, 0))
        assert same(second, epoch(plain, 1))
        assert not same(first, second)


class Inverted(torchvision.datasets.MNIST):
    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return image.point(lambda level: 255 - level), target + 1


class Named(torchvision.datasets.MNIST):
    """Changes nothing, which nobody can know."""


class Marked(ArrayDataset):
    def __getitem__(self, index):
        image, _ = super().__getitem__(index)
        return image, 7


class Chosen(Subset):
    def __getitem__(self, index):
        image, _ = super().__getitem__(index)
        return image, 7


class ChosenOfTorch(TorchSubset):
    def __getitem__(self, index):
        image, _ = super().__getitem__(index)
        return image, 7

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def copied(whole, kind):
    other = kind.__new__(kind)
    other.__dict__.update(whole.__dict__)
    return other


@pytest.mark.parametrize("kind", [Inverted, Named])
def test_a_class_derived_from_torchvisions_is_asked_for_each_sample(sets, kind):
    data = copied(sets["MNIST"], kind)
    assert in_memory(data) is None
    inputs, targets = next(iter(Loader(data, COUNT, workers=0)))
    whole, plain = next(iter(Loader(sets["MNIST"], COUNT)))
    if kind is Inverted:
        assert torch.allclose(inputs, 1 - whole)
        assert torch.equal(targets, plain + 1)
    else:
        assert torch.equal(inputs, whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: Marked(data.images.numpy(), data.values),
        lambda data: Chosen(data, [0, 4, 9]),
        lambda data: ChosenOfTorch(data, [0, 4, 9]),
    ],
)
def test_a_class_derived_from_one_of_ours_is_asked_for_each_sample(sets, make):
    data = make(sets["grey"])
    assert in_memory(data) is None
    assert in_memory(Subset(data, [0, 1])) is None
    for cache in ("auto", None):
        targets = torch.cat([batch[1] for batch in Loader(data, 4, workers=0, cache=cache)])
        assert targets.tolist() == [7] * len(data)


@pytest.mark.parametrize("option", ["transform", "target_transform", "transforms"])
@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_transforms_inside_of_torchvisions_sets_are_applied(sets, name, option):
    data = copied(sets[name], type(sets[name]))
    action = {
        "transform": lambda image: v2.functional.pil_to_tensor(image) // 2 + random.randrange(2),
        "target_transform": lambda target: target + 100,
        "transforms": lambda image, target: (v2.functional.pil_to_tensor(image), target + 100),
    }[option]
    setattr(data, option, action)
    if option != "transforms":
        data.transforms = torchvision.datasets.vision.StandardTransform(data.transform, data.target_transform)
    assert in_memory(data) is None
    assert in_memory(TorchSubset(data, [0])) is None
    kept, plain = (Loader(data, 4, shuffle=True, workers=0, cache=cache) for cache in ("auto", None))
    first = epoch(kept)
    assert same(first, epoch(plain))
    if option == "transform":
        assert not same(first, epoch(kept, 1))
    elif option == "target_transform":  # these sets do not look at the third
        assert min(int(targets.min()) for _, targets in first) >= 100


@pytest.mark.parametrize(
    "targets",
    [
        [i / 4 for i in range(COUNT)],
        np.arange(COUNT) / 4,
        np.arange(COUNT, dtype=np.int32),
        np.arange(COUNT, dtype=np.uint8),
        torch.arange(COUNT, dtype=torch.int32),
        torch.arange(COUNT) / 4,
        [[i, i + 1] for i in range(COUNT)],
        tuple(range(COUNT)),
    ],
    ids=["floats", "float array", "int32", "uint8", "int32 tensor", "float tensor", "pairs", "tuple"],
)
def test_other_targets_given_to_a_set_of_torchvisions_stay_what_they_are(sets, targets):
    data = copied(sets["CIFAR10"], torchvision.datasets.CIFAR10)
    data.targets = targets
    kept, plain = (Loader(data, 4, workers=0, cache=cache) for cache in ("auto", None))
    assert same(epoch(kept), epoch(plain))


def test_targets_that_are_no_numbers_are_told_of_by_a_batch(sets):
    data = copied(sets["CIFAR10"], torchvision.datasets.CIFAR10)
    data.targets = ["cat"] * COUNT
    with pytest.raises(DataError, match=r"^the label of sample 0 is text, and no classes are given to number it by"):
        list(Loader(data, 2))


def test_images_chosen_from_a_set_of_torchvisions_count(sets):
    data = copied(sets["MNIST"], torchvision.datasets.MNIST)
    keep = data.targets < 3
    data.data, data.targets = data.data[keep], data.targets[keep]
    targets = torch.cat([batch[1] for batch in Loader(data, 4)])
    assert targets.tolist() == [0, 1, 2] * 3
    data.targets = data.targets[:5]
    assert in_memory(data) is None  # nobody knows which belong together


def test_a_part_is_split_off_and_kept_apart(sets):
    train, val = split(sets["CIFAR10"], 0.34)
    seen = torch.cat([batch[0] for part in (train, val) for batch in Loader(part, 8)])
    whole = torch.cat([batch[0] for batch in Loader(sets["CIFAR10"], 8)])
    assert sorted(map(_bytes, seen)) == sorted(map(_bytes, whole))


def _bytes(image):
    return image.numpy().tobytes()
