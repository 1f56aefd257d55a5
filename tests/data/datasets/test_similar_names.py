"""Class names that look the same, or nearly so, and are not."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from cvkit.data import ArrayDataset, FilenameDataset, FolderDataset, ParallelDataset, TableDataset
from cvkit.data.datasets.similar_names import alike, hint
from cvkit.errors import CvkitWarning, DataError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))

NEAR = {
    "how a letter is encoded": (NFC, NFD),
    "a character without width": ("cat", "ca\u200bt"),
    "a byte order mark": ("cat", "\ufeffcat"),
    "a zero in front": ("1", "01"),
    "a space behind": ("cat", "cat "),
    "a space in front": ("cat", " cat"),
    "another space": ("big cat", "big\u00a0cat"),
    "case": ("cat", "Cat"),
    "several of these": ("Café", f" {NFD}\u200d"),
}
FAR = [
    ("1", "10"),
    ("0", "00x"),
    ("cat", "cats"),
    ("1.5", "1.05"),
    ("café", "cafe"),
    ("a b", "ab"),
    ("x1", "x01"),
    ("m2", "m²"),
]


@pytest.mark.parametrize("case", NEAR)
def test_names_that_are_nearly_the_same(case):
    assert alike(["dog", *NEAR[case], "owl"]) == [list(NEAR[case])]


@pytest.mark.parametrize("names", FAR)
def test_names_that_differ_to_the_eye(names):
    assert alike(names) == []


def test_zero_has_a_name():
    assert alike(["0", "00", "000", "1"]) == [["0", "00", "000"]]


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def folder(root, names, **options):
    for name in names:
        image(root / name / "0.png")
    return FolderDataset(root, **options)


def text(root, names, **options):
    (root / "labels").mkdir(parents=True)
    for index, name in enumerate(names):
        image(root / "images" / f"{index}.png")
        (root / "labels" / f"{index}.txt").write_text(name, "utf-8")
    return ParallelDataset(root / "images", root / "labels", **options)


def table(root, names, **options):
    for index in range(len(names)):
        image(root / f"{index}.png")
    return TableDataset([{"image": f"{i}.png", "label": name} for i, name in enumerate(names)], root=root, **options)


def filename(root, names, **options):
    for name in names:
        image(root / f"{name}-0.png")
    return FilenameDataset(root, r"(?P<label>.+)-", **options)


@pytest.mark.parametrize("build", [folder, text, table, filename])
def test_every_adapter_warns_and_shows_them_escaped(build, tmp_path):
    with pytest.warns(CvkitWarning) as told:
        data = build(tmp_path / "root", [NFC, NFD, "dog"])
    where = {text: f"{tmp_path}/root/labels", table: "the table"}.get(build, tmp_path / "root")
    assert [str(one.message) for one in told] == [
        f"{where} has classes whose names are nearly the same: {NFD!a} and {NFC!a}. Each counts as a class of its own; give them "
        "one name if they are one class, or name all classes with classes=[…] if they are not"
    ]
    assert told[0].filename == __file__
    assert len(data.classes) == 3


@pytest.mark.parametrize("build", [folder, text, table, filename])
def test_classes_that_are_given_are_meant(build, tmp_path):
    assert build(tmp_path / "root", ["a", "A"], classes=["a", "A"]).classes == ["a", "A"]


def test_given_names_of_arrays_are_meant():
    assert ArrayDataset(np.zeros((1, 4, 4), np.uint8), [0], classes=["a", "A"]).classes == ["a", "A"]


def test_many_are_counted(tmp_path):
    with pytest.warns(CvkitWarning, match=r"'A' and 'a'; 'B' and 'b'; .*'E' and 'e'; and 2 more\. Each"):
        folder(tmp_path, [*"abcdefg", *"ABCDEFG"])


@pytest.mark.parametrize("build", [folder, text, table, filename])
def test_an_unknown_class_that_is_nearly_a_known_one_is_shown_beside_it(build, tmp_path):
    with pytest.raises(DataError) as caught:
        build(tmp_path / "root", [NFD, "dog"], classes=[NFC, "dog"])
    assert f" ({NFD!a} is nearly {NFC!a}) " in str(caught.value).splitlines()[-1]


def test_what_is_far_from_all_gives_no_hint():
    assert hint(["owl"], ["cat", "dog"]) == ""
