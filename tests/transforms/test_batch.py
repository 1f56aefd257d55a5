"""Batch operations against torchvision's per-image ones, given the same draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from cvkit.transforms import batch
from cvkit.transforms import presets as named

STATISTICS = [
    (named.IMAGENET_MEAN, named.IMAGENET_STD),
    (named.CIFAR10_MEAN, named.CIFAR10_STD),
    (named.MNIST_MEAN, named.MNIST_STD),
]


def pictures(count=6, channels=3, height=9, width=7, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator).to(dtype)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([1, 3]))
def test_a_flip_is_bitwise_that_of_torchvision(flags, channels):
    images = pictures(len(flags), channels)
    expected = torch.stack([reference.hflip(one) if flag else one for one, flag in zip(images, flags, strict=True)])
    assert torch.equal(batch.horizontal_flip(images, torch.tensor(flags)), expected)


@given(st.data(), st.integers(0, 4), st.integers(1, 7), st.sampled_from([1, 3, 4]), st.booleans())
def test_a_padded_crop_is_bitwise_that_of_torchvision(data, padding, size, channels, mirrored):
    images = pictures(5, channels)
    tops = data.draw(st.lists(st.integers(0, 9 + 2 * padding - size), min_size=5, max_size=5))
    lefts = data.draw(st.lists(st.integers(0, 7 + 2 * padding - size), min_size=5, max_size=5))
    flags = data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
    expected = [
        reference.crop(reference.pad(one, [padding] * 4), top, left, size, size)
        for one, top, left in zip(images, tops, lefts, strict=True)
    ]
    if mirrored:
        expected = [reference.hflip(one) if flag else one for one, flag in zip(expected, flags, strict=True)]
    flip = torch.tensor(flags) if mirrored else None
    cut = batch.crop(batch.pad(images, padding), torch.tensor(tops), torch.tensor(lefts), size, flip=flip)
    assert torch.equal(cut, torch.stack(expected))
    assert cut.is_contiguous()


@pytest.mark.parametrize(("mean", "std"), STATISTICS)
def test_normalising_every_level_is_that_of_torchvision(mean, std):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, len(mean), 16, 16)
    expected = torch.stack([reference.normalize(one / 255, list(mean), list(std)) for one in levels])
    made = batch.normalize(levels, mean, std)
    assert made.dtype == torch.float32
    assert (made - expected).abs().max() <= 1e-6


@pytest.mark.parametrize(("mean", "std"), STATISTICS)
def test_denormalising_gives_every_level_back(mean, std):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(len(mean), 16, 16)
    back = batch.denormalize(batch.normalize(levels, mean, std), mean, std)
    assert torch.equal((back * 255).round().to(torch.uint8), levels)
    assert (back.min(), back.max()) == (0, 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_no_operation_changes_what_it_is_given(dtype):
    images = pictures(dtype=dtype)
    before = images.clone()
    places, flags = torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.bool)
    assert batch.horizontal_flip(images, flags).dtype == dtype
    assert batch.crop(images, places, places, 5, flip=flags).dtype == dtype
    batch.denormalize(batch.normalize(images, (0.5,) * 3, (0.5,) * 3), (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)


def test_an_empty_batch_stays_empty():
    nothing = pictures(0)
    none = torch.zeros(0, dtype=torch.long)
    assert batch.crop(nothing, none, none, 5, flip=none.bool()).shape == (0, 3, 5, 5)
    assert batch.horizontal_flip(nothing, none.bool()).shape == (0, 3, 9, 7)
