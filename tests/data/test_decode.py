"""Images of every kind come out right, or are refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from cvkit.data import decode
from cvkit.data.decode import opened, upright_size
from cvkit.errors import ImageError

ORIENTATION = 0x0112
chance = np.random.default_rng(0)
NOISE = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)  # height 12, width 16: no symmetry hides a fault
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[40:200:12j, 30:220:16j], 90), axis=-1).round().astype(np.uint8)
PALE = 96 + SMOOTH // 3  # LAB of 8 bits is coarse where colours are strong
GREY = NOISE[..., 0]
ALPHA = chance.integers(0, 256, (12, 16), dtype=np.uint8)
DEEP = chance.integers(0, 65536, (12, 16, 3), dtype=np.uint16)
LEVELS = chance.integers(0, 65536, (12, 16), dtype=np.uint16)
BITS = GREY > 127
INDICES = NOISE[..., 1] % 4
COLOURS = np.array([[10, 20, 30], [250, 0, 130], [0, 99, 0], [255, 255, 254]], np.uint8)


def encoded(image, form="PNG", **options):
    """Bytes of a file, from an array or an image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def as_mode(array, mode):
    return Image.fromarray(array).convert(mode)


def with_alpha(array):
    return np.dstack([array, ALPHA])


def palette():
    image = Image.fromarray(INDICES)
    image.putpalette(COLOURS.tobytes())
    return image


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png(raw, width, height, depth, colour, *chunks, interlaced=0):
    """A PNG by hand, of kinds that Pillow does not write; ``raw`` has each row behind its filter byte."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    rest = [chunk(name, body) for name, body in (*chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b""))]
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(rest)


def rows(array):
    """Rows of samples, most significant byte first, each behind a filter byte of 0."""
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in array)


def adam7(array):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    return b"".join(rows(array[y::down, x::right]) for x, y, right, down in passes)


def tiff(data, width, height, bits, *, white_is_zero=False, kind=1):
    """A grey TIFF by hand, least significant byte first."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1}
    tags |= {273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: height, 279: len(data), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


def bmp_with_alpha():
    """A BMP by hand whose header says where red, green, blue and alpha are, as programs that draw write it."""
    masks = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 16, -12, 1, 32, 3, 768, 2835, 2835, 0, 0) + masks + b"BGRs" + bytes(48)
    return (
        b"BM"
        + struct.pack("<IHHI", 14 + len(header) + 768, 0, 0, 14 + len(header))
        + header
        + with_alpha(NOISE).tobytes()
    )


def scaled(levels, maximum=65535):
    return np.rint(levels.astype(np.float64) * 255 / maximum).astype(np.uint8)


def over(colour, alpha, background=(255, 255, 255)):
    colour, share = np.broadcast_to(colour.astype(float).reshape(12, 16, -1), (12, 16, 3)), alpha[..., None] / 255
    return np.rint(colour * share + np.array(background, float) * (1 - share))


def lab(array):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(Image.fromarray(array), *profiles, outputMode="LAB")


FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}
LOSSLESS = {"lossless": True, "exact": True}
FINE = {"quality": 100, "subsampling": 0}
INDEX_ALPHA = np.array([0, 255, 128, 255], np.uint8)
ON_BLUE = {"background": (0, 0, 200)}

