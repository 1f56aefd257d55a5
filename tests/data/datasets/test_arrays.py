import pickle

import numpy as np
import pytest
import torch

from cvkit.data import ArrayDataset, Subset
from cvkit.errors import ArgumentError, DataError


def levels(*shape):
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("images", "mode", "first"),
    [
        (levels(2, 4, 5), "L", lambda a: a[1, 2, 3]),
        (levels(2, 1, 4, 5), "L", lambda a: a[1, 0, 2, 3]),
        (levels(2, 4, 5, 1), "L", lambda a: a[1, 2, 3, 0]),
        (levels(2, 4, 5, 3), "RGB", lambda a: tuple(a[1, 2, 3])),
        (levels(2, 3, 4, 5), "RGB", lambda a: tuple(a[1, :, 2, 3])),
        (levels(2, 4, 5, 3)[..., ::-1], "RGB", lambda a: tuple(a[1, 2, 3])),
        (levels(2, 4, 5)[:, ::-1], "L", lambda a: a[1, 2, 3]),
        (levels(2, 5, 4).transpose(0, 2, 1), "L", lambda a: a[1, 2, 3]),
    ],
    ids=["HW", "1HW", "HW1", "HWC", "CHW", "BGR turned to RGB", "upside down", "transposed"],
)
@pytest.mark.parametrize("kind", [np.asarray, lambda a: torch.as_tensor(a.copy())], ids=["numpy", "torch"])
def test_bytes_are_images_of_any_layout(images, mode, first, kind):
    data = ArrayDataset(kind(images), [0, 1])
    image, target = data[1]
    assert (image.mode, image.size, target) == (mode, (5, 4), 1)
    assert image.getpixel((3, 2)) == first(images)


def test_images_three_high_are_still_channels_last():
    assert ArrayDataset(levels(2, 3, 5, 3), [0, 1])[0][0].size == (5, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_are_features_as_they_are(dtype):
    data = ArrayDataset(np.ones((2, 7), dtype), [0, 1])
    assert (data[0][0].dtype, tuple(data[0][0].shape)) == (torch.float32, (7,))
    assert ArrayDataset(torch.ones(2, 3, 4, 5, dtype=torch.bfloat16), [0, 1])[0][0].shape == (3, 4, 5)


@pytest.mark.parametrize("writeable", [True, False])
def test_arrays_that_may_not_be_written_to_are_taken_without_a_warning(recwarn, writeable):
    images = levels(2, 4, 4)
    images.flags.writeable = writeable
    data = ArrayDataset(images, [0, 1])
    assert not recwarn.list
    assert data.images.data_ptr() == images.ctypes.data  # a mapped file is not read into memory
    data[0][0].putpixel((0, 0), 99)
    assert images[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("targets", "classes", "listed", "sample"),
    [
        ([0, 2], ["0", "1", "2"], [0, 2], 2),
        ((0, 1), ["0", "1"], [0, 1], 1),
        (np.array([0, 1], np.uint8), ["0", "1"], [0, 1], 1),
        (np.array([0, 1], np.uint16), ["0", "1"], [0, 1], 1),
        (torch.tensor([0, 1], dtype=torch.int32), ["0", "1"], [0, 1], 1),
        ([False, True], ["0", "1"], [0, 1], 1),
        ([0.5, 1.5], None, [0.5, 1.5], 1.5),
        ([[0.0, 1.0], [1.0, 0.5]], None, [[0.0, 1.0], [1.0, 0.5]], torch.tensor([1.0, 0.5])),
        ([[0, 1], [1, 0]], None, [[0, 1], [1, 0]], torch.tensor([1, 0])),
    ],
)
def test_targets_are_classes_or_numbers(targets, classes, listed, sample):
    data = ArrayDataset(levels(2, 4, 4), targets)
    assert (data.classes, data.targets) == (classes, listed)
    found = data[1][1]
    assert torch.equal(found, sample) if isinstance(sample, torch.Tensor) else found == sample
    assert type(found) is type(sample)


def test_classes_may_be_named():
    assert ArrayDataset(levels(2, 4, 4), [0, 1], classes=["a", "b", "c"]).classes == ["a", "b", "c"]
    assert ArrayDataset(levels(2, 4, 4), [[0.0, 1.0]] * 2, classes=["a", "b"]).classes == ["a", "b"]
    with pytest.raises(ArgumentError, match=r"^classes cannot be used\n"):
        ArrayDataset(levels(2, 4, 4), [0, 1], classes="ab")


@pytest.mark.parametrize(
    ("targets", "classes", "got", "expected"),
    [
        ([0, -1], None, "-1 to 0", "0 to 0, for the classes 0"),
        ([1, 2], ["a", "b"], "1 to 2", "0 to 1, for the classes a, b"),
        ([-5, 1], ["a", "b"], "-5 to 1", "0 to 1, for the classes a, b"),
    ],
)
def test_targets_that_are_no_class_are_refused(targets, classes, got, expected):
    with pytest.raises(DataError) as caught:
        ArrayDataset(levels(2, 4, 4), targets, classes=classes)
    assert str(caught.value) == (
        f"a target is no class\n  got: targets from {got}\n  expected: {expected}\n"
        "  fix: count the classes from 0, or name all of them"
    )


@pytest.mark.parametrize(("images", "targets"), [(3, 2), (2, 3), (0, 0), (0, 1)])
def test_arrays_of_different_length_are_refused(images, targets):
    with pytest.raises(DataError) as caught:
        ArrayDataset(np.zeros((images, 4, 4), np.uint8), np.zeros(targets, np.int64))
    assert str(caught.value) == (
        f"images and targets do not belong together\n  got: {images} images, {targets} targets\n"
        "  expected: as many of one as of the other, at least one\n  fix: check how the two were loaded"
    )


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 4, 5, 2), (2, 4, 4, 4), (2, 4, 4, 3, 1)])
def test_bytes_of_no_shape_of_images_are_refused(shape):
    with pytest.raises(DataError) as caught:
        ArrayDataset(np.zeros(shape, np.uint8), [0, 1])
    assert str(caught.value) == (
        f"images have no shape of images\n  got: uint8 {shape}\n"
        "  expected: (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3\n"
        "  fix: reshape them, or pass floating-point features"
    )


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16, bool])
def test_integers_that_are_no_bytes_are_refused(dtype):
    with pytest.raises(DataError) as caught:
        ArrayDataset(np.zeros((2, 4, 4), dtype), [0, 1])
    assert str(caught.value) == (
        f"images are integers of another type than uint8\n  got: torch.{np.dtype(dtype)}\n"
        "  expected: uint8 images, or floating-point features\n"
        "  fix: convert: images.astype('uint8') for levels 0 to 255, images.astype('float32') for features"
    )


