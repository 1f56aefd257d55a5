"""Per-image operations against torchvision's, and pictures of every mode."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as reference
from torchvision.transforms.functional import InterpolationMode

from cvkit.errors import ImageError
from cvkit.transforms import sample


def picture(width=40, height=30, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize(("channels", "made"), [(1, "L"), (3, "RGB")])
def test_every_mode_gets_the_channels_asked_for(mode, channels, made):
    source = picture(mode="L").convert("LA") if mode == "LA" else picture(mode=mode)
    image = sample.to_channels(source, channels)
    assert image.mode == made
    assert sample.to_tensor(image).shape == (channels, 30, 40)
    assert sample.to_tensor(image).dtype == torch.uint8


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_that_fits_is_not_copied(mode):
    image = picture(mode=mode)
    assert sample.to_channels(image, len(image.getbands())) is image
    assert sample.resize(image, 40, 30) is image


def test_hidden_colours_of_transparent_pixels_do_not_show():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert sample.to_tensor(sample.to_channels(image, 3)).permute(1, 2, 0).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_a_transparent_colour_of_a_palette_does_not_show():
    image = Image.new("P", (1, 1), 0)
    image.putpalette([255, 0, 0])
    image.info["transparency"] = 0
    assert sample.to_channels(image, 3).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_keep_their_upper_eight_instead_of_saturating():
    image = Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16))
    assert image.mode == "I;16"
    assert sample.to_tensor(sample.to_channels(image, 1)).tolist() == [[[0, 1, 128, 255]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_mode_without_a_fixed_range_is_refused(mode):
    with pytest.raises(ImageError) as caught:
        sample.to_channels(Image.new(mode, (2, 3)), 3)
    assert str(caught.value) == (
        f"a picture of mode {mode!r} has no right answer as an 8-bit picture\n"
        f"  got: mode {mode!r}, 2×3\n"
        "  expected: 1, 8 or 16 bits a channel\n"
        "  fix: scale it to 8 bits yourself, e.g. Image.fromarray((values / values.max() * 255).astype('uint8'))"
    )


def test_a_mode_that_pillow_cannot_convert_is_refused():
    with pytest.raises(ImageError, match="mode 'LAB' has no right answer"):
        sample.to_channels(Image.new("LAB", (2, 2)), 1)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
def test_the_shorter_side_is_resized_as_torchvision_does(width, height, length):
    expected = reference.resize(Image.new("L", (width, height)), length).size
    assert sample.shorter_side(width, height, length) == expected


@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8))
def test_the_middle_is_that_of_torchvision(width, height, size):
    image = picture(width, height)
    assert sample.centre_crop(image, size).tobytes() == reference.center_crop(image, size).tobytes()


@pytest.mark.parametrize("interpolation", list(sample.INTERPOLATIONS))
@pytest.mark.parametrize("size", [7, 24, 50])
def test_a_box_is_cut_and_resized_as_torchvision_does(interpolation, size):
    image, (left, top, width, height) = picture(), (5, 3, 24, 20)
    ours = sample.crop_and_resize(image, (left, top, left + width, top + height), size, interpolation)
    theirs = reference.resized_crop(
        image, top, left, height, width, [size, size], InterpolationMode(interpolation), antialias=True
    )
    assert ours.tobytes() == theirs.tobytes()


sides = st.integers(1, 400)
shares = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted)
ratios = st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted)


@given(sides, sides, shares, ratios, st.integers(0, 2**32))
def test_a_random_box_lies_inside_its_picture(width, height, scale, ratio, seed):
    torch.manual_seed(seed)
    left, top, right, bottom = sample.random_box(width, height, scale, ratio)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@given(shares, ratios, st.integers(0, 2**32))
def test_a_random_box_keeps_its_bounds_in_a_picture_that_has_room(scale, ratio, seed):
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
