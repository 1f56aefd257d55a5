"""What is written over an image."""

import pytest
import torch
from torch.utils.data import Subset as TorchSubset
from torchvision.datasets import ImageFolder

from cvkit.data import FolderDataset, Subset, write_shapes
from cvkit.errors import ArgumentError
from cvkit.figures import RIGHT, WRONG, shorten
from cvkit.plots.captions import answer, find_classes, find_files, truth

CLASSES = ["ants", "bees", "cats"]


@pytest.mark.parametrize(
    ("target", "classes", "text"),
    [
        (torch.tensor(1), CLASSES, "bees"),
        (torch.tensor([1]), CLASSES, "bees"),
        (torch.tensor(1), None, "1"),
        (torch.tensor(7), CLASSES, "7"),
        (torch.tensor(-100), CLASSES, "-100"),
        (torch.tensor(1.0), CLASSES, "bees"),
        (torch.tensor(True), ["no", "yes"], "yes"),
        (torch.tensor(3.14159), None, "3.142"),
        (torch.tensor(float("nan")), CLASSES, "nan"),
        (torch.tensor([0.3, 0.7, 0.0]), CLASSES, "bees 70 % + ants 30 %"),
        (torch.tensor([0.0, 0.0, 1.0]), CLASSES, "cats"),
        (torch.tensor([1, 0, 1]), CLASSES, "ants, cats"),
        (torch.tensor([0, 0, 0]), CLASSES, "none"),
        (torch.tensor([0.5, 2.0, -1.0, 4.0]), None, "0.5, 2, -1, …"),
        (torch.tensor([0.5, 2.0]), CLASSES, ""),
        (torch.zeros(4, 4), CLASSES, ""),
        (None, CLASSES, ""),
    ],
)
def test_a_target_in_words(target, classes, text):
    assert truth(target, classes) == text


@pytest.mark.parametrize(
    ("output", "target", "classes", "title", "colour"),
    [
        ([0.0, 5.0, 0.0], torch.tensor(1), CLASSES, "✓ bees 99 %", RIGHT),
        ([0.0, 5.0, 0.0], torch.tensor(0), CLASSES, "✗ bees 99 %\nis ants", WRONG),
        ([0.0, 5.0, 0.0], None, CLASSES, "bees 99 %", None),
        ([0.0, 5.0, 0.0], torch.tensor(-100), CLASSES, "bees 99 %\n(is -100)", None),
        ([0.0, 5.0], torch.tensor(1), None, "✓ 1 99 %", RIGHT),
        ([5.0], torch.tensor(1), ["no", "yes"], "✓ yes 99 %", RIGHT),
        ([-5.0], torch.tensor(1), ["no", "yes"], "✗ no 99 %\nis yes", WRONG),
        ([5.0], torch.tensor(1.0), None, "✓ 1 99 %", RIGHT),
        ([2.5], torch.tensor(3.25), None, "2.5\n(is 3.25)", None),
        ([0.0, 5.0, 0.0], torch.tensor([0.3, 0.7, 0.0]), CLASSES, "✓ bees 99 %", RIGHT),
        ([5.0, -5.0, 5.0], torch.tensor([1, 0, 1]), CLASSES, "✓ ants, cats", RIGHT),
        ([5.0, -5.0, -5.0], torch.tensor([1, 0, 1]), CLASSES, "✗ ants\nis ants, cats", WRONG),
        ([float("nan"), 0.0, 0.0], torch.tensor(1), CLASSES, "✗ no answer: not finite\nis bees", WRONG),
        ([float("nan"), 0.0, 0.0], None, CLASSES, "no answer: not finite", None),
        ([3.0], torch.tensor(0), ["only"], "✓ only 100 %", RIGHT),
    ],
)
def test_an_answer_is_compared_and_marked_by_sign_and_colour(output, target, classes, title, colour):
    said = answer(torch.tensor(output), target, classes)
    assert (said.title, said.colour) == (title, colour)


@pytest.mark.parametrize("output", [torch.zeros(5), torch.zeros(3, 4, 4)])
def test_outputs_that_are_no_answers_are_refused(output):
    with pytest.raises(ArgumentError, match=r"no answers that can be named(\n.*)*show_masks\(loader, model\)"):
        answer(output, None, CLASSES)


def test_a_long_name_keeps_its_ends():
    assert shorten("n01484850_great_white_shark", 11) == "n0148…shark"
    assert len(shorten("n01484850_great_white_shark", 11)) == 11
    assert shorten("short", 5) == "short"
    assert truth(torch.tensor(0), ["an_uncommonly_long_name_of_a_class"]) == "an_uncommon…of_a_class"


def test_classes_are_those_given_or_the_loaders_or_its_datasets():
    class Holder:
        def __init__(self, dataset):
            self.dataset = dataset

    class Data:
        classes = ("a", "b")

    assert find_classes(Holder(Holder(Data())), None) == ["a", "b"]
    assert find_classes(Holder(Data()), ["x", "y"]) == ["x", "y"]
    assert find_classes(Holder(None), None) is None
    with pytest.raises(ArgumentError, match=r"fix: classes=\['ants'\]"):
        find_classes(None, "ants")


def test_files_are_found_in_data_sets_of_ours_and_torchvisions_and_in_parts_of_them(tmp_path):
    write_shapes(tmp_path, per_class=2, size=8)
    ours, theirs = FolderDataset(tmp_path), ImageFolder(str(tmp_path))
    assert find_files(theirs) == [path for path, _ in theirs.samples]
    assert len(find_files(ours)) == 6
    assert find_files(ours) == [str(path) for path in ours.paths]
    assert find_files(Subset(ours, [5, 0])) == [find_files(ours)[5], find_files(ours)[0]]
    assert find_files(TorchSubset(theirs, [5, 0])) == [find_files(theirs)[5], find_files(theirs)[0]]
    assert find_files([1, 2]) is None