@pytest.mark.parametrize("targets", [["cat", "dog"], [None, None], [[0], [0, 1]], None])
def test_targets_that_are_no_numbers_are_refused(targets):
    with pytest.raises(DataError) as caught:
        ArrayDataset(levels(2, 4, 4), targets)
    lines = str(caught.value).splitlines()
    assert lines[0] == "targets cannot be used"
    assert lines[-2:] == [
        "  expected: an array or a tensor of numbers",
        "  fix: number the classes from 0, and give classes=[…] for their names",
    ]


def test_complex_numbers_are_refused():
    for images, targets, name in ((1j, 1, "images"), (1.0, 1j, "targets")):
        with pytest.raises(DataError) as caught:
            ArrayDataset(np.full((2, 3), images), np.full(2, targets))
        assert str(caught.value) == (
            f"{name} cannot be used\n  got: complex numbers\n  expected: real ones\n"
            "  fix: torch.view_as_real makes two of each"
        )


def test_verify_finds_what_is_not_finite():
    images = np.zeros((4, 2, 2), np.float32)
    images[1, 0, 1], images[3, 1, 1] = np.nan, np.inf
    found = ArrayDataset(images, [0.0, 1.0, np.nan, 1.0]).verify()
    assert (found.count, found.bad) == (
        4,
        {
            "1": "the image of sample 1 is not finite",
            "3": "the image of sample 3 is not finite",
            "2": "the target of sample 2 is not finite",
        },
    )
    both = ArrayDataset(np.array([[np.nan], [0.0]]), np.array([[np.nan, 0.0], [0.0, 0.0]])).verify()
    assert list(both.bad) == ["0"]
    assert ArrayDataset(levels(2, 4, 4), [0, 1]).verify()


def test_what_is_done_to_a_sample_stays_out_of_the_data():
    data = ArrayDataset(np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32))
    image, target = data[0]
    image.add_(1)
    target.add_(1)
    assert (data[0][0].tolist(), data[0][1].tolist()) == ([0, 0, 0], [0, 0])
    images = ArrayDataset(levels(2, 4, 4), [0, 1])
    images[0][0].putpixel((0, 0), 99)
    assert images[0][0].getpixel((0, 0)) == 0


def test_iterating_ends_and_repr_tells_the_shape():
    data = ArrayDataset(levels(2, 4, 5), [0, 1])
    assert [target for _, target in data] == [0, 1]
    with pytest.raises(IndexError):
        data[2]
    assert data[np.int64(1)][1] == 1
    with pytest.raises(TypeError, match=r"^'slice' object cannot be interpreted as an integer$"):
        data[0:2]
    assert repr(data) == "ArrayDataset((2, 4, 5) uint8)"
    assert pickle.loads(pickle.dumps(data))[1][0].tobytes() == data[1][0].tobytes()


def test_a_part_of_arrays_reports_its_own_samples_that_are_not_finite():
    data = ArrayDataset(np.array([[0.0], [np.nan], [np.inf]], np.float32), [0.5, 1.5, 2.5])
    assert list(data.verify().bad) == ["1", "2"]
    assert Subset(data, [2, 0]).verify().bad == {"2": "the image of sample 2 is not finite"}
    assert Subset(Subset(data, [2, 0]), [1]).verify().bad == {}
