"""One image of any mode to 8 bits a channel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cvkit.errors import ImageError
from cvkit.pixels import WHITE, as_image, eight_bit

BLUE = (0, 0, 200)
EVERY_MODE = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "LA",
    "PA",
    "CMYK",
    "YCbCr",
    "HSV",
    "I;16",
    "I;16L",
    "I;16B",
]


@pytest.mark.parametrize(("mode", "wanted"), [("RGB", "RGB"), ("L", "L"), ("RGB", None), ("L", None)])
def test_where_nothing_is_to_be_done_the_same_object_comes_back(mode, wanted):
    image = Image.new(mode, (3, 2))
    assert eight_bit(image, wanted) is image


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_every_mode_is_had_in_colour_in_grey_and_as_it_is(mode):
    image = Image.new(mode, (3, 2))
    before = (image.mode, image.tobytes())
    assert eight_bit(image, "RGB").mode == "RGB"
    assert eight_bit(image, "L").mode == "L"
    assert eight_bit(image).mode == ("L" if mode in ("1", "L") or mode.startswith("I;16") else "RGB")
    assert {eight_bit(image, wanted).size for wanted in ("RGB", "L", None)} == {(3, 2)}
    assert (image.mode, image.tobytes()) == before  # what was given stays what it was


def test_grey_stays_grey_and_colour_becomes_grey_where_that_is_asked():
    assert eight_bit(Image.new("L", (3, 2), 77)).getpixel((0, 0)) == 77
    assert eight_bit(Image.new("L", (3, 2), 77), "RGB").getpixel((0, 0)) == (77, 77, 77)
    assert eight_bit(Image.new("RGB", (3, 2), (255, 0, 0)), "L").getpixel((0, 0)) == 76  # 0.299 of 255
    assert eight_bit(Image.new("1", (3, 2), 1)).getpixel((0, 0)) == 255


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
@given(level=st.integers(0, 65535))
def test_16_bits_are_scaled_and_rounded(mode, level):
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (1, 1), np.array([level], order).tobytes())
    assert eight_bit(image, "L").getpixel((0, 0)) == (level * 255 * 2 + 65535) // (2 * 65535)


def test_scaling_takes_all_of_16_bits_to_all_of_8_in_order():
    levels = (
        np.asarray(eight_bit(Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)))).ravel().astype(int)
    )
    assert (levels[0], levels[-1]) == (0, 255)
    assert set(np.diff(levels)) == {0, 1}


@pytest.mark.parametrize(
    ("mode", "colour", "shown"),
    [
        ("RGBA", (9, 8, 7, 0), BLUE),
        ("RGBA", (9, 8, 7, 255), (9, 8, 7)),
        ("RGBA", (0, 0, 0, 128), (0, 0, 100)),
        ("LA", (50, 0), BLUE),
        ("LA", (50, 255), (50, 50, 50)),
        ("PA", (0, 0), BLUE),
        ("RGBa", (0, 0, 0, 0), BLUE),
    ],
)
def test_transparent_pixels_show_the_background(mode, colour, shown):
    image = Image.new(mode, (3, 2), colour)
    assert eight_bit(image, background=BLUE).getpixel((0, 0)) == shown
    assert eight_bit(image, "L", background=BLUE).getpixel((0, 0)) == Image.new("RGB", (1, 1), shown).convert(
        "L"
    ).getpixel((0, 0))


def test_white_lies_behind_unless_it_is_said_otherwise():
    assert WHITE == (255, 255, 255)
    assert eight_bit(Image.new("RGBA", (3, 2))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("wanted", ["RGB", None])
def test_one_colour_named_transparent_shows_the_background(wanted):
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.putpixel((0, 0), (1, 2, 4))
    image.info["transparency"] = (1, 2, 3)
    shown = eight_bit(image, wanted, background=BLUE)
    assert (shown.getpixel((0, 0)), shown.getpixel((1, 1))) == ((1, 2, 4), BLUE)
    assert "transparency" not in shown.info
    assert eight_bit(shown, "RGB") is shown


def test_one_level_of_grey_named_transparent_shows_the_background_in_grey():
    image = Image.new("L", (3, 2), 50)
    image.info["transparency"] = 50
    assert eight_bit(image, "L", background=(200, 200, 200)).getpixel((0, 0)) == 200


def test_a_palette_with_alpha_shows_the_background():
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0)).quantize(4)
    assert (image.mode, image.palette.mode) == ("P", "RGBA")
    assert eight_bit(image, background=BLUE).getpixel((0, 0)) == BLUE


@pytest.mark.parametrize(("mode", "wanted"), [("LAB", "L"), ("La", "RGB"), ("La", "L")])
def test_what_is_had_by_two_conversions_is_not_refused(mode, wanted):
    assert eight_bit(Image.new(mode, (3, 2)), wanted).mode == wanted


@pytest.mark.parametrize("wanted", ["RGB", "L", None])
@pytest.mark.parametrize(("mode", "kind"), [("F", "floating-point levels"), ("I", "32-bit integers")])
def test_what_has_no_right_answer_is_refused(mode, kind, wanted):
    with pytest.raises(ImageError) as caught:
        eight_bit(Image.new(mode, (3, 2)), wanted, name="of sample 7")
    assert str(caught.value) == (
        "the image of sample 7 has no right answer in 8 bits\n"
        f"  got: {kind}, 3×2\n"
        "  expected: 8 or 16 bits a channel\n"
        "  fix: scale it yourself and save it as 16-bit grey, or give arrays to ArrayDataset"
    )


def test_an_image_without_a_name_is_the_given_one():
    with pytest.raises(ImageError, match=r"^the image given has no right answer in 8 bits\n"):
        eight_bit(Image.new("F", (3, 2)))


@pytest.mark.parametrize("form", ["PNG", "PPM"])
def test_integers_of_32_bits_are_taken_for_16_only_where_the_format_says_so(form):
    image = Image.new("I", (3, 2), 32896)
    image.format = form
    assert eight_bit(image).getpixel((0, 0)) == 128
    image.format = "TIFF"
    with pytest.raises(ImageError, match="32-bit integers"):
        eight_bit(image)


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.mark.parametrize(
    ("given", "mode", "expected"),
    [
        (GREY, "L", GREY),
        (GREY[:, :, None], "L", GREY),
        (COLOUR, "RGB", COLOUR),
        (COLOUR[:, :, ::-1], "RGB", COLOUR[:, :, ::-1]),  # a view with strides that run backwards, as of OpenCV's BGR
        (np.dstack([COLOUR, GREY]), "RGBA", np.dstack([COLOUR, GREY])),
        (GREY.astype(np.uint16) * 1000, "I;16", GREY.astype(np.uint16) * 1000),
        (torch.from_numpy(GREY), "L", GREY),
        (torch.from_numpy(GREY)[None], "L", GREY),
        (torch.from_numpy(COLOUR).movedim(-1, 0), "RGB", COLOUR),
    ],
)
def test_arrays_and_tensors_of_levels_are_images(given, mode, expected):
    made = as_image(given)
    assert (made.mode, made.size) == (mode, (4, 3))
    assert (np.asarray(made) == expected).all()


def test_an_image_is_itself():
    image = Image.new("P", (3, 2))
    assert as_image(image) is image


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (COLOUR / 255, "ndarray float64 (3, 4, 3)"),
        (np.zeros((3, 4, 2), np.uint8), "ndarray uint8 (3, 4, 2)"),
        (np.zeros((3, 4, 3), np.uint16), "ndarray uint16 (3, 4, 3)"),
        (np.zeros((0, 4), np.uint8), "ndarray uint8 (0, 4)"),
        (torch.zeros(3, 4, 4), "Tensor torch.float32 (3, 4, 4)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "Tensor torch.uint8 (2, 3, 4, 4)"),
        ("a.png", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused(given, got):
    with pytest.raises(ImageError) as caught:
        as_image(given)
    assert str(caught.value) == (
        f"this is no image\n  got: {got}\n"
        "  expected: a PIL image, a uint8 array (H, W) or (H, W, 3) in the order RGB, or a uint8 tensor (C, H, W)\n"
        "  fix: scale floats from 0 to 1 by (255 * x).round().astype('uint8'), turn OpenCV's BGR round by x[:, :, ::-1]"
    )
