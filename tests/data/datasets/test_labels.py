"""Labels that are text in a dataset of the user's own: numbered by the classes that the loader is given, or refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

import cvkit
from cvkit.data import ArrayDataset, FolderDataset, Loader, split, write_shapes
from cvkit.errors import ArgumentError, DataError
from cvkit.plots.model_outputs import spread_over_dataset
from cvkit.transforms import classification_train, denoise, small_image_train


class Pets(Dataset):
    """Samples as many write them: an image, and its label as text."""

    def __init__(self, *labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.new("RGB", (8, 8), (index, 0, 0)), self.labels[index]


class Same(Pets):
    deterministic = True


PETS = Pets("cat", "dog", "cat", "bird", "dog")


@pytest.mark.parametrize("transform", [None, small_image_train(8), classification_train(8)])
@pytest.mark.parametrize("workers", [0, 1])
def test_labels_are_numbered_by_the_classes_that_are_given(transform, workers):
    loader = Loader(PETS, 2, transform=transform, workers=workers, classes=("dog", "cat", "bird"))
    assert loader.classes == ["dog", "cat", "bird"]
    for _ in range(2):
        targets = torch.cat([targets for _, targets in loader])
        assert (targets.dtype, targets.tolist()) == (torch.int64, [1, 0, 1, 2, 0])
    assert loader.peek().targets.tolist() == [1, 0]


def test_samples_that_are_kept_stay_numbered():
    for transform in (small_image_train(8), classification_train(8)):
        loader = Loader(Same(*PETS.labels), 2, transform=transform, cache="ram", classes=["dog", "cat", "bird"])
        for _ in range(2):
            assert torch.cat([targets for _, targets in loader]).tolist() == [1, 0, 1, 2, 0]
        assert loader.cached_bytes


def test_part_of_a_dataset_is_numbered_by_the_classes_of_all():
    assert [t.tolist() for _, t in Loader(Subset(PETS, [4, 3]), 2, classes=["bird", "cat", "dog"])] == [[2, 0]]


@pytest.mark.filterwarnings("ignore:CV213")
def test_a_model_is_trained_on_text_and_answers_in_it(tmp_path):
    transform = denoise(8, noise=0, channels=1)
    plain = cvkit.transforms.small_image_eval(8, channels=1)
    loader = Loader(PETS, 2, transform=plain, classes=["bird", "cat", "dog"])
    model = cvkit.models.create("linear", num_classes=3, in_channels=1, size=8)
    checkpoint = cvkit.callbacks.Checkpoint(tmp_path, monitor="train_loss")
    cvkit.fit(model, loader, epochs=1, progress=False, callbacks=[checkpoint])
    predictor = cvkit.load(tmp_path / "last.pt")
    assert predictor.transform == plain
    assert predictor.predict(PETS[0][0]).label in ("bird", "cat", "dog")
    assert next(iter(Loader(PETS, 2, transform=transform, classes=["bird", "cat", "dog"])))[1].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("label", "mend"),
    [("bord", " (did you mean 'bird'?)"), ("Cat ", " ('Cat ' is nearly 'cat')"), ("xylophone", "")],
)
def test_an_unknown_label_is_named_with_its_sample_and_the_nearest_class(label, mend, workers):
    with pytest.raises(DataError) as caught:
        list(Loader(Pets("cat", "dog", label), 2, workers=workers, classes=["cat", "dog", "bird"]))
    assert str(caught.value).startswith(
        f"the label of sample 2 is no known class\n  got: {label!r}\n  expected: one of 'cat', 'dog', 'bird'\n"
        f"  fix: mend the label{mend}, or add it to classes=[…]"
    )


@pytest.mark.parametrize("transform", [None, small_image_train(8)])
def test_text_without_classes_is_refused_with_the_line_to_write(transform):
    with pytest.raises(DataError) as caught:
        next(iter(Loader(PETS, 3, transform=transform)))
    assert str(caught.value) == (
        "the label of sample 0 is text, and no classes are given to number it by\n  got: 'cat'\n"
        "  expected: a number, or the names of all classes in the order of their numbers\n"
        "  fix: name the classes: Loader(dataset, …, classes=['cat', 'dog']), and the classes that are not in this batch"
    )
    with pytest.raises(DataError, match=r"the label of sample 0 is text"):
        cvkit.preflight(torch.nn.Flatten(), Loader(PETS, 3, transform=transform))


def test_a_dataset_that_knows_its_classes_and_gives_text_is_answered_with_them():
    data = Pets("cat", "dog")
    data.classes = ["bird", "cat", "dog"]
    with pytest.raises(DataError, match=r"Loader\(dataset, …, classes=\['bird', 'cat', 'dog'\]\)$"):
        list(Loader(data, 2))
    assert [t.tolist() for _, t in Loader(data, 2, classes=data.classes)] == [[1, 2]]


def test_classes_other_than_the_datasets_own_are_refused(tmp_path):
    folder = FolderDataset(write_shapes(tmp_path, per_class=2, size=8))
    with pytest.raises(ArgumentError) as caught:
        Loader(split(folder, 0.5)[0], 2, classes=["square", "circle", "triangle"])
    assert str(caught.value) == (
        "Subset has other classes than those given\n  got: classes='square', 'circle', 'triangle'\n"
        "  expected: those of the dataset: 'circle', 'square', 'triangle'\n"
        "  fix: leave classes out, or give them to the dataset"
    )
    same = [targets.tolist() for _, targets in Loader(folder, 6, classes=folder.classes)]
    assert same == [targets.tolist() for _, targets in Loader(folder, 6)]


@pytest.mark.parametrize(
    ("dataset", "got"),
    [
        (Pets("cat", 1), "1 (int)"),
        (TensorDataset(torch.zeros(2, 3), torch.zeros(2)), "tensor(0.) (Tensor)"),
        (ArrayDataset(np.zeros((2, 3), np.float32), [0.5, 1.5]), "0.5 (float)"),
    ],
)
def test_a_number_is_not_taken_for_a_class_that_was_given(dataset, got):
    with pytest.raises(DataError, match="is no label to be numbered by classes") as caught:
        list(Loader(dataset, 2, classes=["cat", "dog"]))
    assert f"\n  got: {got}\n  expected: a label as text\n  fix: if the dataset numbers" in str(caught.value)


@pytest.mark.parametrize("classes", ["cat", ["cat", "cat"], [0, 1]])
def test_classes_that_are_no_names_are_refused(classes):
    with pytest.raises(ArgumentError, match="classes cannot be used"):
        Loader(PETS, 2, classes=classes)


def test_classes_are_part_of_what_decides_a_run():
    one, other = (Loader(PETS, 2, classes=names) for names in (["cat", "dog", "bird"], ["dog", "cat", "bird"]))
    assert len({one.fingerprint, other.fingerprint, Loader(PETS, 2).fingerprint}) == 3


def test_labels_that_are_text_are_drawn_in_balance():
    data = Pets("cat", "cat", "cat", "dog")
    data.targets = list(data.labels)
    loader = Loader(data, 4, weights="balanced", classes=["cat", "dog"])
    assert loader.weights.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


def test_a_look_at_some_samples_keeps_the_numbering():
    loader = Loader(PETS, 5, classes=["dog", "cat", "bird"])
    assert [targets.tolist() for _, targets in spread_over_dataset(loader, 2)] == [[0, 2]]