# name: (bytes, expected levels as (12, 16) grey or (12, 16, 3), largest difference allowed, arguments of decode)
CASES = {
    "RGB PNG": (encoded(NOISE), NOISE, 0, {}),
    "RGB PNG, interlaced": (png(adam7(NOISE), 16, 12, 8, 2, interlaced=1), NOISE, 0, {}),
    "RGB PNG, 16 bits a channel": (png(rows(DEEP), 16, 12, 16, 2), scaled(DEEP), 1, {}),
    "RGB PNG, a colour named transparent": (
        encoded(Image.fromarray(NOISE), transparency=tuple(NOISE[0, 0].tolist())),
        np.where((NOISE[0, 0] == NOISE).all(-1, keepdims=True), (0, 0, 200), NOISE),
        0,
        ON_BLUE,
    ),
    "RGBA PNG": (encoded(with_alpha(NOISE)), over(NOISE, ALPHA), 1, {}),
    "RGBA PNG on a custom background": (
        encoded(with_alpha(NOISE)),
        over(NOISE, ALPHA, ON_BLUE["background"]),
        1,
        ON_BLUE,
    ),
    "RGBA PNG, 16 bits a channel": (
        png(rows(with_alpha(NOISE).astype(np.uint16) * 257), 16, 12, 16, 6),
        over(NOISE, ALPHA),
        1,
        {},
    ),
    "grey PNG": (encoded(GREY), GREY, 0, {}),
    "grey PNG, 16 bits": (encoded(LEVELS), scaled(LEVELS), 0, {}),
    "grey PNG, 16 bits, dark": (encoded(LEVELS // 100), scaled(LEVELS // 100), 0, {}),
    "grey PNG, 4 bits": (
        png(rows((GREY[:, ::2] & 240) | (GREY[:, 1::2] >> 4)), 16, 12, 4, 0),
        (GREY >> 4) * 17,
        0,
        {},
    ),
    "grey PNG, interlaced": (png(adam7(GREY), 16, 12, 8, 0, interlaced=1), GREY, 0, {}),
    "grey PNG, a level named transparent": (
        encoded(Image.fromarray(GREY), transparency=int(GREY[0, 0])),
        np.where((GREY[0, 0] == GREY)[..., None], (0, 0, 200), GREY[..., None]),
        0,
        ON_BLUE,
    ),
    "grey and alpha PNG": (encoded(np.dstack([GREY, ALPHA])), over(GREY, ALPHA), 1, {}),
    "grey and alpha PNG on a custom background": (
        encoded(np.dstack([GREY, ALPHA])),
        over(GREY, ALPHA, ON_BLUE["background"]),
        1,
        ON_BLUE,
    ),
    "bilevel PNG": (encoded(BITS), BITS * 255, 0, {}),
    "bilevel PNG, white named transparent": (
        png(rows(np.packbits(BITS, axis=1)), 16, 12, 1, 0, (b"tRNS", b"\0\1")),
        np.where(BITS[..., None], (0, 0, 200), 0),
        0,
        ON_BLUE,
    ),
    "palette PNG": (encoded(palette()), COLOURS[INDICES], 0, {}),
    "palette PNG, one index transparent": (
        encoded(palette(), transparency=1),
        np.where((INDICES == 1)[..., None], (0, 0, 200), COLOURS[INDICES]),
        0,
        ON_BLUE,
    ),
    "palette PNG with alpha": (
        encoded(palette(), transparency=INDEX_ALPHA.tobytes()),
        over(COLOURS[INDICES], INDEX_ALPHA[INDICES]),
        1,
        {},
    ),
    "animated PNG: its first frame": (encoded(NOISE, **FRAMES), NOISE, 0, {}),
    "PNG turned": (encoded(NOISE, exif=turned(6)), np.rot90(NOISE, -1), 0, {}),
    "palette PNG with alpha turned": (
        encoded(palette(), transparency=INDEX_ALPHA.tobytes(), exif=turned(6)),
        np.rot90(over(COLOURS[INDICES], INDEX_ALPHA[INDICES]), -1),
        1,
        {},
    ),
    "16-bit PNG turned": (encoded(LEVELS, exif=turned(5)), scaled(LEVELS).T, 0, {}),
    "RGB JPEG": (encoded(SMOOTH, "JPEG", **FINE), SMOOTH, 3, {}),
    "RGB JPEG, progressive": (encoded(SMOOTH, "JPEG", progressive=True, **FINE), SMOOTH, 3, {}),
    "grey JPEG": (encoded(SMOOTH[..., 1], "JPEG", quality=100), SMOOTH[..., 1], 3, {}),
    "CMYK JPEG": (encoded(as_mode(SMOOTH, "CMYK"), "JPEG", **FINE), SMOOTH, 5, {}),
    "JPEG with a second image behind the first (MPO)": (
        encoded(SMOOTH, "MPO", save_all=True, append_images=[Image.fromarray(255 - SMOOTH)], **FINE),
        SMOOTH,
        3,
        {},
    ),
    "RGB TIFF": (encoded(NOISE, "TIFF"), NOISE, 0, {}),
    "RGB TIFF, packed": (encoded(NOISE, "TIFF", compression="tiff_lzw"), NOISE, 0, {}),
    "RGBA TIFF": (encoded(with_alpha(NOISE), "TIFF"), over(NOISE, ALPHA), 1, {}),
    "grey TIFF": (encoded(GREY, "TIFF"), GREY, 0, {}),
    "grey TIFF, 16 bits": (encoded(LEVELS, "TIFF"), scaled(LEVELS), 0, {}),
    "grey TIFF, 16 bits, most significant first": (
        encoded(Image.frombytes("I;16B", (16, 12), LEVELS.astype(">u2").tobytes()), "TIFF"),
        scaled(LEVELS),
        0,
        {},
    ),
    "grey TIFF where 0 is white": (tiff(GREY.tobytes(), 16, 12, 8, white_is_zero=True), 255 - GREY, 0, {}),
    "bilevel TIFF": (encoded(BITS, "TIFF"), BITS * 255, 0, {}),
    "bilevel TIFF, as a fax": (encoded(BITS, "TIFF", compression="group4"), BITS * 255, 0, {}),
    "palette TIFF": (encoded(palette(), "TIFF"), COLOURS[INDICES], 0, {}),
    "CMYK TIFF": (encoded(as_mode(NOISE, "CMYK"), "TIFF"), NOISE, 0, {}),
    "YCbCr TIFF": (encoded(as_mode(NOISE, "YCbCr"), "TIFF"), NOISE, 3, {}),
    "LAB TIFF": (encoded(lab(PALE), "TIFF"), PALE, 4, {}),
    "TIFF of two pages: the first": (encoded(NOISE, "TIFF", **FRAMES), NOISE, 0, {}),
    "TIFF turned": (encoded(NOISE, "TIFF", exif=turned(8)), np.rot90(NOISE, 1), 0, {}),
    "16-bit grey PGM": (b"P5 16 12 65535\n" + LEVELS.astype(">u2").tobytes(), scaled(LEVELS), 0, {}),
    "grey PGM with a maximum of 1,000": (
        b"P5 16 12 1000\n" + (LEVELS % 1001).astype(">u2").tobytes(),
        scaled(LEVELS % 1001, 1000),
        1,
        {},
    ),
    "RGB PPM": (encoded(NOISE, "PPM"), NOISE, 0, {}),
    "RGB BMP": (encoded(NOISE, "BMP"), NOISE, 0, {}),
    "grey BMP": (encoded(GREY, "BMP"), GREY, 0, {}),
    "bilevel BMP": (encoded(BITS, "BMP"), BITS * 255, 0, {}),
    "palette BMP": (encoded(palette(), "BMP"), COLOURS[INDICES], 0, {}),
    "BMP of 32 bits, the fourth byte of no meaning": (encoded(with_alpha(NOISE), "BMP"), NOISE, 0, {}),
    "RGBA BMP": (bmp_with_alpha(), over(NOISE, ALPHA), 1, {}),
    "grey GIF": (encoded(GREY, "GIF"), GREY, 0, {}),
    "palette GIF": (encoded(palette(), "GIF", interlace=0), COLOURS[INDICES], 0, {}),
    "palette GIF, interlaced": (encoded(palette(), "GIF", interlace=1), COLOURS[INDICES], 0, {}),
    "palette GIF, one index transparent": (
        encoded(palette(), "GIF", transparency=2),
        np.where((INDICES == 2)[..., None], (0, 0, 200), COLOURS[INDICES]),
        0,
        ON_BLUE,
    ),
    "animated GIF: its first frame": (
        encoded(GREY, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        GREY,
        0,
        {},
    ),
    "RGB WebP": (encoded(SMOOTH, "WEBP", quality=100), SMOOTH, 15, {}),
    "RGB WebP, lossless": (encoded(NOISE, "WEBP", **LOSSLESS), NOISE, 0, {}),
    "RGBA WebP, lossless": (encoded(with_alpha(NOISE), "WEBP", **LOSSLESS), over(NOISE, ALPHA), 1, {}),
    "animated WebP: its first frame": (encoded(NOISE, "WEBP", **FRAMES, **LOSSLESS), NOISE, 0, {}),
    "WebP turned": (encoded(NOISE, "WEBP", exif=turned(3), **LOSSLESS), NOISE[::-1, ::-1], 0, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_image_comes_out_right(name):
    data, expected, allowed, options = CASES[name]
    image = decode(data, **options)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=-1)
    assert (image.mode, image.size) == ("RGB", (expected.shape[1], expected.shape[0]))
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= allowed


@pytest.mark.parametrize("name", [name for name in CASES if name != "LAB TIFF"])
def test_grey_is_the_grey_of_the_right_colours(name):
    data, _, _, options = CASES[name]
    grey, colour = decode(data, mode="L", **options), decode(data, **options)
    assert (grey.mode, grey.size) == ("L", colour.size)
    assert np.abs(np.asarray(grey).astype(int) - np.asarray(colour.convert("L"))).max() <= 2


def white_is_zero_16():
    return tiff((65535 - LEVELS).astype("<u2").tobytes(), 16, 12, 16, white_is_zero=True)


def twelve_bits():
    levels = (LEVELS >> 4).astype(int)
    left, right = levels[:, ::2], levels[:, 1::2]
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1).astype(np.uint8)
    return tiff(packed.tobytes(), 16, 12, 12)


@pytest.mark.parametrize("data", [twelve_bits(), white_is_zero_16()], ids=["12 bits", "16 bits, 0 is white"])
def test_grey_tiffs_that_pillow_opens_with_other_levels_are_right_or_refused(data):
    try:
        grey = np.asarray(decode(data, mode="L"))
    except ImageError:
        return
    assert np.abs(grey.astype(int) - scaled(LEVELS)).max() <= 1


@pytest.mark.parametrize(
    "data",
    [
        png(rows(LEVELS), 16, 12, 16, 0, (b"tRNS", struct.pack(">H", LEVELS[0, 0]))),
        png(
            rows(DEEP),
            16,
            12,
            16,
            2,
            (b"tRNS", DEEP[0, 0].astype(">u2").tobytes()),
        ),
    ],
    ids=["grey", "RGB"],
)
def test_a_16_bit_png_with_a_transparent_level_shows_the_background_there(data):
    assert decode(data, background=(1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("interlaced", [0, 1])
def test_of_colours_of_16_bits_only_the_very_one_is_transparent(interlaced):
    deep = np.repeat(DEEP[:1, :1], 16, axis=1).repeat(12, axis=0)
    deep[1:] ^= np.arange(1, 12, dtype=np.uint16)[:, None, None]  # of the same high bytes
    low = (b"tRNS", deep[0, 0].astype(">u2").tobytes())
    data = png(adam7(deep) if interlaced else rows(deep), 16, 12, 16, 2, low, interlaced=interlaced)
    shown = np.asarray(decode(data, background=(1, 2, 3)))
    assert (shown[0] == (1, 2, 3)).all()
    assert (shown[1:] == DEEP[0, 0] >> 8).all()


def test_a_transparent_colour_of_16_bits_is_turned_with_its_image():
    exif = turned(6).tobytes()[6:]
    data = png(rows(DEEP), 16, 12, 16, 2, (b"tRNS", DEEP[0, 0].astype(">u2").tobytes()), (b"eXIf", exif))
    image = decode(data, background=(1, 2, 3))
    assert (image.size, image.getpixel((11, 0))) == ((12, 16), (1, 2, 3))


@pytest.mark.parametrize(("depth", "step"), [(2, 85), (4, 17)])
def test_a_transparent_level_of_few_bits_is_found(depth, step):
    levels = np.arange(16, dtype=np.uint8)[None].repeat(12, 0) % (1 << depth)
    packed = np.zeros((12, 16 * depth // 8), np.uint8)
    for place in range(8 // depth):
        packed |= levels[:, place :: 8 // depth] << (8 - depth * (place + 1))
    data = png(rows(packed), 16, 12, depth, 0, (b"tRNS", b"\0\3"))
    shown = np.where((levels == 3)[..., None], (0, 0, 200), (levels * step)[..., None])
    assert np.array_equal(np.asarray(decode(data, background=(0, 0, 200))), shown)


def test_lab_is_had_in_grey_as_in_colour():
    grey = np.asarray(decode(CASES["LAB TIFF"][0], mode="L")).astype(int)
    assert np.abs(grey - Image.fromarray(PALE).convert("L")).max() <= 3


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_noted_by_a_camera_is_applied(form, orientation):
    options = {"JPEG": FINE, "WEBP": LOSSLESS}.get(form, {})
    data = encoded(SMOOTH, form, exif=turned(orientation), **options)
    upright = np.asarray(decode(data))
    expected = UPRIGHT[orientation](SMOOTH)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).max() <= (3 if form == "JPEG" else 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_has_been_turned_is_not_turned_once_more(form):
    image = decode(encoded(SMOOTH, form, exif=turned(6)))
    assert ImageOps.exif_transpose(image).size == image.size == (12, 16)
    assert decode(encoded(image, "PNG", exif=image.getexif())).size == (12, 16)


def test_an_orientation_noted_in_xmp_is_applied():
    note = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="8"/></rdf:RDF></x:xmpmeta>"""
    data = encoded(PHOTO, "JPEG", xmp=note)
    image = decode(data, enough=lambda width, height: (width // 8, height // 2))
    assert (image.size, decode(data).size) == ((300, 400), (600, 800))
    assert ImageOps.exif_transpose(image).size == image.size


@pytest.mark.parametrize(
    ("form", "orientation"),
    [pytest.param(form, n) for form in ("JPEG", "PNG", "WEBP", "TIFF") for n in UPRIGHT],
)
def test_the_upright_size_is_known_from_the_header(form, orientation):
    data = encoded(SMOOTH, form, exif=turned(orientation))
    sizes = []

    def look(image):
        sizes.append(upright_size(image))
        return image

    opened(data, look)
    assert sizes == [decode(data).size]


@pytest.mark.parametrize(
    "orientation",
    [
        0,
        9,
        65535,
    ],
)
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    data = encoded(SMOOTH, "JPEG", exif=turned(orientation), **FINE)
    assert decode(data).size == (16, 12)
    seen = []
    decode(data, enough=lambda *size: seen.append(size) or size)
    assert seen == [(16, 12)]


def test_an_image_is_the_same_from_its_path_as_text_as_path_and_from_its_bytes(tmp_path):
    path = tmp_path / "an image with spaces and ü.png"
    path.write_bytes(CASES["RGB PNG"][0])
    assert decode(path) == decode(str(path)) == decode(path.read_bytes())


def test_what_a_file_is_decides_and_not_what_it_is_called(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(CASES["RGB PNG"][0])
    assert np.array_equal(np.asarray(decode(path)), NOISE)


# --------------------------------------------------------------------------- no larger than is needed


def photo(width, height):
    """Something like a photograph: large soft shapes, edges, and a little grain."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    soft = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y - 4 * x), np.sin(9 * x * y)], axis=-1) * 70 + 128
    soft[(x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.03] += (50, -30, 20)
    soft += np.random.default_rng(1).normal(0, 2, soft.shape)
    return Image.fromarray(soft.clip(0, 255).astype(np.uint8))


PHOTO = photo(800, 600)
PHOTO_JPEG = encoded(PHOTO, "JPEG", quality=90)


@pytest.mark.parametrize(
    ("part", "size"),
    [(1, (800, 600)), (2, (400, 300)), (3, (400, 300)), (4, (200, 150)), (8, (100, 75)), (50, (100, 75))],
)
def test_a_jpeg_is_decoded_no_larger_than_is_enough_exactly_as_pillow_drafts_it(part, size):
    own = Image.open(io.BytesIO(PHOTO_JPEG))
    own.draft(None, (800 // part, 600 // part))
    image = decode(PHOTO_JPEG, enough=lambda width, height: (width // part, height // part))
    assert image.size == size
    assert image.tobytes() == own.convert("RGB").tobytes()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_an_image_decoded_smaller_is_near_the_whole_one_averaged(factor):
    whole = np.asarray(decode(PHOTO_JPEG).reduce(factor)).astype(float)
    small = decode(PHOTO_JPEG, enough=lambda width, height: (width // factor, height // factor))
    assert np.abs(np.asarray(small) - whole).mean() < 2.5


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_enough_is_asked_and_answered_in_upright_sizes(orientation):
    data = encoded(PHOTO, "JPEG", exif=turned(orientation))
    asked = []

    def enough(width, height):
        asked.append((width, height))
        return width // 8, height // 2  # not the same in both: a width taken for a height would show

    upright = (600, 800) if orientation >= 5 else (800, 600)
    small, whole = decode(data, enough=enough), decode(data)
    assert (asked, whole.size) == ([upright], upright)
    assert small.size == (upright[0] // 2, upright[1] // 2)
    assert np.abs(np.asarray(small).astype(float) - np.asarray(whole.reduce(2))).mean() < 2.5


def test_of_two_images_in_a_jpeg_the_first_is_scaled():
    data = encoded(PHOTO, "MPO", save_all=True, append_images=[Image.new("RGB", PHOTO.size)])
    small = decode(data, enough=lambda width, height: (width // 4, height // 4))
    assert small.size == (200, 150)
    assert np.abs(np.asarray(small).astype(float) - np.asarray(decode(data).reduce(4))).mean() < 2.5


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("source", ["RGB", "L", "CMYK"])
def test_every_jpeg_is_scaled_in_every_mode(source, mode):
    data = encoded(PHOTO.convert(source), "JPEG", quality=90)
    small, whole = decode(data, mode=mode, enough=lambda *size: (200, 150)), decode(data, mode=mode)
    assert (small.mode, small.size) == (mode, (200, 150))
    assert np.abs(np.asarray(small).astype(float) - np.asarray(whole.reduce(4))).mean() < 2.5


@pytest.mark.parametrize("name", [name for name in CASES if "JPEG" not in name])
def test_what_is_no_jpeg_is_decoded_whole_and_the_same(name):
    data, _, _, options = CASES[name]
    assert decode(data, enough=lambda width, height: (1, 1), **options) == decode(data, **options)


SIZES = st.tuples(st.integers(1, 150), st.integers(1, 150))


@given(size=SIZES, share=st.tuples(st.floats(0, 1), st.floats(0, 1)), orientation=st.sampled_from([1, 3, 6, 7]))
def test_an_image_is_never_smaller_than_what_was_enough(size, share, orientation):
    data = encoded(Image.new("RGB", size, (90, 120, 60)), "JPEG", exif=turned(orientation))
    upright = size[::-1] if orientation >= 5 else size
    wanted = tuple(max(1, round(whole * part)) for whole, part in zip(upright, share, strict=True))
    image = decode(data, enough=lambda *given: wanted)
    assert wanted[0] <= image.width <= upright[0]
    assert wanted[1] <= image.height <= upright[1]
    scale = min(whole // want for whole, want in zip(upright, wanted, strict=True))
    assert image.size == tuple(-(-whole // max(n for n in (1, 2, 4, 8) if n <= scale)) for whole in upright)


@given(size=SIZES)
def test_more_than_there_is_gives_the_whole_image(size):
    data = encoded(Image.new("RGB", size), "JPEG")
    assert decode(data, enough=lambda width, height: (width * 3, height + 1)) == decode(data)


def test_a_size_of_0_is_enough_for_the_smallest_there_is():
    assert decode(PHOTO_JPEG, enough=lambda width, height: (0, 0)).size == (100, 75)
