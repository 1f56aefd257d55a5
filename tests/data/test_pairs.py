"""Images whose target is a mask or an image: both go through the loader together, however it loads."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cvkit.data import Loader, ParallelDataset, split, write_shapes
from cvkit.errors import ArgumentError, DataError
from cvkit.transforms import (
    classification_eval,
    classification_train,
    denoise,
    segmentation_eval,
    segmentation_train,
    small_image_train,
)

SIDE, COUNT = 24, 9


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    root = write_shapes(tmp_path_factory.mktemp("data") / "masks", 3, SIDE, layout="mask")
    return ParallelDataset(root / "images", root / "masks", "mask")


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Each mask is the red channel of its image, so that what belongs together can be seen of every pixel."""
    root = tmp_path_factory.mktemp("data") / "twins"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(COUNT):
        levels = np.random.default_rng(number).integers(0, 8, (SIDE, SIDE + number, 3), dtype=np.uint8)
        Image.fromarray(levels).save(root / "images" / f"{number}.png")
        Image.fromarray(levels[..., 0]).save(root / "masks" / f"{number}.png")
    return ParallelDataset(root / "images", root / "masks", "mask", classes=list("abcdefgh"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = write_shapes(tmp_path_factory.mktemp("data") / "masks", 3, SIDE, layout="mask")
    return ParallelDataset(root / "images", root / "images", "image")


def epoch(loader, number=0, start=0):
    loader.set_epoch(number)
    return [loader.finish(raw) for raw in loader.batches(start)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) and a.dtype == b.dtype
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


WAYS = [
    {"workers": 2, "cache": None},
    {"workers": 0, "cache": "auto"},
    {"workers": 2, "cache": "ram"},
    {"workers": 1, "cache": "auto"},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    "transform",
    [
        segmentation_train(16),
        segmentation_train(16, vertical_flip=0.5, brightness=0.3),
        segmentation_eval(16),
        segmentation_eval(SIDE),
        v2.Compose([v2.RandomCrop(16), v2.RandomHorizontalFlip(), v2.PILToTensor()]),
        v2.Compose([v2.Resize(12), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        None,
    ],
    ids=["train", "train and more", "eval", "eval as it is", "v2, random", "v2, fixed", "none"],
)
def test_the_same_pairs_however_they_are_loaded(masks, transform, way):
    plain = Loader(masks, 4, transform=transform, shuffle=True, workers=0, cache=None)
    expected = [epoch(plain, number) for number in range(3)]
    loader = Loader(masks, 4, transform=transform, shuffle=True, **way)
    assert same(epoch(loader, 1, start=1), expected[1][1:])
    for number in range(3):
        assert same(epoch(loader, number), expected[number])
    for inputs, targets in expected[0]:
        assert inputs.dtype == torch.float32
        assert targets.dtype == torch.int64
        assert targets.shape == (len(inputs), *inputs.shape[2:])
        assert type(inputs) is type(targets) is torch.Tensor
        assert set(targets.unique().tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize("way", [{"workers": 0, "cache": None}, *WAYS], ids=str)
def test_a_mask_moves_with_its_image_and_no_value_is_blended(twins, way):
    whole = Loader(twins, 4, shuffle=True, transform=segmentation_train(20, interpolation="nearest"), **way)
    for number in (0, 1):
        for inputs, targets in epoch(whole, number):
            levels = (whole.transform.denormalize(inputs)[:, 0] * 255).round()
            assert float((levels != targets).float().mean()) < 0.02, (
                "nearest pixels of image and mask may differ by one"
            )
    cropped = v2.Compose([v2.RandomCrop(16), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.PILToTensor()])
    for inputs, targets in epoch(Loader(twins, 4, transform=cropped, **way)):
        assert torch.equal((inputs[:, 0] * 255).round().long(), targets)


def test_fresh_crops_of_kept_pairs_each_epoch(masks, monkeypatch):
    loader = Loader(masks, 4, transform=segmentation_train(16), shuffle=True, cache="ram", workers=2)
    first = epoch(loader, 0)
    assert loader.cached_bytes > 0
    monkeypatch.setattr(ParallelDataset, "read", None)
    monkeypatch.setattr(ParallelDataset, "__getitem__", None)
    second = epoch(loader, 1)
    assert not same(first, second)
    assert loader.cached_bytes == COUNT * (3 + 1) * SIDE * SIDE


def test_a_part_of_masks_is_kept_too(masks):
    part = split(_with_targets(masks), 0.4)[0]
    loader, plain = (
        Loader(part, 2, transform=segmentation_train(16), shuffle=True, cache=cache, workers=0)
        for cache in ("ram", None)
    )
    for number in (0, 1):
        assert same(epoch(loader, number), epoch(plain, number))
    assert loader.cached_bytes == len(part) * 4 * SIDE * SIDE


def _with_targets(masks):
    return masks


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("transform", [denoise(SIDE), denoise(16), denoise(16, noise=0.0, flip=0.0)], ids=repr)
def test_images_as_targets_go_with_theirs(images, transform, way):
    plain = Loader(images, 4, transform=transform, shuffle=True, workers=0, cache=None)
    loader = Loader(images, 4, transform=transform, shuffle=True, **way)
    for number in (0, 1):
        expected = epoch(plain, number)
        assert same(epoch(loader, number), expected)
        for inputs, targets in expected:
            assert inputs.shape == targets.shape
            assert torch.equal(inputs, targets) == (transform.noise == 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_as_targets_without_a_transform_are_floats_from_0_to_1(images, workers):
    for inputs, targets in Loader(images, 4, workers=workers):
        assert torch.equal(inputs, targets)
        assert targets.dtype == torch.float32
        assert 0.5 < float(targets.max()) <= 1


REFUSED = "leaves a target that is an image behind"


@pytest.mark.parametrize("way", [{"workers": 0, "cache": None}, *WAYS], ids=str)
@pytest.mark.parametrize(
    "transform", [classification_train(16), classification_eval(16), small_image_train(16)], ids=lambda t: t.name
)
def test_a_mask_with_a_preset_for_classes_is_a_clear_error(masks, transform, way):
    with pytest.raises(DataError) as caught:
        list(Loader(masks, 4, transform=transform, **way))
    assert str(caught.value) == (
        f"sample 0 (0000.png): {transform.name} leaves a target that is an image behind\n"
        f"  got: a target of mode 'L', {SIDE}×{SIDE}\n"
        "  expected: targets that are classes or numbers\n"
        "  fix: take segmentation_train and segmentation_eval for masks, denoise for images"
    )


def test_an_image_as_target_where_a_mask_belongs_is_named(images):
    with pytest.raises(DataError, match=r"^sample 0 \(0000\.png\): "):
        list(Loader(images, 4, transform=segmentation_train(16), workers=0))


def test_a_transform_that_takes_one_image_only_is_named(masks):
    with pytest.raises(DataError, match=r"^the transform fails on sample 0 \(0000\.png\)\n  got: TypeError: "):
        list(Loader(masks, 4, transform=lambda image: v2.functional.pil_to_tensor(image), workers=0))


def test_masks_are_no_classes_that_could_be_balanced(masks):
    with pytest.raises(ArgumentError, match=r"weights cannot be used\n  got: .balanced. for a ParallelDataset whose"):
        Loader(masks, 4, weights="balanced")


def test_masks_of_different_sizes_need_a_transform_with_a_size(twins):
    with pytest.raises(DataError, match="samples 0 and 1 have different sizes"):
        list(Loader(twins, 4, workers=0))
    assert len(list(Loader(twins, 4, transform=segmentation_eval(16), workers=0))) == 3
