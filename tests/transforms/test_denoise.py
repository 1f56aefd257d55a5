"""Noisy images as input, clean ones as target."""

import numpy as np
import pytest
import torch
from PIL import Image

from cvkit.errors import ArgumentError
from cvkit.transforms import denoise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photo(width=50, height=40, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def uint8(count=16, channels=3, size=24):
    return torch.randint(0, 256, (count, channels, size, size), generator=seeded(9), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_is_the_target_with_noise_of_the_strength_asked_for(channels):
    statistics = {"mean": (0.2, 0.3, 0.4)[:channels], "std": (0.5, 0.25, 0.1)[:channels]}
    transform = denoise(24, noise=0.1, **statistics)
    images = uint8(channels=channels)
    inputs, truth = transform.batch(images, torch.arange(16), seeded())
    assert torch.allclose(transform.denormalize(truth) * 255, images.float(), atol=1e-3)
    noise = (inputs - truth) * torch.tensor(transform.std)[:, None, None]  # on the scale 0 to 1
    for channel in range(channels):
        assert abs(noise[:, channel].mean()) < 0.005
        assert abs(noise[:, channel].std() - 0.1) < 0.005
    assert noise.unique().numel() > 0.8 * noise.numel()


def test_each_sample_gets_noise_of_its_own_and_each_seed_another():
    transform = denoise(24)
    same = uint8(1).repeat(16, 1, 1, 1)
    inputs, truth = transform.batch(same, torch.zeros(16), seeded())
    assert len({one.numpy().tobytes() for one in inputs}) == 16
    assert len({one.numpy().tobytes() for one in truth}) == 1
    assert torch.equal(transform.batch(same, torch.zeros(16), seeded())[0], inputs)
    assert not torch.equal(transform.batch(same, torch.zeros(16), seeded(1))[0], inputs)


def test_processes_that_share_a_batch_add_the_noise_of_their_rows():
    transform = denoise(24, flip=0.5)
    images, targets, draws = uint8(9), torch.arange(9), transform.draw(9, seeded())
    whole = transform.apply(images, targets, draws)
    for rows in (slice(0, 4), slice(4, 9), slice(1, None, 2)):
        part = transform.apply(images[rows], targets[rows], {key: value[rows] for key, value in draws.items()})
        assert torch.equal(part[0], whole[0][rows])
        assert torch.equal(part[1], whole[1][rows])


def test_input_and_target_are_mirrored_alike():
    transform = denoise(24, noise=0, flip=0.5)
    images = uint8(40)
    inputs, truth = transform.batch(images, torch.zeros(40), seeded())
    assert torch.equal(inputs, truth)
    mirrored = [
        not torch.allclose(one * 255, image.float(), atol=1e-3) for one, image in zip(inputs, images, strict=True)
    ]
    assert 8 < sum(mirrored) < 32
    for one, image, flag in zip(inputs, images, mirrored, strict=True):
        assert torch.allclose(one * 255, (image.flip(-1) if flag else image).float(), atol=1e-3)


def test_a_target_that_is_an_image_stays_the_target_and_is_mirrored_with_its_input():
    transform = denoise(24, noise=0, flip=0.5)
    pairs = [
        transform.sample_pair(photo(seed=k), photo(60, 60, seed=k).point(lambda level: 255 - level)) for k in range(20)
    ]
    given, clean = (torch.stack(part) for part in zip(*pairs, strict=True))
    flags = transform.draw(20, seeded())["flip"]
    inputs, truth = transform.batch(given, clean, seeded())
    for k, flag in enumerate(flags):
        for made, source in ((inputs, given), (truth, clean)):
            assert torch.allclose(made[k] * 255, (source[k].flip(-1) if flag else source[k]).float(), atol=1e-3)


def test_the_twin_adds_nothing_and_keeps_the_rest():
    transform = denoise(24, noise=0.3, flip=0.5, mean=(0.1,), std=(0.2,))
    twin = transform.evaluation()
    assert twin == denoise(24, noise=0, mean=(0.1,), std=(0.2,))
    inputs, truth = twin.batch(uint8(channels=1), torch.arange(16), seeded())
    assert torch.equal(inputs, truth)


def test_an_empty_batch_stays_empty():
    inputs, truth = denoise(24).batch(uint8(0), torch.zeros(0), seeded())
    assert inputs.shape == truth.shape == (0, 3, 24, 24)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    denoise(24, flip=0.5).batch(uint8(), torch.zeros(16), seeded())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_a_noise_that_is_none_is_refused(noise):
    with pytest.raises(ArgumentError) as caught:
        denoise(noise=noise)
    assert str(caught.value) == (
        f"denoise: noise cannot be used\n  got: {noise!r}\n"
        "  expected: a standard deviation on the scale 0 to 1, 0 for none\n  fix: pass e.g. noise=0.1"
    )
