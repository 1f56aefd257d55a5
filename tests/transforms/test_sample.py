"""Per-image operations against torchvision's and Pillow's, and images of every mode."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as reference
from torchvision.transforms.v2.functional import InterpolationMode

from cvkit.errors import ImageError
from cvkit.transforms import sample
from cvkit.transforms.sample import Frame

# on other processors torchvision itself goes by floats
NATIVE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def photo(width=40, height=30, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def far(one, other):
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize(("channels", "made"), [(1, "L"), (3, "RGB")])
def test_every_mode_gets_the_channels_asked_for(mode, channels, made):
    source = photo(mode="L").convert("LA") if mode == "LA" else photo(mode=mode)
    image = sample.to_channels(source, channels)
    assert image.mode == made
    assert sample.to_tensor(image).shape == (channels, 30, 40)
    assert sample.to_tensor(image).dtype == torch.uint8


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_image_that_fits_is_not_copied(mode):
    image = photo(mode=mode)
    assert sample.to_channels(image, len(image.getbands())) is image
    pixels = sample.to_tensor(image)
    assert sample.resize(pixels, 40, 30) is pixels


def test_hidden_colours_of_transparent_pixels_do_not_show():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert sample.to_tensor(sample.to_channels(image, 3)).permute(1, 2, 0).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_a_transparent_colour_of_a_palette_does_not_show():
    image = Image.new("P", (1, 1), 0)
    image.putpalette([255, 0, 0])
    image.info["transparency"] = 0
    assert sample.to_channels(image, 3).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_rounded_instead_of_saturating():
    image = Image.fromarray(np.array([[0, 128, 129, 256, 32768, 65535]], dtype=np.uint16))
    assert image.mode == "I;16"
    assert sample.to_tensor(sample.to_channels(image, 1)).tolist() == [[[0, 0, 1, 1, 128, 255]]]


@pytest.mark.parametrize(("mode", "kind"), [("I", "32-bit integers"), ("F", "floating-point levels")])
def test_a_mode_without_a_fixed_range_is_refused(mode, kind):
    with pytest.raises(ImageError) as caught:
        sample.to_channels(Image.new(mode, (2, 3)), 3)
    assert str(caught.value) == (
        "the image given has no right answer in 8 bits\n"
        f"  got: {kind}, 2×3\n"
        "  expected: 8 or 16 bits a channel\n"
        "  fix: scale it yourself and save it as 16-bit grey, or give arrays to ArrayDataset"
    )


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
def test_the_shorter_side_is_resized_as_torchvision_does(width, height, length):
    expected = reference.resize(Image.new("L", (width, height)), [length]).size
    assert sample.shorter_side(width, height, length) == expected


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(0, 9), st.sampled_from(["L", "RGB"]))
def test_the_middle_is_bitwise_that_of_torchvision(width, height, size, margin, mode):
    image = photo(width, height, mode)
    made = sample.cut(image, sample.centre_frame(width, height, size + margin, size))
    resized = reference.resize(sample.to_tensor(image), [size + margin], antialias=True)
    expected = reference.center_crop(resized, [size, size])
    assert torch.equal(made, expected) if NATIVE else far(made, expected) <= 1


boxes = st.tuples(st.integers(0, 39), st.integers(0, 29), st.integers(1, 40), st.integers(1, 30)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 40), min(b[1] + b[3], 30))
)


@pytest.mark.parametrize("interpolation", ["bilinear"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@given(box=boxes, wide=st.integers(1, 60), high=st.integers(1, 60))
@settings(max_examples=40)
def test_a_box_is_cut_and_resized_bitwise_as_torchvision_does_on_tensors(interpolation, mode, box, wide, high):
    image, (left, top, right, bottom) = photo(mode=mode), box
    pixels = sample.to_tensor(image)
    ours = sample.cut(image, Frame((40, 30), box, (wide, high)), interpolation)
    theirs = reference.resized_crop(
        pixels.contiguous(), top, left, bottom - top, right - left, [high, wide], InterpolationMode(interpolation)
    )
    assert (ours.dtype, ours.shape) == (torch.uint8, (len(pixels), high, wide))
    assert torch.equal(ours, theirs) if NATIVE else far(ours, theirs) <= 1
    for kept in (pixels, pixels.contiguous()):  # of whatever memory format
        assert torch.equal(sample.cut(kept, Frame((40, 30), box, (wide, high)), interpolation), ours)


@given(box=boxes, wide=st.integers(1, 60), high=st.integers(1, 60))
@settings(max_examples=60)
def test_bilinear_is_pillows_to_a_level(box, wide, high):
    image = photo()
    ours = sample.cut(image, Frame((40, 30), box, (wide, high)))
    theirs = sample.to_tensor(image.crop(box).resize((wide, high), Image.Resampling.BILINEAR))
    assert far(ours, theirs) <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@given(box=boxes, wide=st.integers(1, 60), high=st.integers(1, 60))
@settings(max_examples=25)
def test_the_other_filters_are_bitwise_pillows(interpolation, mode, box, wide, high):
    image = photo(mode=mode)
    frame = Frame((40, 30), box, (wide, high))
    theirs = sample.to_tensor(image.crop(box).resize((wide, high), sample.INTERPOLATIONS[interpolation]))
    assert torch.equal(sample.cut(image, frame, interpolation), theirs)
    assert torch.equal(sample.cut(sample.to_tensor(image), frame, interpolation), theirs)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I", "I;16"])
def test_a_mask_is_cut_by_nearest_and_keeps_its_numbers(mode):
    top = {"1": 2, "L": 256, "P": 256, "I": 2**31 - 1, "I;16": 65536}[mode]
    values = np.random.default_rng(0).integers(0, top, (30, 40))
    if mode == "P":
        mask = Image.fromarray(values.astype(np.uint8))
        mask.putpalette(list(range(256)) * 3)
    else:
        kinds = {"1": bool, "L": np.uint8, "I": np.int32, "I;16": np.uint16}
        mask = Image.fromarray(values.astype(kinds[mode]))
    assert mask.mode == mode
    whole = sample.cut_mask(mask, sample.whole_frame(40, 30, 40)._replace(size=(40, 30)))
    assert whole.tolist() == values.tolist()
    assert whole.dtype == (torch.int32 if mode.startswith("I") else torch.uint8)
    cut = sample.cut_mask(mask, Frame((40, 30), (5, 6, 25, 20), (17, 9), (1, 1, 9, 8)))
    assert cut.shape == (7, 8)
    assert set(cut.flatten().tolist()) <= set(values[6:20, 5:25].flatten().tolist())


sides = st.integers(1, 400)
shares = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted)
ratios = st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted)


@given(sides, sides, shares, ratios, st.integers(0, 2**32))
def test_a_random_box_lies_inside_its_image(width, height, scale, ratio, seed):
    torch.manual_seed(seed)
    left, top, right, bottom = sample.random_box(width, height, scale, ratio)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@given(shares, ratios, st.integers(0, 2**32))
def test_a_random_box_keeps_its_bounds_in_an_image_that_has_room(scale, ratio, seed):
    torch.manual_seed(seed)
    side = 2000
    left, top, right, bottom = sample.random_box(side, side, (scale[0] / 6, scale[1] / 6), ratio)
    width, height = right - left, bottom - top
    assert ratio[0] * 0.95 <= width / height <= ratio[1] * 1.05
    assert scale[0] / 6 * 0.95 <= width * height / side**2 <= scale[1] / 6 * 1.05


def test_random_boxes_reach_every_corner_and_their_areas_are_uniform():
    torch.manual_seed(0)
    boxes = torch.tensor([sample.random_box(100, 80, (0.1, 0.5), (1.0, 1.0)) for _ in range(2000)])
    left, top, right, bottom = boxes.unbind(1)
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 100, 80)
    areas = ((right - left) * (bottom - top) / 8000).sort().values
    assert torch.allclose(areas, torch.linspace(0.1, 0.5, 2000), atol=0.03)


def test_the_logarithm_of_the_ratio_is_uniform():
    torch.manual_seed(0)
    boxes = torch.tensor([sample.random_box(1000, 1000, (0.01, 0.1), (0.25, 4.0)) for _ in range(2000)])
    left, top, right, bottom = boxes.unbind(1)
    logs = ((right - left) / (bottom - top)).log2().sort().values
    assert torch.allclose(logs, torch.linspace(-2, 2, 2000), atol=0.2)


@pytest.mark.parametrize(
    ("size", "ratio", "box"), [((10, 100), (1, 2), (0, 45, 10, 55)), ((100, 10), (0.5, 1), (45, 0, 55, 10))]
)
def test_where_no_draw_fits_the_largest_allowed_box_in_the_middle_is_taken(size, ratio, box):
    assert sample.random_box(*size, (0.99, 1.0), ratio) == box


def test_a_box_takes_the_same_count_of_random_numbers_whether_it_fits_at_once_or_not():
    def after(width, height):
        torch.manual_seed(3)
        sample.random_box(width, height, (0.9, 1.0), (0.9, 1.1))
        return torch.rand(())

    assert after(100, 100) == after(100, 3)


def test_a_box_draws_from_the_generator_it_is_given_and_from_nothing_else():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    drawn = sample.random_box(400, 300, (0.1, 1.0), (0.5, 2.0), torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), state)
    assert sample.random_box(400, 300, (0.1, 1.0), (0.5, 2.0)) == drawn
