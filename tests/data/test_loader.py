import os
import pickle
import random
import signal
import traceback

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from cvkit import seeding
from cvkit.data import ArrayDataset, FolderDataset, Loader, split, write_shapes
from cvkit.data.datasets.base import is_deterministic
from cvkit.data.order import batches_of, epoch_order
from cvkit.data.sample_cache import Cache, _of_container
from cvkit.errors import ArgumentError, CallError, DataError, ImageError
from cvkit.transforms import classification_eval, classification_train, small_image_train


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return FolderDataset(write_shapes(tmp_path_factory.mktemp("data") / "shapes", per_class=7, size=20))


class Fixed(list):
    """Samples of any kind, the same each time."""

    deterministic = True


def epoch(loader, number=0, start=0):
    loader.set_epoch(number)
    return [loader.finish(raw) for raw in loader.batches(start)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 2**40), st.integers(0, 1000), st.booleans())
def test_each_sample_is_seen_exactly_once_an_epoch(count, size, seed, number, shuffle):
    parts = batches_of(epoch_order(count, seed, number, shuffle=shuffle), size, drop_last=False)
    assert sorted(torch.cat(list(parts)).tolist()) == list(range(count))
    assert len(parts) == -(-count // size)
    assert all(len(part) == size for part in parts[:-1])
    dropped = batches_of(epoch_order(count, seed, number, shuffle=shuffle), size, drop_last=True)
    assert len(dropped) == count // size


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=30)
def test_the_order_is_a_function_of_seed_and_epoch(seed, number):
    order = epoch_order(100, seed, number, shuffle=True)
    assert torch.equal(order, epoch_order(100, seed, number, shuffle=True))
    assert not torch.equal(order, epoch_order(100, seed, number + 1, shuffle=True))
    assert not torch.equal(order, epoch_order(100, seed + 1, number, shuffle=True))


def test_weights_draw_the_rare_as_often_as_asked():
    weights = torch.tensor([0.0, 1.0, 3.0])
    drawn = torch.cat([epoch_order(3, 0, e, shuffle=True, weights=weights) for e in range(2000)])
    counts = torch.bincount(drawn, minlength=3) / len(drawn)
    assert counts[0] == 0
    assert abs(float(counts[2]) - 0.75) < 0.03


@pytest.mark.parametrize("transform", [small_image_train(16), classification_train(16)], ids=["batch", "sample"])
def test_the_same_batches_for_any_number_of_workers_cached_or_not_and_entered_in_the_middle(shapes, transform):
    def make(**options):
        return Loader(shapes, 4, transform=transform, shuffle=True, seed=3, **options)

    plain = make(workers=0, cache=None)
    first, second = epoch(plain, 0), epoch(plain, 1)
    assert not same(first, second)
    with_workers = make(workers=2, cache="auto")
    assert same(epoch(with_workers, 0), first)
    assert same(epoch(with_workers, 1), second)
    cached = make(workers=0, cache="auto")
    assert same(epoch(cached, 1), second)
    assert same(epoch(cached, 0), first)
    assert same(epoch(with_workers, 1, start=3), second[3:])
    assert same(epoch(make(workers=2, cache=None), 1, start=5), second[5:])


def test_a_cached_epoch_loads_nothing_and_starts_no_worker(shapes, monkeypatch):
    loader = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=1, cache="ram")
    first = epoch(loader, 0)
    monkeypatch.setattr("cvkit.data.workers.DataLoader", None)
    monkeypatch.setattr(FolderDataset, "__getitem__", None)
    assert same(epoch(loader, 0), first)
    assert len(epoch(loader, 1)) == 6


def test_a_cache_over_its_bound_keeps_nothing(shapes):
    fetched = Loader(shapes, 4, transform=classification_eval(16), workers=0)._fetcher(0, [0, 1])
    small = Cache(len(shapes), limit=1000)
    small.put(fetched)
    assert not small.filled.any()
    large = Cache(len(shapes), limit=len(shapes) * (3 * 16 * 16 + 8))
    large.put(fetched)
    assert large.holds(torch.tensor([0, 1]))
    assert not large.holds(torch.tensor([1, 2]))


