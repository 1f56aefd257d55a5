"""Several datasets as one: concat and +, and torch's ConcatDataset in the loader."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset, random_split
from torch.utils.data import Subset as TorchSubset
from torchvision.datasets import ImageFolder

import cvkit
from cvkit.data import (
    ArrayDataset,
    FilenameDataset,
    FolderDataset,
    JoinedDataset,
    Loader,
    ParallelDataset,
    Subset,
    TableDataset,
    concat,
    split,
)
from cvkit.data.datasets.arrays import in_memory
from cvkit.data.datasets.class_tables import union
from cvkit.errors import ArgumentError, CvkitError, CvkitWarning, DataError, ImageError
from cvkit.transforms import classification_train, segmentation_eval, small_image_train


def source(path, level=0, mode="RGB", size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode != "RGB" else (level,) * 3).save(path)
    return path


def folder(root, names, count=3, **options):
    for number, name in enumerate(names):
        for index in range(count):
            source(root / name / f"{index}.png", 10 * number + index)
    return FolderDataset(root, **options)


def text(root, names, count=3, **options):
    for number, name in enumerate(names):
        for index in range(count):
            source(root / "images" / f"{number}{index}.png", 10 * number + index)
            (root / "labels").mkdir(exist_ok=True)
            (root / "labels" / f"{number}{index}.txt").write_text(name)
    return ParallelDataset(root / "images", root / "labels", **options)


def filename(root, names, count=3, **options):
    for name in names:
        for index in range(count):
            source(root / f"{name}.{index}.png", index)
    return FilenameDataset(root, r"^(?P<label>\w+)\.", **options)


def table(root, names, count=3, **options):
    rows = [{"image": f"{name}{index}.png", "label": name} for name in names for index in range(count)]
    for row in rows:
        source(root / row["image"])
    return TableDataset(rows, root=root, **options)


def arrays(root, names, count=3, **options):
    targets = [number for number in range(len(names)) for _ in range(count)]
    return ArrayDataset(np.zeros((len(targets), 10, 12, 3), np.uint8), targets, classes=names)


def masks(root, values, *, count=2, **options):
    for index in range(count):
        source(root / "images" / f"{index}.png", index)
        path = root / "masks" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.resize(np.array(values, np.uint8), (10, 12))).save(path)
    return ParallelDataset(root / "images", root / "masks", "mask", **options)


ADAPTERS = [folder, text, filename, table, arrays]


@pytest.mark.parametrize("second", ADAPTERS)
@pytest.mark.parametrize("first", ADAPTERS)
def test_every_two_adapters_are_joined_with_their_classes_numbered_together(first, second, tmp_path):
    ants, bees = first(tmp_path / "a", ["ants", "cats"]), second(tmp_path / "b", ["bees"])
    both = ants + bees
    assert both.classes == ["ants", "bees", "cats"]
    assert both.targets == [0, 0, 0, 2, 2, 2, 1, 1, 1]
    assert [both[index][1] for index in range(9)] == both.targets
    assert all(type(target) is int for target in both.targets)
    assert len(both) == 9
    assert both.verify()
    assert both.verify().count == 9
    if arrays in (first, second):
        assert both.paths is None
    else:
        assert list(both.paths) == [str(one.root / path) for one in (ants, bees) for path in one.paths]
        assert all(os.path.isfile(path) for path in both.paths)


def test_two_folders_of_one_class_each_get_two_labels(tmp_path):
    ants, bees = text(tmp_path / "a", ["ants"]), text(tmp_path / "b", ["bees"])
    for both in (ants + bees, concat(ants, bees)):
        loader = Loader(both, 6)
        assert next(iter(loader))[1].tolist() == [0, 0, 0, 1, 1, 1]
        assert loader.classes == ["ants", "bees"]
    assert repr(ants + bees) == "JoinedDataset(6 samples of 2 datasets, 2 classes)"


def test_given_classes_are_kept_and_an_unknown_one_is_an_error_by_name(tmp_path):
    ants, bees = folder(tmp_path / "a", ["ants"]), table(tmp_path / "b", ["bees"])
    assert concat(ants, bees, classes=["bees", "owls", "ants"]).targets == [2, 2, 2, 0, 0, 0]
    with pytest.raises(DataError) as caught:
        concat(ants, bees, classes=["ants", "owls"])
    assert str(caught.value) == (
        "classes does not hold bees\n  got: part 1 (TableDataset) has bees\n  expected: only ants, owls\n"
        "  fix: add them to classes=[…], or leave classes out"
    )
    with pytest.raises(ArgumentError, match="classes cannot be used"):
        concat(ants, bees, classes="ants")


@pytest.mark.parametrize(
    ("parts", "together"),
    [
        ([["a", "c"], ["b"]], ["a", "b", "c"]),
        ([["10"], ["9"]], ["9", "10"]),
        ([["10", "9"], ["8"]], ["10", "8", "9"]),
        ([["ground", "cell"], ["cell", "ant"]], ["ground", "cell", "ant"]),
        ([["x"], ["x"]], ["x"]),
        ([["1"], ["²"]], ["1", "²"]),
    ],
)
def test_the_order_of_joined_classes(parts, together):
    assert union(parts) == together


def test_several_are_joined_flat_and_a_joined_one_with_classes_stays_as_it_is(tmp_path):
    one, two, three = (folder(tmp_path / name, [name]) for name in ("c", "a", "b"))
    assert (one + two + three).parts == [one, two, three]
    assert (one + two + three).targets == [2, 2, 2, 0, 0, 0, 1, 1, 1]
    nested = concat(one, two, classes=["z", "c", "a"]) + three
    assert nested.classes == ["z", "c", "a", "b"]
    assert nested.targets == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [nested[index][1] for index in range(9)] == nested.targets
    assert nested.paths[4] == f"{tmp_path}/a/a/1.png"


def test_parts_of_datasets_are_joined_and_joined_ones_are_split(tmp_path):
    ants, bees = folder(tmp_path / "a", ["ants"], 8), folder(tmp_path / "b", ["bees"], 8)
    train, val = split(ants + bees, 0.25)
    assert (sorted(train.targets), sorted(val.targets)) == ([0] * 6 + [1] * 6, [0, 0, 1, 1])
    assert train.classes == ["ants", "bees"]
    parts = [split(one, 0.25)[0] for one in (ants, bees)]
    both = parts[0] + parts[1]
    assert both.targets == [0] * 6 + [1] * 6
    assert both.paths[0] == str(ants.root / parts[0].paths[0])
    assert val.verify()
    assert (train + val).classes == ["ants", "bees"]
    assert (train + val)[15][1] == 1


def test_fingerprints_see_classes_and_parts_but_not_where_they_lie(tmp_path):
    made = [folder(tmp_path / name, [label]) for name, label in (("a", "ants"), ("b", "bees"), ("c", "bees"))]
    assert (made[0] + made[1]).fingerprint == (made[0] + made[2]).fingerprint
    others = [made[1] + made[0], concat(*made[:2], classes=["bees", "ants"]), concat(made[0]), made[0]]
    assert len({one.fingerprint for one in [made[0] + made[1], *others]}) == 5


def test_an_index_is_that_of_all(tmp_path):
    both = folder(tmp_path / "a", ["ants"]) + folder(tmp_path / "b", ["bees"])
    assert both[-1][1] == both[5][1] == both[np.int64(5)][1] == 1
    for index in (6, -7):
        with pytest.raises(IndexError, match=f"index {index} of 6 samples"):
            both[index]


def test_a_damaged_file_is_named_with_its_index_in_all(tmp_path):
    both = folder(tmp_path / "a", ["ants"]) + folder(tmp_path / "b", ["bees"])
    bad = tmp_path / "b" / "bees" / "1.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ImageError, match=f"^sample 4: cannot decode the image {bad}\n"):
        both[4]
    with pytest.raises(ImageError, match=f"^sample 4: cannot decode the image {bad}\n"):
        list(Loader(both, 6))
    found = both.verify()
    assert list(found.bad) == [str(bad)]
    assert found.bad[str(bad)].startswith(f"cannot decode the image {bad}\n")
    assert list(Subset(both, [5, 4]).verify().bad) == [str(bad)]


def test_a_sample_that_cannot_be_decoded_is_left_out_where_all_parts_say_so(tmp_path):
    parts = [folder(tmp_path / name, [label], on_error="skip") for name, label in (("a", "ants"), ("b", "bees"))]
    (tmp_path / "b" / "bees" / "1.png").write_bytes(b"no image")
    loader = Loader(parts[0] + parts[1], 6)
    assert next(iter(loader))[1].tolist() == [0, 0, 0, 1, 1]
    assert list(loader.skipped) == [4]
    assert (parts[0] + arrays(tmp_path, ["ants"])).on_error == "skip"
    strict = FolderDataset(tmp_path / "a")
    assert (parts[1] + strict).on_error == "raise"


@pytest.mark.parametrize("options", [{}, {"cache": None}, {"cache": "ram"}, {"cache": None, "workers": 2}], ids=str)
def test_the_batches_of_joined_datasets_are_those_of_one(options, tmp_path):
    whole = folder(tmp_path, ["ants", "bees"], 6)
    halves = [Subset(whole, range(6)), Subset(whole, range(6, 12))]
    for transform in (small_image_train(8), classification_train(8)):
        expected = list(Loader(whole, 5, transform=transform, shuffle=True, workers=0, cache=None))
        loader = Loader(halves[0] + halves[1], 5, transform=transform, shuffle=True, **options)
        for _ in range(2):
            loader.set_epoch(0)
            for (inputs, targets), (other, others) in zip(loader, expected, strict=True):
                assert torch.equal(inputs, other)
                assert torch.equal(targets, others)


def test_large_jpegs_are_decoded_at_a_smaller_size(tmp_path):
    for name in ("a", "b"):
        path = tmp_path / name / name / "0.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (640, 480), (90, 90, 90)).save(path)
    both = FolderDataset(tmp_path / "a") + FolderDataset(tmp_path / "b")
    image, target = both.read(1, lambda width, height: (80, 60))
    assert (image.size, target) == ((80, 60), 1)
    assert Subset(both, [1]).read(0, lambda width, height: (80, 60))[0].size == (80, 60)
    assert both.size(1) == (640, 480)

    class Own(FolderDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)

    mixed = both + Own(tmp_path / "a")
    assert not hasattr(mixed, "read")
    assert mixed[2][1] == 0


def test_joined_datasets_go_to_workers_without_their_targets(tmp_path):
    both = folder(tmp_path / "a", ["ants"]) + folder(tmp_path / "b", ["bees"])
    assert both.targets == [0] * 3 + [1] * 3
    copy = pickle.loads(pickle.dumps(both))
    assert "targets" not in vars(copy)
    assert copy.targets == both.targets
    assert copy[4][1] == 1
    assert copy.read(4)[1] == 1


def test_arrays_that_are_joined_are_used_from_memory(tmp_path):
    first = ArrayDataset(np.full((2, 6, 6), 7, np.uint8), [0, 1], classes=["b", "a"])
    second = ArrayDataset(np.full((2, 6, 6), 9, np.uint8), [0, 1], classes=["a", "c"])
    both = first + second
    assert both.classes == ["b", "a", "c"]
    images, targets = in_memory(both)
    assert images.shape == (4, 1, 6, 6)
    assert targets.tolist() == [0, 1, 1, 2] == both.targets
    loader = Loader(both, 4, transform=None)
    assert loader.cached_bytes > 0
    assert next(iter(loader))[1].tolist() == [0, 1, 1, 2]
    assert in_memory(both + ArrayDataset(np.zeros((1, 5, 5), np.uint8), [0], classes=["a"])) is None
    features = ArrayDataset(np.zeros((2, 3), np.float32), [0.5, 1.5])
    joined = features + features
    assert joined.classes is None
    assert joined.targets == [0.5, 1.5, 0.5, 1.5]
    assert joined.verify().count == 4
    bad = features + ArrayDataset(np.array([[np.nan] * 3], np.float32), [0.5])
    assert bad.verify().bad == {"2": "the image of sample 0 is not finite"}


# masks, images and numbers


def test_masks_are_renumbered_and_an_ignored_value_stays(tmp_path):
    first = masks(tmp_path / "a", [0, 1, 255], classes=["ground", "cell"], ignore=255)
    second = masks(tmp_path / "b", [0, 1, 255], classes=["ground", "tree"], ignore=255)
    both = first + second
    assert both.classes == ["ground", "cell", "tree"]
    assert (both.kind, both.ignore) == ("mask", 255)
    assert np.unique(np.asarray(both[0][1])).tolist() == [0, 1, 255]
    assert np.unique(np.asarray(both[2][1])).tolist() == [0, 2, 255]
    assert both[2][1].mode == "L"
    assert both.targets[2] == tmp_path / "b" / "masks" / "0.png"
    targets = next(iter(Loader(both, 4, transform=segmentation_eval(8))))[1]
    assert targets.amax((1, 2)).tolist() == [255] * 4


def test_masks_without_names_are_read_only_when_their_classes_are_asked_for(tmp_path):
    first, second = masks(tmp_path / "a", [0, 3]), masks(tmp_path / "b", [0, 5])
    both = first + second
    assert both.known_classes is None
    assert "classes" not in vars(first)
    assert both.classes == ["0", "1", "2", "3", "4", "5"]
    assert np.asarray(both[2][1]).max() == 5


def test_images_and_numbers_are_joined_with_their_own(tmp_path):
    pairs = []
    for name in "ab":
        for side in ("images", "labels"):
            source(tmp_path / name / side / "0.png", 40)
        pairs.append(ParallelDataset(tmp_path / name / "images", tmp_path / name / "labels", "image"))
    both = pairs[0] + pairs[1]
    assert (both.kind, both.classes) == ("image", None)
    assert both[1][1].size == (12, 10)
    assert both.targets == [tmp_path / name / "labels" / "0.png" for name in "ab"]
    values = TableDataset(
        [{"image": "0.png", "x": 1, "y": 2}], label=["x", "y"], root=tmp_path / "a/images", kind="value"
    )
    assert (values + values).classes == ["x", "y"]
    assert (values + values).targets == [[1.0, 2.0]] * 2
    swapped = TableDataset(
        [{"image": "0.png", "x": 1, "y": 2}], label=["y", "x"], root=tmp_path / "a/images", kind="value"
    )
    with pytest.raises(
        DataError, match=r"the numbers of these datasets do not mean the same\n  got: part 0 .*: shape .*x, y; part 1"
    ):
        values + swapped


def test_targets_of_different_kinds_are_refused_by_name(tmp_path):
    labels, areas = text(tmp_path / "t", ["ants"]), masks(tmp_path / "m", [0, 1])
    with pytest.raises(DataError) as caught:
        labels + areas
    assert str(caught.value) == (
        "datasets with targets of different kinds cannot be joined\n"
        "  got: part 0 (ParallelDataset): class labels; part 1 (ParallelDataset): masks\n"
        "  expected: class labels in all, or masks in all, or images in all, or numbers in all\n"
        "  fix: train on one kind, or write the labels of the other part in the same way"
    )
    numbers = ArrayDataset(np.zeros((2, 4, 4), np.uint8), [0.5, 1.5])
    with pytest.raises(DataError, match=r"part 0 .*: class labels; part 1 .ArrayDataset.: numbers"):
        labels + numbers


def test_masks_that_do_not_go_together_are_refused(tmp_path):
    named, plain = masks(tmp_path / "a", [0, 1], classes=["ground", "cell"]), masks(tmp_path / "b", [0, 1])
    with pytest.raises(DataError, match="some of these datasets name the classes of their masks, and some do not"):
        named + plain
    ignoring = [masks(tmp_path / str(one), [0, 1, one], classes=["ground", "cell"], ignore=one) for one in (2, 255)]
    with pytest.raises(
        DataError, match=r"mark what is no class with different values\n  got: .*: ignore=2; .*: ignore=255"
    ):
        ignoring[0] + ignoring[1]
    with pytest.raises(DataError, match="ignore is the number of a class\n  got: ignore=2, 3 classes together"):
        concat(ignoring[0], masks(tmp_path / "c", [0, 1], classes=["ground", "tree"]))


@pytest.mark.parametrize("other", [3, "ants", None, [1]])
def test_what_is_no_dataset_is_refused(other, tmp_path):
    with pytest.raises((TypeError, ArgumentError)):
        folder(tmp_path, ["ants"]) + other
    with pytest.raises(ArgumentError, match="dataset 1 cannot be joined"):
        concat(folder(tmp_path, ["ants"]), other)


def test_nothing_is_no_dataset():
    with pytest.raises(ArgumentError, match="there is nothing to join"):
        concat()


def test_a_target_that_its_part_has_no_class_for_is_an_error_by_name():
    class Wrong(ArrayDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0], 7

    images = np.zeros((1, 4, 4), np.uint8)
    both = ArrayDataset(images, [0], classes=["b"]) + Wrong(images, [0], classes=["a"])
    with pytest.raises(
        DataError, match=r"^sample 1: a target is no class\n  got: 7\n  expected: an integer from 0 to 0\n"
    ):
        concat(both, classes=["x", "b", "a"])[1]


# warnings


def test_different_backgrounds_are_told(tmp_path):
    white, black = folder(tmp_path / "a", ["ants"]), folder(tmp_path / "b", ["bees"], background=(0, 0, 0))
    with pytest.warns(
        CvkitWarning, match=r"lay different backgrounds behind transparent pixels: part 0 .*255.*part 1 .*0, 0, 0"
    ) as caught:
        both = concat(white, black)
    assert both.background is None
    assert caught[0].filename == __file__
    assert (white + white).background == (255, 255, 255)


def test_class_names_that_are_nearly_the_same_in_two_parts_are_told(tmp_path):
    with pytest.warns(CvkitWarning, match=r"joined datasets together has classes .*: 'Ants' and 'ants'") as caught:
        both = folder(tmp_path / "a", ["ants"]) + folder(tmp_path / "b", ["Ants"])
    assert both.classes == ["Ants", "ants"]
    assert caught[0].filename == __file__
    assert concat(*both.parts, classes=["ants", "Ants"]).targets == [0, 0, 0, 1, 1, 1]


def test_verify_finds_a_file_that_is_in_two_parts(tmp_path):
    ants, bees = folder(tmp_path / "a", ["ants"]), folder(tmp_path / "b", ["bees"])
    os.link(tmp_path / "a/ants/0.png", tmp_path / "b/bees/9.png")
    found = (ants + FolderDataset(tmp_path / "b")).verify()
    assert found.bad == {
        f"{tmp_path}/b/bees/9.png": f"the image {tmp_path}/b/bees/9.png is the same file as {tmp_path}/a/ants/0.png, which has "
        "another label"
    }
    assert bees.verify()


# the run


@pytest.mark.filterwarnings("ignore:CV213", "ignore:CV217")
def test_a_checkpoint_of_joined_data_describes_itself(tmp_path):
    parts = [
        folder(tmp_path / name, [label], max_pixels=bound)
        for name, label, bound in (("a", "ants", 500), ("b", "bees", 900))
    ]
    train, val = split(parts[0] + parts[1], 0.3)
    loaders = [Loader(one, 4, transform=small_image_train(8)) for one in (train, val)]
    model = cvkit.models.create("linear", num_classes=2, in_channels=3, size=8)
    cvkit.fit(
        model,
        *loaders,
        epochs=1,
        callbacks=[cvkit.callbacks.Checkpoint(tmp_path / "run", monitor="val_loss")],
        progress=False,
    )
    how = cvkit.load_checkpoint(tmp_path / "run" / "last.pt")
    assert how["description"]["classes"] == ["ants", "bees"]
    assert how["description"]["images"]["max_pixels"] == 900
    assert how["description"]["images"]["background"] == [255, 255, 255]
    predictor = cvkit.load(tmp_path / "run" / "last.pt")
    assert predictor.classes == ["ants", "bees"]
    assert predictor.predict(tmp_path / "a/ants/0.png").label in ("ants", "bees")
    with pytest.raises(CvkitError, match="900"):
        predictor.predict(source(tmp_path / "large.png", size=(40, 40)))


# torch's ConcatDataset


WRAPPED = {
    "whole": lambda joined: joined,
    "a subset": lambda joined: TorchSubset(joined, range(len(joined))),
    "cvkit's subset": lambda joined: Subset(joined, range(len(joined))),
    "a random split": lambda joined: random_split(joined, [len(joined) - 1, 1])[0],
    "nested": lambda joined: ConcatDataset([joined, joined]),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_concat_dataset_that_numbers_differently_is_refused_everywhere(wrap, tmp_path):
    data = WRAPPED[wrap](ConcatDataset([text(tmp_path / "a", ["ants"]), text(tmp_path / "b", ["bees"])]))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(360, 2))
    loader = DataLoader(data, 4)
    said = "the parts of this ConcatDataset number their classes differently\n  got: part 0 .*: ants; part 1 .*: bees\n"
    with pytest.raises(DataError, match=said):
        Loader(data, 4)
    with pytest.raises(DataError, match=said):
        cvkit.fit(model, loader, epochs=1, progress=False)
    with pytest.raises(DataError, match=said):
        cvkit.preflight(model, loader)
    with pytest.raises(DataError, match=said):
        cvkit.fit(model, [(torch.zeros(1, 360), torch.zeros(1).long())], loader, epochs=1, progress=False)


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_concat_dataset_of_the_same_classes_keeps_classes_and_targets(wrap, tmp_path):
    names = ["ants", "bees"]
    data = WRAPPED[wrap](ConcatDataset([folder(tmp_path / "a", names), table(tmp_path / "b", names)]))
    loader = Loader(data, 24, weights="balanced")
    assert loader.classes == names
    assert len(loader.dataset.targets) == len(data)
    assert [data[index][1] for index in range(len(data))] == loader.dataset.targets
    assert next(iter(Loader(data, 24)))[1].tolist() == loader.dataset.targets


def test_a_concat_dataset_of_torchvisions_folders(tmp_path):
    folder(tmp_path / "a", ["ants"])
    folder(tmp_path / "b", ["bees"])
    ants, bees = ImageFolder(tmp_path / "a"), ImageFolder(tmp_path / "b")
    with pytest.raises(DataError, match="number their classes differently"):
        Loader(ants + bees, 6)
    both = concat(ants, TorchSubset(bees, [0, 1]))
    assert both.classes == ["ants", "bees"]
    assert next(iter(Loader(both, 6)))[1].tolist() == [0, 0, 0, 1, 1]
    assert isinstance(both, JoinedDataset)


def test_a_concat_dataset_that_says_nothing_of_classes_goes_in_as_it_is():
    data = ConcatDataset(
        [TensorDataset(torch.zeros(2, 3), torch.zeros(2)), TensorDataset(torch.ones(2, 3), torch.ones(2))]
    )
    loader = Loader(data, 4)
    assert loader.dataset is data
    assert loader.classes is None
    assert next(iter(loader))[1].tolist() == [0, 0, 1, 1]
