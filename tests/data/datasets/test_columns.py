"""Datasets of columns, as Hugging Face's are, go straight into a loader."""

import numpy as np
import pytest
import torch
from PIL import Image as PIL

from cvkit.data import Loader
from cvkit.data.datasets.columns import ColumnsDataset
from cvkit.errors import ArgumentError, DataError
from cvkit.transforms import small_image_eval


class Image:
    pass


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Value:
    pass


class Rows:
    """A stand-in that has what ``datasets.Dataset`` documents and the loader uses."""

    def __init__(self, features, count=6, drop=()):
        self.features, self.count, self.drop = features, count, drop
        self.format = {"type": None}

    @property
    def column_names(self):
        return list(self.features)

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if isinstance(key, str):
            return [self._value(key, i) for i in range(self.count)]
        return {name: self._value(name, key) for name in self.features if name not in self.drop}

    def _value(self, name, index):
        kind = type(self.features[name]).__name__
        if kind == "Image":
            return PIL.fromarray(np.full((8, 8, 3), 10 * index, np.uint8))
        return index % 2 if kind == "ClassLabel" else ["cat", "dog"][index % 2]


def check(loader):
    assert loader.classes == ["cat", "dog"]
    inputs, targets = zip(*loader, strict=True)
    assert torch.cat(targets).tolist() == [0, 1, 0, 1, 0, 1]
    assert [round(float(one) * 255) for one in torch.cat(inputs)[:, 0, 0, 0]] == [0, 10, 20, 30, 40, 50]


def test_images_and_classes_are_found_by_their_features():
    check(Loader(Rows({"id": Value(), "img": Image(), "label": ClassLabel(["cat", "dog"])}), 4))


def test_labels_that_are_text_are_numbered_by_the_loader():
    check(Loader(Rows({"image": Image(), "animal": Value()}), 4, classes=["cat", "dog"]))


def test_balanced_weights_and_a_preset_work():
    rows = Rows({"image": Image(), "label": ClassLabel(["cat", "dog"])})
    loader = Loader(rows, 3, transform=small_image_eval(8), weights="balanced")
    assert next(iter(loader))[0].shape == (3, 3, 8, 8)
    assert loader.weights.tolist() == [1 / 3] * 6
    assert loader.fingerprint == Loader(rows, 3, weights="balanced").fingerprint


@pytest.mark.parametrize(("features", "message"), [
    ({"image": Image(), "fine": ClassLabel("ab"), "coarse": ClassLabel("ab")},
     "it is not clear which column of the dataset is the target\n  got: image (Image), fine (ClassLabel), coarse "
     "(ClassLabel)\n  expected: one ClassLabel column, or one column beside the image\n"),
    ({"a": Image(), "b": Image(), "label": ClassLabel("ab")},
     "it is not clear which column of the dataset is the image\n  got: a (Image), b (Image), label (ClassLabel)\n  expected: "
     "one column of images (an Image feature)\n"),
])  # fmt: skip
def test_columns_that_are_not_clear_are_asked_for(features, message):
    with pytest.raises(ArgumentError) as error:
        Loader(Rows(features), 4)
    assert str(error.value) == message + '  fix: choose two: Loader(dataset.select_columns(["image", "label"]), …)'


def test_a_transform_that_drops_a_column_is_named():
    with pytest.raises(DataError) as error:
        list(Loader(Rows({"image": Image(), "label": ClassLabel(["cat", "dog"])}, drop=("label",)), 4, cache=None))
    assert str(error.value) == (
        "sample 0 has no column 'label'\n  got: the columns image\n  expected: 'image' and 'label', as the features of the "
        "dataset say\n  fix: keep both columns in the dataset's own transform"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_the_real_package_goes_straight_in(workers, tmp_path, monkeypatch):
    for name, value in (("HF_HOME", str(tmp_path / "home")), ("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    datasets = pytest.importorskip("datasets")
    for i in range(6):
        directory = tmp_path / "train" / ["cat", "dog"][i // 3]
        directory.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(directory / f"{i}.png")
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path), split="train", cache_dir=str(tmp_path / "cache")
    )
    inputs, targets = zip(*Loader(rows, 4, workers=workers, cache=None), strict=True)
    assert torch.cat(targets).tolist() == [0, 0, 0, 1, 1, 1]
    assert [round(float(one) * 255) for one in torch.cat(inputs)[:, 0, 0, 0]] == [0, 10, 20, 30, 40, 50]
    assert (ColumnsDataset(rows).classes, ColumnsDataset(rows).targets) == (["cat", "dog"], [0, 0, 0, 1, 1, 1])
    assert Loader(rows, 4).fingerprint != Loader(rows.select([5, 4, 3]), 4).fingerprint