def test_no_global_generator_is_touched_by_iterating(shapes):
    def drawing(image):
        random.random()
        np.random.rand()
        return v2.functional.pil_to_tensor(image)[:, : 10 + 0 * int(torch.randint(3, ())), :10]

    before = seeding.capture()
    for workers in (0, 2):
        epoch(Loader(shapes, 4, transform=drawing, shuffle=True, workers=workers, cache=None))
        epoch(Loader(shapes, 4, transform=classification_train(16), shuffle=True, workers=workers))
    after = seeding.capture()
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert torch.equal(before["torch"], after["torch"])


def test_a_foreign_transform_gets_random_numbers_of_each_sample_and_epoch(shapes):
    def drawn(image):
        return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])

    loader = Loader(shapes, 21, transform=drawn, shuffle=True, workers=0)
    (values, _), (again, _) = epoch(loader, 0)[0], epoch(loader, 1)[0]
    assert len(set(values[:, 0].tolist())) == len(set(values[:, 1].tolist())) == len(set(values[:, 2].tolist())) == 21
    assert not set(values.flatten().tolist()) & set(again.flatten().tolist())
    assert torch.equal(epoch(Loader(shapes, 21, transform=drawn, shuffle=True, workers=2), 0)[0][0], values)


def test_by_hand_it_yields_what_fit_sees_and_goes_on_to_the_next_epoch(shapes):
    loader = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=0)
    by_hand = [list(loader), list(loader)]
    assert same(by_hand[0], epoch(loader, 0))
    assert same(by_hand[1], epoch(loader, 1))
    assert len(loader) == len(by_hand[0]) == 6


def test_a_look_at_the_first_batch_costs_no_batch(shapes):
    loader = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=0)
    whole = epoch(loader)
    for _ in range(2):
        assert same([next(iter(loader))], whole[:1])
    assert same(list(loader), whole)


def test_an_epoch_set_during_an_iteration_is_the_next(shapes):
    loader = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=0)
    for _ in loader:
        loader.set_epoch(7)
    assert loader.state_dict() == {"seed": 0, "epoch": 7, "batch": 0}
    assert same(list(loader), epoch(loader, 7))


@pytest.mark.parametrize("workers", [0, 2])
def test_iterations_inside_one_another_and_left_early_get_their_own_batches(shapes, workers):
    whole = epoch(Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=0))
    loader = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=workers, cache=None)
    outer = []
    for raw in loader.batches():
        outer.append(loader.finish(raw))
        if len(outer) == 2:
            assert same([loader.finish(one) for one in loader.batches()], whole)
            next(left := loader.batches(1))
    assert same(outer, whole)
    assert same(epoch(loader), whole)
    assert same([loader.finish(raw) for raw in left], whole[2:])


