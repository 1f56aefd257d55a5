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


def sources(count=6, channels=3, height=9, width=7, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator).to(dtype)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([1, 3]))
def test_a_flip_is_bitwise_that_of_torchvision(flags, channels):
    images = sources(len(flags), channels)
    expected = torch.stack([reference.hflip(one) if flag else one for one, flag in zip(images, flags, strict=True)])
    assert torch.equal(batch.horizontal_flip(images, torch.tensor(flags)), expected)


@given(st.data(), st.integers(0, 4), st.integers(1, 7), st.sampled_from([1, 3, 4]), st.booleans())
def test_a_padded_crop_is_bitwise_that_of_torchvision(data, padding, size, channels, mirrored):
    images = sources(5, channels)
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
    images = sources(dtype=dtype)
    before = images.clone()
    places, flags = torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.bool)
    assert batch.horizontal_flip(images, flags).dtype == dtype
    assert batch.crop(images, places, places, 5, flip=flags).dtype == dtype
    batch.denormalize(batch.normalize(images, (0.5,) * 3, (0.5,) * 3), (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)


def test_an_empty_batch_stays_empty():
    nothing = sources(0)
    none = torch.zeros(0, dtype=torch.long)
    assert batch.crop(nothing, none, none, 5, flip=none.bool()).shape == (0, 3, 5, 5)
    assert batch.horizontal_flip(nothing, none.bool()).shape == (0, 3, 9, 7)


@given(st.data(), st.integers(1, 5), st.sampled_from([1, 3]))
def test_erasing_is_bitwise_that_of_torchvision(data, count, channels):
    images = sources(count, channels, dtype=torch.float32)
    before = images.clone()
    place = st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(0, 9), st.integers(1, 7))
    places = [
        (top, left, min(high, 9 - top), min(wide, 7 - left))
        for top, left, high, wide in data.draw(st.lists(place, min_size=count, max_size=count))
    ]
    expected = [
        reference.erase(one, *where, torch.tensor(0.5)) if where[2] else one
        for one, where in zip(images, places, strict=True)
    ]
    assert torch.equal(batch.erase(images, torch.tensor(places), 0.5), torch.stack(expected))
    assert torch.equal(images, before)


def mixed_by_hand(images, shares, places):
    """Mixup and cutmix as their papers have them, one sample at a time, each with the one before it."""
    made = []
    for k, image in enumerate(images):
        other, (top, left, high, wide) = images[k - 1], places[k]
        if high:
            image = image.clone()
            image[:, top : top + high, left : left + wide] = other[:, top : top + high, left : left + wide]
        else:
            image = shares[k] * image + (1 - shares[k]) * other
        made.append(image)
    return torch.stack(made)


@given(st.data(), st.integers(1, 6), st.sampled_from([1, 3]), st.booleans())
def test_mixtures_are_those_done_by_hand(data, count, channels, boxed):
    images = sources(count, channels, dtype=torch.float32) / 255
    before = images.clone()
    shares = data.draw(st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count))
    place = st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(0, 9), st.integers(1, 7))
    places = [
        (top, left, min(high, 9 - top), min(wide, 7 - left))
        for top, left, high, wide in data.draw(st.lists(place, min_size=count, max_size=count))
    ]
    if not boxed:
        places = [(0, 0, 0, 0)] * count
    made = batch.mix(images, torch.tensor(shares), torch.tensor(places) if boxed else None)
    assert (made - mixed_by_hand(images, shares, places)).abs().max() <= 1e-6
    assert torch.equal(images, before)


def test_a_share_of_all_or_nothing_is_exact_and_a_batch_of_one_stays_itself():
    images = sources(4, dtype=torch.float32) / 7
    assert torch.equal(batch.mix(images, torch.ones(4)), images)
    assert torch.equal(batch.mix(images, torch.zeros(4)), images.roll(1, 0))
    assert torch.equal(batch.mix(images[:1], torch.tensor([0.3])), images[:1])
    assert torch.equal(batch.mix(images[:1], torch.tensor([0.3]), torch.tensor([[1, 1, 3, 3]])), images[:1])


def test_boxes_are_where_they_are_said_to_be():
    mask = batch.boxes(torch.tensor([[1, 2, 2, 3], [0, 0, 0, 4], [4, 5, 1, 1]]), 5, 6)
    expected = torch.zeros(3, 1, 5, 6, dtype=torch.bool)
    expected[0, 0, 1:3, 2:5] = True
    expected[2, 0, 4, 5] = True
    assert torch.equal(mask, expected)


def test_noise_is_normal_another_for_each_value_and_the_same_for_a_seed():
    images = torch.full((8, 3, 33, 35), 0.5)
    noisy = batch.add_noise(images, 0.2, seed=4)
    noise = noisy - images
    assert abs(noise.mean()) < 0.005
    assert abs(noise.std() - 0.2) < 0.005
    assert abs((noise.abs() < 0.2).float().mean() - 0.6827) < 0.01
    assert noise.unique().numel() > 0.9 * noise.numel()
    assert torch.equal(batch.add_noise(images, 0.2, seed=4), noisy)
    assert not torch.equal(batch.add_noise(images, 0.2, seed=5), noisy)


def test_noise_is_the_same_whatever_the_memory_format():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(
        batch.add_noise(images.contiguous(memory_format=torch.channels_last), 0.1, 3), batch.add_noise(images, 0.1, 3)
    )


def test_no_operation_draws_from_the_global_generator():
    images, state = sources(dtype=torch.float32), torch.get_rng_state()
    batch.add_noise(images, 0.1, 0)
    batch.mix(images, torch.rand(6, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_vertical_flip_is_bitwise_that_of_torchvision(dtype):
    images, flags = sources(dtype=dtype), [True, False, True, True, False, False]
    expected = [reference.vertical_flip(one) if flag else one for one, flag in zip(images, flags, strict=True)]
    assert torch.equal(batch.vertical_flip(images, torch.tensor(flags)), torch.stack(expected))


@pytest.mark.parametrize("side", [9, 190])
def test_a_default_type_of_the_users_does_not_change_the_result(side):
    images = sources(2, 3, side, side)
    expected = batch.normalize(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    batch._constants.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(batch.normalize(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        batch._constants.cache_clear()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 190])  # small images are normalised together, large ones one by one
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_normalising_and_mirroring_at_once_is_one_after_the_other(channels, side, form):
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.4, 0.5, 0.6)[:channels]
    images = sources(5, channels, side, side + 1).contiguous(memory_format=form)
    before, threads = images.clone(), torch.get_num_threads()
    flags = torch.tensor([True, False, False, True, True])
    expected = torch.stack([batch.normalize(one, mean, std) for one in batch.horizontal_flip(images, flags)])
    assert torch.equal(batch.normalize(images, mean, std, flip=flags), expected)
    assert torch.equal(
        batch.normalize(images, mean, std), torch.stack([batch.normalize(one, mean, std) for one in images])
    )
    assert batch.normalize(images, mean, std).dtype == torch.float32
    assert torch.equal(images, before)
    assert torch.get_num_threads() == threads


def test_the_number_of_threads_is_as_before_and_changes_no_value():
    images = sources(3, 3, 190, 190)
    expected = batch.normalize(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(batch.normalize(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
