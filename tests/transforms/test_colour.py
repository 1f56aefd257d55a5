"""Colour operations against torchvision's per-image ones, given the same factors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from cvkit.transforms import colour

factors = st.lists(st.floats(0, 3, width=32), min_size=1, max_size=6)
shifts = st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=6)
kinds = st.sampled_from(["noise", "levels", "grey", "black", "white", "pure", "dark"])


def sources(kind, count, channels=3):
    """Float images of one kind; ``pure`` are all mixtures of channels that are full or empty."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(count, channels, 5, 7, generator=generator)
    corners = torch.tensor([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)]).T.float()
    made = {
        "noise": noise,
        "levels": (noise * 255).round() / 255,
        "grey": noise[:, :1].expand(-1, channels, -1, -1).clone(),
        "black": torch.zeros_like(noise),
        "white": torch.ones_like(noise),
        "pure": corners[:channels, :, None].expand(count, -1, -1, 7),
        "dark": noise * 1e-6,
    }
    return made[kind]


def one_by_one(operation, images, numbers):
    return torch.stack([operation(image, number) for image, number in zip(images, numbers, strict=True)])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
@given(kind=kinds, numbers=factors)
def test_a_factor_of_its_own_for_each_sample_is_as_torchvision_one_by_one(name, channels, kind, numbers):
    images = sources(kind, len(numbers), channels)
    before = images.clone()
    made = getattr(colour, name)(images, torch.tensor(numbers))
    expected = one_by_one(getattr(reference, f"adjust_{name}"), images, numbers)
    assert (made.dtype, made.shape) == (torch.float32, images.shape)
    assert (made - expected).abs().max() <= 1e-5
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 3])
@given(kind=kinds, numbers=shifts)
def test_a_turn_of_its_own_for_each_sample_is_as_torchvision_one_by_one(channels, kind, numbers):
    images = sources(kind, len(numbers), channels)
    before = images.clone()
    made = colour.hue(images, torch.tensor(numbers))
    assert (made - one_by_one(reference.adjust_hue, images, numbers)).abs().max() <= 1e-5
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", ["noise", "levels", "grey", "black", "white", "pure", "dark"])
def test_factor_one_and_no_turn_change_nothing(kind):
    images = sources(kind, 2)
    for name in ("brightness", "contrast", "saturation"):
        assert (getattr(colour, name)(images, torch.ones(2)) - images).abs().max() <= 1e-6
    assert (colour.hue(images, torch.zeros(2)) - images).abs().max() <= 1e-6


def test_factor_zero_is_black_grey_and_the_mean_grey():
    images = sources("noise", 3)
    none = torch.zeros(3)
    assert not colour.brightness(images, none).any()
    luma = colour.grey(images)
    assert torch.allclose(colour.saturation(images, none), luma.expand_as(images), atol=1e-6)
    assert torch.allclose(
        colour.contrast(images, none), luma.mean((1, 2, 3), keepdim=True).expand_as(images), atol=1e-6
    )


def test_half_a_turn_either_way_is_the_opposite_colour():
    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].repeat(2, 1, 2, 2)
    turned = colour.hue(red, torch.tensor([0.5, -0.5]))
    cyan = torch.tensor([0.0, 1.0, 1.0])[None, :, None, None].expand_as(red)
    assert torch.allclose(turned, cyan, atol=1e-6)


@given(shifts)
def test_grey_pixels_keep_their_grey_whatever_the_turn(numbers):
    images = sources("grey", len(numbers))
    assert torch.allclose(colour.hue(images, torch.tensor(numbers)), images, atol=1e-6)


def test_each_sample_is_its_own_whatever_stands_beside_it():
    images, numbers = sources("noise", 4), torch.tensor([0.0, 0.4, 1.3, 2.5])
    for name in ("brightness", "contrast", "saturation", "hue"):
        given_numbers = numbers / 5 if name == "hue" else numbers
        operation = getattr(colour, name)
        whole = operation(images, given_numbers)
        alone = torch.cat([operation(images[k : k + 1], given_numbers[k : k + 1]) for k in range(4)])
        assert torch.allclose(whole, alone, atol=1e-6)