def test_a_position_in_mid_epoch_is_saved_and_found_again(shapes):
    loader = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=0)
    whole = list(loader)
    loader.set_epoch(0)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    state = loader.state_dict()
    assert state == {"seed": 0, "epoch": 0, "batch": 4}
    fresh = Loader(shapes, 4, transform=small_image_train(16), shuffle=True, workers=0)
    fresh.load_state_dict(state)
    assert same(list(fresh), whole[4:])
    assert fresh.state_dict() == {"seed": 0, "epoch": 1, "batch": 0}
    with pytest.raises(ArgumentError, match="another seed"):
        Loader(shapes, 4, seed=1).load_state_dict(state)
    with pytest.raises(ArgumentError, match="this is no state of a loader\n  got: keys epoch"):
        loader.load_state_dict({"epoch": 1})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_from_a_worker_too(tmp_path, workers):
    root = write_shapes(tmp_path, 3, 16)
    (root / "circle" / "0002.png").write_bytes(b"no image")
    loader = Loader(FolderDataset(root), 2, workers=workers)
    with pytest.raises(ImageError, match=r"sample 2: cannot decode the image .*0002\.png"):
        list(loader)
    skipping = Loader(FolderDataset(root, on_error="skip"), 2, workers=workers)
    assert sum(len(targets) for _, targets in skipping) == 8
    assert list(skipping.skipped) == [2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_fails_is_named_with_its_sample_and_file(shapes, workers):
    def failing(image):
        raise ZeroDivisionError("boom")

    with pytest.raises(DataError) as caught:
        list(Loader(shapes, 4, transform=failing, workers=workers))
    assert str(caught.value) == (
        "the transform fails on sample 0 (circle/0000.png)\n  got: ZeroDivisionError: boom\n"
        "  expected: a tensor or an image\n"
        "  fix: see its own traceback with this one; transform(dataset[0][0]) shows it alone"
    )
    shown = "".join(traceback.format_exception(caught.value))
    assert "in failing" in shown


def test_an_error_of_the_transform_keeps_its_kind_and_gains_the_sample(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a" / "x.tiff")
    floats = torchvision.datasets.ImageFolder(tmp_path, loader=Image.open)
    for transform in (None, classification_eval(16)):
        with pytest.raises(ImageError, match=r"^sample 0 \(.*x\.tiff\): "):
            list(Loader(floats, 1, transform=transform))


def test_a_worker_that_dies_is_told_and_the_next_iteration_starts_afresh(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # torch looks every 5 seconds
    flag = tmp_path / "die"
    flag.touch()

    def dying(image):
        if flag.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return v2.functional.pil_to_tensor(image)

    loader = Loader(shapes, 4, transform=dying, workers=1)
    with pytest.raises(DataError, match="a worker process died\n  got: DataLoader worker"):
        list(loader)
    flag.unlink()
    assert len(list(loader)) == 6


def test_a_cache_keeps_what_was_left_out_and_loads_nothing_twice(tmp_path, monkeypatch):
    root = write_shapes(tmp_path, 3, 16)
    for name in ("circle/0001.png", "circle/0002.png", "triangle/0000.png"):
        (root / name).write_bytes(b"no image")
    data = FolderDataset(root, on_error="skip")
    loader = Loader(data, 1, workers=0, cache="ram")
    first = epoch(loader)
    assert len(first) == 6
    monkeypatch.setattr(FolderDataset, "__getitem__", None)
    assert same(epoch(loader), first)
    assert [raw.place for raw in loader.batches()] == [0, 3, 4, 5, 7, 8]
    assert sorted(loader.skipped) == [1, 2, 6]


def test_a_cache_that_was_asked_for_says_what_it_cannot_keep():
    mixed = Fixed([(torch.zeros(2), 1), (torch.zeros(2), 0.5)])
    with pytest.raises(
        DataError, match=r'cache="ram" keeps samples of one size and type only\n  got: .*float32 \(\), near'
    ):
        list(Loader(mixed, 1, cache="ram"))
    auto, plain = (epoch(Loader(mixed, 1, cache=cache)) for cache in ("auto", None))
    assert same(auto, plain)


def test_a_cache_given_up_in_mid_epoch_loses_no_batch():
    samples = Fixed([(torch.zeros(2), 0.5), (torch.ones(2), 1), (torch.ones(2), 2)])
    loader = Loader(samples, 1, workers=0, cache="auto")
    assert len(epoch(loader, start=1)) == 2  # kept, until the first sample turns out to be unlike them
    assert same(epoch(loader), epoch(Loader(samples, 1, workers=0, cache=None)))
    assert not loader._cache.filled.any()


def test_a_container_has_the_memory_that_its_limit_leaves(tmp_path):
    assert _of_container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 9000\nshmem 100\n")
    assert _of_container(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert _of_container(tmp_path) is None


def test_what_may_differ_each_time_is_neither_cached_nor_left_unseeded(shapes):
    class Augmented(FolderDataset):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return image.rotate(random.randrange(360)), target

    augmented = Augmented(shapes.root)
    assert is_deterministic(shapes)
    assert not is_deterministic(augmented)
    assert not is_deterministic(split(augmented, 0.5)[0])
    assert same(epoch(Loader(augmented, 4, workers=0), 1), epoch(Loader(augmented, 4, workers=2), 1))
    fake = torchvision.datasets.FakeData(4, (3, 8, 8), 2)
    assert is_deterministic(torch.utils.data.ConcatDataset([torch.utils.data.Subset(fake, [0]), fake]))
    assert not is_deterministic(torchvision.datasets.FakeData(4, (3, 8, 8), 2, transform=v2.RandomCrop(4)))


def test_a_two_stage_transform_of_the_users_own_may_draw_from_any_generator(shapes):
    class Own:
        sample_random = True

        def sample(self, image):
            return torch.tensor([random.randrange(256), np.random.randint(256)], dtype=torch.uint8)

        def batch(self, images, targets, generator):
            return images + torch.rand(images.shape, generator=generator), targets

    before = random.getstate()
    here, there = (epoch(Loader(shapes, 4, transform=Own(), shuffle=True, workers=workers), 1) for workers in (0, 2))
    assert same(here, there)
    assert random.getstate() == before


def test_images_of_16_bits_are_scaled_without_a_transform_too():
    grey = Image.fromarray(np.full((2, 2), 32896, np.uint16))
    inputs, _ = next(iter(Loader([(grey, 0)], 1)))
    assert torch.equal(inputs, torch.full((1, 1, 2, 2), 128 / 255))


@pytest.mark.parametrize(
    ("target", "got"),
    [
        (None, "NoneType: Could not infer dtype"),
        ({}, "dict: Could not infer dtype"),
    ],
)
def test_targets_that_are_no_numbers_are_refused(target, got):
    with pytest.raises(DataError, match=rf"the targets of a batch do not make one tensor \(samples 0\)\n  got: {got}"):
        list(Loader([(torch.zeros(2), target)], 1))


def test_targets_of_different_sizes_and_images_of_different_types_are_refused():
    with pytest.raises(DataError, match=r"do not make one tensor \(samples 0, 1\)"):
        list(Loader([(torch.zeros(2), torch.zeros(1)), (torch.zeros(2), torch.zeros(2))], 2))
    with pytest.raises(
        DataError, match=r"samples 0 and 1 have different types.*\n  got: torch.uint8 and torch.float32"
    ):
        list(Loader([(torch.zeros(2, dtype=torch.uint8), 0), (torch.zeros(2), 0)], 2))


def test_samples_of_different_sizes_say_which_and_what_to_do(tmp_path):
    for name, size in (("a", 4), ("b", 5)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (size, 4)).save(tmp_path / name / "x.png")
    with pytest.raises(DataError, match=r"samples 0 and 1 have different sizes.*\n  got: \(3, 4, 4\) and \(3, 4, 5\)"):
        list(Loader(FolderDataset(tmp_path), 2))


def test_torchvisions_own_data_sets_and_transforms_go_straight_in(tmp_path):
    root = write_shapes(tmp_path, 4, 16)
    inside = torchvision.datasets.ImageFolder(root, transform=torchvision.transforms.ToTensor())
    outside = torchvision.datasets.ImageFolder(root)
    one = list(Loader(inside, 5, workers=0))
    two = list(Loader(outside, 5, workers=0))
    three = list(Loader(outside, 5, transform=torchvision.transforms.ToTensor(), workers=0))
    assert same(one, two)
    assert same(one, three)
    assert Loader(outside, 5).classes == ["circle", "square", "triangle"]


def test_arrays_of_images_and_of_features():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    loader = Loader(ArrayDataset(images, [0, 1, 0, 1, 2]), 5)
    inputs, targets = next(iter(loader))
    assert torch.equal(inputs, torch.from_numpy(images) / 255)
    assert targets.tolist() == [0, 1, 0, 1, 2]
    assert loader.classes == ["0", "1", "2"]
    for shape in ((5, 8, 8), (5, 8, 8, 3), (5, 1, 8, 8), (5, 8, 8, 1)):
        image, _ = ArrayDataset(np.zeros(shape, np.uint8), [0] * 5)[0]
        assert image.size == (8, 8)
    features = torch.randn(6, 4, dtype=torch.float64)
    inputs, targets = next(iter(Loader(ArrayDataset(features, torch.arange(6) / 2), 6)))
    assert torch.equal(inputs, features.float())
    assert targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (np.zeros((3, 4), np.float32), [0, 1], "images and targets do not belong together\n  got: 3 images, 2 targets"),
        (np.zeros((2, 4), np.int32), [0, 1], "integers of another type than uint8\n  got: torch.int32"),
        (np.zeros((2, 4), np.uint8), [0, 1], r"images have no shape of images\n  got: uint8 \(2, 4\)"),
        (np.zeros((2, 4), np.float32), [0, -1], "a target is no class\n  got: targets from -1 to 0"),
        (np.zeros((2, 4), np.float32), ["cat", "dog"], "targets cannot be used\n  got: ndarray: "),
        (np.zeros((2, 4), np.float32), torch.tensor(1), "targets cannot be used\n  got: one number"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, targets, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset(images, targets)


def test_a_split_takes_its_share_of_each_class_and_repeats(shapes):
    train, val = split(shapes, 0.3)
    assert (len(train), len(val)) == (15, 6)
    assert sorted(val.targets) == [0, 0, 1, 1, 2, 2]
    assert sorted([*train.indices, *val.indices]) == list(range(21))
    assert split(shapes, 0.3)[1].indices == val.indices != split(shapes, 0.3, seed=1)[1].indices
    assert val.classes == shapes.classes
    assert val[0][1] == val.targets[0]
    assert val.paths[0] == shapes.paths[val.indices[0]]
    with pytest.raises(ArgumentError, match="fraction cannot be used\n  got: 1"):
        split(shapes, 1)


def test_a_split_groups_names_and_leaves_no_part_empty():
    class Named(list):
        targets = property(lambda self: [name for _, name in self])

    train, val = split(Named([(i, "ab"[i % 2]) for i in range(10)]), 0.2)
    assert (len(train), sorted(val.targets)) == (8, ["a", "b"])
    pairs = ArrayDataset(np.zeros((6, 4), np.float32), np.zeros((6, 2), np.int64))
    assert [len(part) for part in split(pairs, 0.5)] == [3, 3]
    with pytest.raises(ArgumentError, match="this dataset cannot be split\n  got: 3 samples in 3 classes"):
        split(ArrayDataset(np.zeros((3, 4), np.float32), [0, 1, 2]), 0.5)
    with pytest.raises(ArgumentError, match="cannot be split by class\n  got: list of 1 samples without targets"):
        split([(0, 0)], 0.5)


def test_the_fingerprint_of_arrays_sees_bytes_types_targets_and_names():
    images, targets = np.zeros((3, 4), np.float32), [0, 1, 0]
    first = ArrayDataset(images, targets).fingerprint
    assert ArrayDataset(images.copy(), torch.tensor(targets)).fingerprint == first
    assert ArrayDataset(images + 1, targets).fingerprint != first
    assert ArrayDataset(images, [0, 1, 1]).fingerprint != first
    assert ArrayDataset(images, targets, classes=["a", "b"]).fingerprint != first
    assert ArrayDataset(images.reshape(3, 2, 2), targets).fingerprint != first


def test_a_class_name_that_comes_twice_is_refused():
    with pytest.raises(ArgumentError, match=r"classes cannot be used\n  got: \['a', 'a'\]"):
        ArrayDataset(np.zeros((2, 4), np.float32), [0, 1], classes=["a", "a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size cannot be used\n  got: 0"),
        (
            {"batch_size": 30, "drop_last": True},
            "the loader would have no batches\n  got: 21 samples, batch_size=30, drop_last=True",
        ),
        ({"batch_size": 4, "workers": -1}, "workers cannot be used"),
        ({"batch_size": 4, "cache": "disk"}, "cache cannot be used\n  got: 'disk'"),
        (
            {"batch_size": 4, "cache": "gpu"},
            'cache cannot be used\n  got: \'gpu\'\n  expected: "auto", "ram", "device" or None',
        ),
        ({"batch_size": 4, "seed": None}, "seed cannot be used\n  got: None"),
        ({"batch_size": 4, "transform": 3}, "transform cannot be used\n  got: 3"),
        ({"batch_size": 4, "weights": [1.0]}, r"weights cannot be used\n  got: \(1,\)"),
        (
            {"batch_size": 4, "cache": "device", "transform": classification_train(16)},
            'cache="device" keeps what is the same each time',
        ),
    ],
)
def test_wrong_arguments_are_answered(shapes, options, message):
    with pytest.raises(ArgumentError, match=message):
        Loader(shapes, **options)


def test_an_empty_data_set_has_no_batches():
    with pytest.raises(ArgumentError, match="the loader would have no batches\n  got: 0 samples"):
        Loader([], 4)


def test_samples_that_are_no_pair_and_data_sets_that_fail_are_named():
    with pytest.raises(DataError, match=r"sample 0 of list is not \(image, target\)\n  got: Tensor"):
        list(Loader([torch.zeros(3)], 1))

    class Broken(list):
        def __getitem__(self, index):
            raise ValueError("boom")

    with pytest.raises(DataError, match="sample 0 of Broken cannot be loaded\n  got: ValueError: boom"):
        list(Loader(Broken([1]), 1))


def test_a_loader_pickles_and_shows_itself(shapes):
    loader = Loader(shapes, 4, transform=small_image_train(16), workers=2, cache=None)
    first = epoch(loader)
    copy = pickle.loads(pickle.dumps(loader))
    assert same(epoch(copy), first)
    assert repr(copy).startswith("Loader(FolderDataset(")
    cached = Loader(shapes, 4, transform=small_image_train(16), cache="ram")
    epoch(cached)
    assert len(pickle.dumps(cached)) < 5_000  # without the images that it keeps
    assert same(epoch(pickle.loads(pickle.dumps(cached))), first)
    assert copy.fingerprint == loader.fingerprint != Loader(shapes, 5).fingerprint


class Levels:
    """Images as a custom dataset may give them."""

    deterministic = True

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 10

    def __getitem__(self, index):
        array = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        made = {
            "image": Image.fromarray(array),
            "array": array,
            "tensor": torch.from_numpy(array).movedim(-1, 0),
            "floats": array / 255,
        }
        return made[self.kind], index % 2


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("cache", [None, "ram"])
def test_arrays_and_tensors_are_cut_as_images_are(kind, cache):
    transform = classification_train(24)

    def batches(kind, workers):
        loader = Loader(Levels(kind), 4, transform=transform, shuffle=True, cache=cache, workers=workers)
        return [inputs for _ in range(2) for inputs, _ in loader]

    expected = batches("image", 0)
    for workers in (0, 1):
        got = batches(kind, workers)
        assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_floats_are_no_images_and_the_sample_is_named():
    with pytest.raises(ImageError, match=r"^sample 0: this is no image\n  got: ndarray float64 \(40, 50, 3\)"):
        next(iter(Loader(Levels("floats"), 4, transform=classification_train(24), workers=0)))


@pytest.mark.parametrize(("given", "first", "fix"), [
    ({"num_workers": 4}, "Loader has no argument num_workers", "it is called workers here: workers=…"),
    ({"sufle": True}, "Loader has no argument sufle", "did you mean shuffle=…?"),
])  # fmt: skip
def test_a_call_that_does_not_fit_is_answered(given, first, fix):
    with pytest.raises(CallError) as error:
        Loader([(torch.zeros(3), 0)], 1, **given)
    lines = str(error.value).splitlines()
    assert (lines[0], lines[-1]) == (first, f"  fix: {fix}")
    assert "self" not in lines[2]


def test_a_call_without_a_batch_size_is_answered():
    with pytest.raises(CallError, match=r"^Loader needs batch_size\n"):
        Loader([(torch.zeros(3), 0)])
