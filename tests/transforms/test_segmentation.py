"""Images and masks move together, and no value of a mask is blended."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cvkit.errors import DataError
from cvkit.transforms import segmentation_eval, segmentation_train

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
LEVELS = np.array([0, 60, 120, 180, 240])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(width, height, seed, block=32):
    """A mask of large blocks, and an image whose red is the mask's values."""
    grid = np.random.default_rng(seed).integers(0, 5, (-(-height // block), -(-width // block)))
    values = LEVELS[np.kron(grid, np.ones((block, block), dtype=int))[:height, :width]].astype(np.uint8)
    pixels = np.stack([values, np.zeros_like(values), 255 - values], -1)
    return Image.fromarray(pixels), Image.fromarray(values)


def check_agreement(images, masks, interpolation):
    """Each pixel's red is the mask's value, but for those that a filter mixes with others: across an edge or the rim."""
    near, around = masks[:, None].float(), 0 if interpolation == "nearest" else 2
    highest = torch.nn.functional.max_pool2d(near, 2 * around + 1, 1, around)
    inside = highest == -torch.nn.functional.max_pool2d(-near, 2 * around + 1, 1, around)
    inside[..., :around, :] = inside[..., -around or 48 :, :] = False
    inside[..., :around] = inside[..., -around or 48 :] = False
    assert inside.float().mean() > 0.1
    assert ((images[:, :1] * 255 - near).abs() * inside).max() < 1


@given(st.integers(60, 200), st.integers(60, 200), st.integers(0, 2**32), st.sampled_from(["nearest", "bilinear"]))
@settings(max_examples=25)
def test_images_and_masks_still_agree_after_both_stages(width, height, seed, interpolation):
    transform = segmentation_train(48, vertical_flip=0.5, interpolation=interpolation, **PLAIN)
    torch.manual_seed(seed)
    made = [transform.sample_pair(*pair(width, height, seed % 1000 + k)) for k in range(6)]
    images, masks = (torch.stack(part) for part in zip(*made, strict=True))
    assert (images.dtype, masks.dtype) == (torch.uint8, torch.uint8)
    images, masks = transform.batch(images, masks, seeded(seed))
    assert (images.shape, masks.shape, masks.dtype) == ((6, 3, 48, 48), (6, 48, 48), torch.int64)
    assert set(masks.unique().tolist()) <= set(LEVELS.tolist())
    check_agreement(images, masks, interpolation)


@pytest.mark.parametrize("size", [(50, 40), (200, 120), (48, 48), (20, 90)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_in_evaluation_they_agree_as_well(size, interpolation):
    transform = segmentation_eval(48, interpolation=interpolation, **PLAIN)
    image, mask = transform.sample_pair(*pair(*size, 0, block=20))
    images, masks = transform.batch(image[None], mask[None], seeded())
    assert masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= set(LEVELS.tolist())
    check_agreement(images, masks, interpolation)


def test_an_image_and_its_mask_are_cut_by_one_draw_and_mirrored_by_one_flag():
    transform = segmentation_train(32, vertical_flip=0.5, interpolation="nearest", **PLAIN)
    torch.manual_seed(0)
    image, mask = transform.sample_pair(*pair(100, 80, 1))
    after = torch.get_rng_state()
    torch.manual_seed(0)
    transform.sample(pair(100, 80, 1)[0])
    assert torch.equal(torch.get_rng_state(), after)
    images, masks = transform.batch(image.repeat(64, 1, 1, 1), mask.repeat(64, 1, 1), seeded())
    ways = {one.numpy().tobytes(): two for one, two in zip(images, masks, strict=True)}
    assert len(ways) == 4
    check_agreement(images, masks, "nearest")


def test_colours_change_images_and_leave_masks_alone():
    transform = segmentation_train(32, flip=0, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3, **PLAIN)
    image, mask = transform.sample_pair(*pair(100, 80, 1))
    images, masks = transform.batch(image.repeat(8, 1, 1, 1), mask.repeat(8, 1, 1), seeded())
    assert len({one.numpy().tobytes() for one in images}) == 8
    assert torch.equal(masks, mask.long().repeat(8, 1, 1))


@pytest.mark.parametrize("build", [segmentation_train, segmentation_eval])
@pytest.mark.parametrize(
    ("mode", "kind", "values"),
    [
        ("1", bool, [0, 1]),
        ("L", np.uint8, [0, 7, 255]),
        ("I;16", np.uint16, [0, 300, 65535]),
        ("I", np.int32, [0, 300, 2**20]),
    ],
)
def test_masks_of_every_depth_keep_their_values(build, mode, kind, values):
    transform = build(24, **PLAIN)
    grid = np.array(values)[np.random.default_rng(0).integers(0, len(values), (40, 50))]
    mask = Image.fromarray(grid.astype(kind))
    assert mask.mode == mode
    torch.manual_seed(0)
    image, made = transform.sample_pair(pair(50, 40, 0)[0], mask)
    assert made.shape == (24, 24)
    assert set(made.unique().tolist()) == set(values)
    _, targets = transform.batch(image.repeat(8, 1, 1, 1), made.repeat(8, 1, 1), seeded())
    assert targets.dtype == torch.int64
    assert set(targets.unique().tolist()) == set(values)


def test_a_palette_gives_its_indices():
    mask = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2))
    mask.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    assert mask.mode == "P"
    _, made = segmentation_eval(2).sample_pair(Image.new("RGB", (2, 2)), mask)
    assert made.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("build", [segmentation_train, segmentation_eval])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F", "CMYK"])
def test_a_target_that_is_no_mask_is_refused(build, mode):
    with pytest.raises(DataError) as caught:
        build(24).sample_pair(Image.new("RGB", (50, 40)), Image.new(mode, (50, 40)))
    assert str(caught.value) == (
        "a target is no mask\n"
        f"  got: mode {mode!r}, 50×40\n"
        "  expected: one integer a pixel (mode 1, L, P, I or 16-bit grey)\n"
        "  fix: save masks as class indices; for images as targets take the preset denoise"
    )


@pytest.mark.parametrize("build", [segmentation_train, segmentation_eval])
def test_float_targets_of_a_pixel_each_are_moved_and_not_cut_to_integers(build):
    transform = build(8, **PLAIN)
    depth = torch.rand(6, 8, 8, generator=seeded())
    images = (depth * 255).round().to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    made, moved = transform.batch(images, depth, seeded(1))
    assert moved.dtype == torch.float32
    assert (made[:, 0] - moved).abs().max() <= 1 / 255


@pytest.mark.parametrize("build", [segmentation_train, segmentation_eval])
def test_classes_go_through_as_they_are(build):
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    for targets in (torch.arange(4), torch.rand(4, generator=seeded())):
        assert torch.equal(build(8).batch(images, targets, seeded())[1], targets)


def test_the_twin_takes_pairs_too():
    transform = segmentation_train(40, interpolation="bicubic", **PLAIN)
    assert transform.takes_pairs
    assert transform.evaluation() == segmentation_eval(40, interpolation="bicubic", **PLAIN)
    assert transform.evaluation().takes_pairs


def test_processes_that_take_rows_of_a_batch_make_its_rows_of_masks_too():
    transform = segmentation_train(16, vertical_flip=0.5)
    images = torch.randint(0, 256, (7, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    draws = transform.draw(7, seeded(1))
    whole = transform.apply(images, images[:, 0], draws)
    for rows in (slice(0, 3), slice(3, 7)):
        part = transform.apply(images[rows], images[rows, 0], {key: value[rows] for key, value in draws.items()})
        assert torch.equal(part[0], whole[0][rows])
        assert torch.equal(part[1], whole[1][rows])
