import io
import random

import numpy as np
import pytest
from PIL import Image

from cvkit.data import decode
from cvkit.errors import ArgumentError, ImageError


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def solid(mode, colour, size=(6, 4)):
    return Image.new(mode, size, colour)


PALETTE = solid("P", 0)
PALETTE.putpalette([10, 20, 30, *[0] * 765])

CASES = {
    "rgb png": (encoded(solid("RGB", (1, 2, 3))), (1, 2, 3)),
    "rgb bmp": (encoded(solid("RGB", (1, 2, 3)), "BMP"), (1, 2, 3)),
    "rgb tiff": (encoded(solid("RGB", (1, 2, 3)), "TIFF"), (1, 2, 3)),
    "rgb webp lossless": (encoded(solid("RGB", (1, 2, 3)), "WEBP", lossless=True), (1, 2, 3)),
    "grey png": (encoded(solid("L", 77)), (77, 77, 77)),
    "grey jpeg": (encoded(solid("L", 77), "JPEG"), (77, 77, 77)),
    "bilevel black": (encoded(solid("1", 0)), (0, 0, 0)),
    "bilevel white": (encoded(solid("1", 1)), (255, 255, 255)),
    "palette png": (encoded(PALETTE), (10, 20, 30)),
    "palette gif": (encoded(PALETTE, "GIF"), (10, 20, 30)),
    "rgba opaque": (encoded(solid("RGBA", (9, 8, 7, 255))), (9, 8, 7)),
    "rgba transparent shows the background, not its hidden colour": (
        encoded(solid("RGBA", (9, 8, 7, 0))),
        (255, 255, 255),
    ),
    "rgba half": (encoded(solid("RGBA", (0, 0, 0, 128))), (127, 127, 127)),
    "grey with alpha": (encoded(solid("LA", (50, 0))), (255, 255, 255)),
    "palette with transparency": (encoded(PALETTE, transparency=0), (255, 255, 255)),
    "rgb with a transparent colour": (encoded(solid("RGB", (1, 2, 3)), transparency=(1, 2, 3)), (255, 255, 255)),
    "16-bit grey, full": (encoded(Image.fromarray(np.full((4, 6), 65535, np.uint16))), (255, 255, 255)),
    "16-bit grey, middle is scaled and not clipped": (
        encoded(Image.fromarray(np.full((4, 6), 32896, np.uint16))),
        (128,) * 3,
    ),
    "16-bit grey, dark": (encoded(Image.fromarray(np.full((4, 6), 300, np.uint16))), (1, 1, 1)),
    "16-bit grey tiff": (encoded(Image.fromarray(np.full((4, 6), 32896, np.uint16)), "TIFF"), (128,) * 3),
    "16-bit grey pgm, dark": (b"P5 6 4 65535\n" + (257).to_bytes(2, "big") * 24, (1, 1, 1)),
    "16-bit grey pgm": (b"P5 6 4 65535\n" + (32896).to_bytes(2, "big") * 24, (128,) * 3),
    "cmyk tiff": (encoded(solid("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_mode_comes_out_right(name):
    data, colour = CASES[name]
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", (6, 4))
    assert image.getpixel((2, 2)) == colour


def test_a_background_of_ones_own_and_grey_are_to_be_had():
    data = encoded(solid("RGBA", (9, 8, 7, 0)))
    assert decode(data, background=(10, 20, 30)).getpixel((0, 0)) == (10, 20, 30)
    assert decode(encoded(solid("RGB", (30, 30, 30))), mode="L").getpixel((0, 0)) == 30


def test_the_orientation_noted_by_a_camera_is_applied():
    image = solid("RGB", (0, 0, 0), (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode(encoded(image, "JPEG", exif=exif)).size == (4, 6)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [solid("RGB", (200, 0, 0)), solid("RGB", (0, 200, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 100000), ("I", 60000), ("I", 3)])
def test_what_has_no_right_answer_in_8_bits_is_refused_by_name(tmp_path, mode, value):
    path = tmp_path / "odd.tiff"
    solid(mode, value).save(path)
    with pytest.raises(ImageError, match=r"odd\.tiff has no right answer in 8 bits"):
        decode(path)


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    solid("L", 0, (100, 100)).save(path)
    with pytest.raises(
        ImageError, match=r"large\.png is too large\n  got: 100×100 pixels\n  expected: at most 9,999 pixels"
    ):
        decode(path, max_pixels=9_999)


def test_pillows_own_bound_is_named_where_it_is_the_lower_one(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"is too large\n  got: .*\n.*\n  fix: .*raise PIL\.Image\.MAX_IMAGE_PIXELS"):
        decode(encoded(solid("L", 0)), max_pixels=10**9)


def test_a_full_memory_is_not_blamed_on_the_file(monkeypatch):
    def full(data):
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(MemoryError):
        decode(b"")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"cannot read the picture .*none\.png\n  got: FileNotFoundError"):
        decode(tmp_path / "none.png")


def test_another_mode_is_refused():
    with pytest.raises(ArgumentError, match="mode cannot be used"):
        decode(CASES["rgb png"][0], mode="HSV")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_bytes_are_decoded_or_refused_and_nothing_else(form):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    chance = random.Random(form)
    refused = []
    for _ in range(30):
        data = bytearray(whole)
        if chance.random() < 0.5:
            data = data[: chance.randrange(len(data))]
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert decode(bytes(data)).mode == "RGB"
        except ImageError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert all("bytes" in message for message in refused)
