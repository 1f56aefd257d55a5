"""What a file says of its colours is heard: a profile, or a PNG's chunks; or refused by name."""

import io
import pickle
import struct
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from cvkit.data import FolderDataset, ParallelDataset, decode
from cvkit.data import colour_profiles as colours
from cvkit.data.colour_profiles import _conversion, _made, to_srgb
from cvkit.errors import ArgumentError, ImageError, MissingDependencyError

chance = np.random.default_rng(0)
NOISE = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
GREY = NOISE[..., 0]
ALPHA = np.where(NOISE[..., 2] > 127, 255, 0).astype(np.uint8)
LEVELS = chance.integers(0, 65536, (12, 16), dtype=np.uint16)
D65 = (0.3127, 0.329)
SRGB_PLACES = (*D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
P3_PLACES = (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def light(levels, gamma=None):
    """Levels from 0 to 1 as light: by the curve of sRGB, or a power."""
    levels = np.asarray(levels, float)
    if gamma is not None:
        return levels ** (1 / gamma)
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def levels_of(amount):
    amount = np.clip(amount, 0, 1)
    return np.where(amount <= 0.0031308, amount * 12.92, 1.055 * amount ** (1 / 2.4) - 0.055) * 255


def primaries(places):
    white, *columns = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(places[::2], places[1::2], strict=True))
    columns = np.stack(columns, axis=1)
    return columns * np.linalg.solve(columns, white)


def meant(pixels, places=SRGB_PLACES, gamma=None):
    """What pixels of some primaries (of sRGB's white) and curve are in sRGB, by the book."""
    matrix = np.linalg.inv(primaries(SRGB_PLACES)) @ primaries(places)
    return levels_of(light(pixels / 255, gamma) @ matrix.T)


def tables(profile):
    """Yields name, offset and length of each entry of a profile."""
    for n in range(struct.unpack_from(">I", profile, 128)[0]):
        yield (*struct.unpack_from(">4sII", profile, 132 + 12 * n),)


def swapped():
    """The profile of sRGB with red and blue in each other's place."""
    made = bytearray(SRGB)
    for n, (name, _, _) in enumerate(tables(SRGB)):
        other = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name)
        if other:
            made[132 + 12 * n : 136 + 12 * n] = other
    return bytes(made)


def grey_profile(gamma):
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    start = 132 + 24
    table = struct.pack(">I4sII4sII", 2, b"kTRC", start, 14, b"wtpt", start + 16, 20)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + 36, b"", 0x02400000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp"
    ).ljust(68, b"\0")
    return head + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + curve + white


def cmyk_profile():
    """Inks that are what Pillow takes them for, but without cyan: a table of two steps an ink, to Lab."""
    grid = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lightness = (1 - grid[:, 3]) * (1 - 0.5 * grid[:, 1])  # black darkens, magenta by half, the others not
    lab = np.stack([lightness * 65280, np.full(16, 32768), np.full(16, 32768)], axis=1).round().astype(">u2")
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ends = np.array([0, 65535], ">u2").tobytes()
    table = (
        struct.pack(">4sI4B", b"mft2", 0, 4, 3, 2, 0) + identity + struct.pack(">HH", 2, 2) + ends * 4 + lab.tobytes()
    )
    table += ends * 3
    start = 132 + 12
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(table), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    ).ljust(68, b"\0")
    head += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + struct.pack(">I4sII", 1, b"A2B0", start, len(table)) + table


SWAPPED = swapped()
P3 = _made(None, P3_PLACES)


def encoded(image, form="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(pixels, *chunks):
    """An RGB or grey PNG by hand, of 8 or 16 bits, with further chunks before the pixels."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = pixels.shape[:2]
    size = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    parts = [(b"IHDR", size), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def gama(gamma):
    return b"gAMA", struct.pack(">I", round(gamma * 100000))


def chrm(places):
    return b"cHRM", struct.pack(">8I", *(round(one * 100000) for one in places))


def near(image, expected, most):
    assert np.abs(np.asarray(image).astype(float) - expected).max() <= most


# --------------------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    ("form", "options", "most"),
    [
        ("PNG", {}, 1),
        ("TIFF", {}, 1),
        ("WEBP", {"lossless": True}, 1),
        ("JPEG", {"quality": 100, "subsampling": 0}, 4),
        ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, 4),
    ],
)
def test_a_profile_that_swaps_red_and_blue_is_heard_in_every_format(form, options, most):
    data = encoded(NOISE, form, icc_profile=SWAPPED, **options)
    image = decode(data)
    near(image, NOISE[..., ::-1], most)
    near(decode(data, colour="ignore"), NOISE, most)
    near(decode(data, mode="L"), np.asarray(image.convert("L")), 1)
    assert "icc_profile" not in image.info  # or the next program would convert once more
    assert decode(encoded(image)).tobytes() == image.tobytes()


def test_wide_colours_become_those_of_srgb():
    pixels = 64 + NOISE // 4  # those that sRGB has
    near(decode(encoded(pixels, icc_profile=P3)), meant(pixels, P3_PLACES), 1)


def test_a_jpeg_that_is_decoded_smaller_is_converted_too():
    image = Image.new("RGB", (64, 48), (200, 100, 30))
    small = decode(encoded(image, "JPEG", quality=95, icc_profile=SWAPPED), enough=lambda width, height: (8, 6))
    assert small.size == (8, 6)
    near(small, (30, 100, 200), 4)


def test_what_is_converted_is_turned_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    near(decode(encoded(NOISE, icc_profile=SWAPPED, exif=exif)), np.rot90(NOISE[..., ::-1], -1), 1)
    assert decode(encoded(NOISE, icc_profile=SWAPPED, exif=exif)).getexif().get(0x0112) is None


def test_transparent_pixels_show_the_background_as_it_is():
    shown = np.where(ALPHA[..., None] > 0, NOISE[..., ::-1], (9, 0, 200))
    near(decode(encoded(np.dstack([NOISE, ALPHA]), icc_profile=SWAPPED), background=(9, 0, 200)), shown, 1)


def test_a_colour_named_transparent_is_found_before_it_is_converted():
    image = Image.fromarray(NOISE)
    image.info["transparency"] = tuple(NOISE[0, 0].tolist())
    data = encoded(image, icc_profile=SWAPPED, transparency=tuple(NOISE[0, 0].tolist()))
    assert decode(data, background=(9, 0, 200)).getpixel((0, 0)) == (9, 0, 200)
    near(decode(data, background=(9, 0, 200)).getpixel((1, 0)), NOISE[0, 1, ::-1], 1)


def test_a_palette_is_converted():
    image = Image.fromarray(GREY % 4)
    image.putpalette(NOISE[0, :4].tobytes())
    near(decode(encoded(image, icc_profile=SWAPPED)), NOISE[0, :4, ::-1][GREY % 4], 1)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_goes_by_the_curve_of_a_grey_profile(form):
    data = encoded(GREY, form, icc_profile=grey_profile(1.0))
    expected = levels_of(GREY / 255)
    near(decode(data, mode="L"), expected, 1)
    near(decode(data), expected[..., None], 1)


def test_grey_with_the_profile_of_colours_goes_by_their_curve():
    near(decode(encoded(GREY, icc_profile=_made(1.0, SRGB_PLACES)), mode="L"), levels_of(GREY / 255), 1)
    near(decode(encoded(GREY, icc_profile=SWAPPED), mode="L"), GREY, 0)
    near(decode(encoded(GREY, icc_profile=P3), mode="L"), GREY, 0)


def test_16_bits_of_grey_are_converted_before_they_are_8():
    data = encoded(LEVELS // 100, icc_profile=grey_profile(1.0))  # dark: as 8 bits these were 3 levels
    near(decode(data, mode="L"), levels_of(LEVELS // 100 / 65535), 1.5)
    data = png(LEVELS, gama(1.0), (b"tRNS", struct.pack(">H", LEVELS[0, 0])))
    assert decode(data, background=(1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)
    near(decode(data).getpixel((1, 0)), levels_of(LEVELS[0, 1] / 65535), 1)


def test_grey_with_alpha_is_converted():
    data = encoded(np.dstack([GREY, ALPHA]), icc_profile=grey_profile(1.0))
    expected = np.where(ALPHA[..., None] > 0, levels_of(GREY / 255)[..., None], (9, 0, 200))
    near(decode(data, background=(9, 0, 200)), expected, 1)


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_inks_are_what_their_profile_says(form):
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 0] = 255  # Pillow alone would make cyan of it; by this profile it leaves paper white
    data = encoded(
        Image.fromarray(inks, "CMYK"), form, icc_profile=cmyk_profile(), **({"quality": 100} if form == "JPEG" else {})
    )
    near(decode(data), 255, 3)
    near(decode(data, colour="ignore"), (0, 255, 255), 3)


def test_black_and_white_and_lab_need_no_profile():
    bits = encoded(GREY > 127, icc_profile=grey_profile(1.0))
    near(decode(bits, mode="L"), (GREY > 127) * 255, 0)


# --------------------------------------------------------------------------- what is sRGB already


def dated(profile, year):
    made = bytearray(profile)
    struct.pack_into(">H", made, 24, year)
    made[84:100] = bytes([year % 256]) * 16
    return bytes(made)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_profile_of_srgb_changes_no_pixel(form):
    for profile in (SRGB, dated(SRGB, 1999), _made(None, SRGB_PLACES)):
        assert decode(encoded(NOISE, form, icc_profile=profile)).tobytes() == decode(encoded(NOISE, form)).tobytes()


def test_a_profile_is_looked_at_once_whatever_its_date():
    _conversion.cache_clear()
    for year in range(1990, 2020):
        decode(encoded(NOISE, icc_profile=dated(SRGB, year)))
    assert (_conversion.cache_info().misses, _conversion.cache_info().hits) == (1, 29)


def test_without_a_profile_nothing_of_it_is_asked(monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setattr(colours, "_conversion", never)
    monkeypatch.setattr(colours, "_check_littlecms", never)
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        decode(encoded(NOISE, form))
    assert to_srgb(image := Image.fromarray(NOISE)) is image


# --------------------------------------------------------------------------- a PNG's chunks


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0.45455)],
        [gama(0.45455), chrm(SRGB_PLACES)],
        [chrm(SRGB_PLACES)],
        [(b"sRGB", b"\0"), gama(1.0), chrm(P3_PLACES)],
        [(b"cICP", bytes([1, 13, 0, 1])), gama(1.0)],
        [gama(0.4545)],
    ],
    ids=["gAMA", "gAMA and cHRM", "cHRM", "sRGB before gAMA", "cICP before gAMA", "gAMA rounded"],
)
def test_chunks_that_say_srgb_change_nothing(chunks):
    near(decode(png(NOISE, *chunks)), NOISE, 0)


@pytest.mark.parametrize("gamma", [1.0, 0.55556, 0.3])
def test_gama_is_a_power(gamma):
    data = png(NOISE, gama(gamma))
    near(decode(data), meant(NOISE, gamma=gamma), 1)
    near(decode(data, colour="ignore"), NOISE, 0)
    near(decode(png(GREY, gama(gamma)), mode="L"), levels_of(light(GREY / 255, gamma)), 1)


def test_chrm_names_the_primaries():
    pixels = 64 + NOISE // 4
    near(decode(png(pixels, chrm(P3_PLACES))), meant(pixels, P3_PLACES), 1)
    near(decode(png(pixels, gama(0.5), chrm(P3_PLACES))), meant(pixels, P3_PLACES, 0.5), 1)
    near(decode(png(pixels, (b"cICP", bytes([12, 13, 0, 1])), chrm(SRGB_PLACES))), meant(pixels, P3_PLACES), 1)


def test_another_white_stays_white_and_grey_stays_grey():
    places = (0.3457, 0.3585, *P3_PLACES[2:])
    near(decode(png(np.full((2, 2, 3), 255, np.uint8), chrm(places))), 255, 1)
    near(decode(png(np.full((2, 2, 3), 99, np.uint8), chrm(places))), 99, 1)


# --------------------------------------------------------------------------- what cannot be used


BROKEN = {
    "not whole": (encoded(NOISE, icc_profile=b"short"), "ValueError: a profile that is not whole"),
    "no profile": (encoded(NOISE, icc_profile=b"\1" * 500), None),
    "cut": (encoded(NOISE, icc_profile=SWAPPED[:200]), None),
    "not inflated": (png(NOISE, (b"iCCP", b"x\0\0nothing")), "ValueError: a profile that is not whole"),
    "of grey in colour": (
        encoded(NOISE, icc_profile=grey_profile(1.0)),
        "ValueError: a profile for GRAY in an image of RGB",
    ),
    "of inks in colour": (
        encoded(NOISE, "TIFF", icc_profile=cmyk_profile()),
        "ValueError: a profile for CMYK in an image of RGB",
    ),
    "of colour in inks": (
        encoded(Image.new("CMYK", (16, 12)), "TIFF", icc_profile=SWAPPED),
        "ValueError: a profile for RGB in an image of CMYK",
    ),
    "of another space": (
        encoded(NOISE, icc_profile=SRGB[:16] + b"HSV " + SRGB[20:]),
        "ValueError: a profile for HSV",
    ),
    "without curves": (encoded(NOISE, icc_profile=SRGB.replace(b"rTRC", b"xTRC", 1)), None),
    "gamma 0": (png(NOISE, gama(0)), "ValueError: gAMA 0.0"),
    "places of 0": (png(NOISE, chrm((0,) * 8)), None),
    "high dynamic range": (
        png(NOISE, (b"cICP", bytes([9, 16, 0, 1]))),
        "ValueError: cICP 9-16-0-1, e.g. a high dynamic range",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_profile_that_cannot_be_used_is_an_error_by_name(tmp_path, name):
    data, reason = BROKEN[name]
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        decode(path)
    first, got, *rest = str(caught.value).splitlines()
    assert first == f"the colours of the image {path} cannot be converted to sRGB"
    assert reason is None or got == f"  got: {reason}"
    assert rest == [
        "  expected: a whole colour profile, made for such pixels",
        '  fix: save the image in sRGB, or pass colour="ignore", which takes its levels for sRGB as they are',
    ]
    assert decode(path, colour="ignore").size == (16, 12)


def test_damaged_profiles_are_converted_or_refused_and_nothing_else(tmp_path):
    said = set()
    for n in range(80):
        made = bytearray(SWAPPED if n % 2 else cmyk_profile())
        for _ in range(1 + n % 4):
            made[int(chance.integers(len(made)))] = int(chance.integers(256))
        image = Image.fromarray(NOISE) if n % 2 else Image.new("CMYK", (16, 12))
        try:
            assert decode(encoded(image, "TIFF", icc_profile=bytes(made))).size == (16, 12)
        except ImageError as error:
            said.add(str(error).splitlines()[0].partition(" bytes ")[2])
    assert said == {"cannot be converted to sRGB"}


def test_a_pillow_without_littlecms_says_so_where_a_profile_is_met(monkeypatch):
    monkeypatch.setattr(colours.features, "check", lambda feature: feature != "littlecms2")
    near(decode(encoded(NOISE)), NOISE, 0)
    data = encoded(NOISE, icc_profile=SWAPPED)
    with pytest.raises(MissingDependencyError) as caught:
        decode(data)
    assert str(caught.value) == (
        f"the colours of the image {len(data)} bytes cannot be converted to sRGB\n"
        "  got: a Pillow that was built without LittleCMS (PIL.ImageCms)\n"
        "  expected: one with it, as the wheels of Pillow are\n"
        '  fix: pip install --force-reinstall --only-binary :all: pillow; or pass colour="ignore"'
    )
    near(decode(data, colour="ignore"), NOISE, 0)


@pytest.mark.parametrize("wrong", ["srgb", None, True])
def test_another_colour_is_refused(tmp_path, wrong):
    Image.fromarray(NOISE).save((tmp_path / "a").mkdir() or tmp_path / "a" / "1.png")
    for use in (lambda: decode(encoded(NOISE), colour=wrong), lambda: FolderDataset(tmp_path, colour=wrong)):
        with pytest.raises(ArgumentError) as caught:
            use()
        assert str(caught.value) == (
            f'colour cannot be used\n  got: {wrong!r}\n  expected: "convert" or "ignore"\n  fix: leave it out'
        )


# --------------------------------------------------------------------------- datasets, threads, processes


def folder(tmp_path):
    (tmp_path / "a").mkdir()
    for n in range(4):
        (tmp_path / "a" / f"{n}.png").write_bytes(encoded(NOISE, icc_profile=SWAPPED))
    return tmp_path


def red_of(data, index):
    return np.asarray(data[index][0])[..., 0].tobytes()


def test_a_data_set_converts_or_ignores_also_in_another_process(tmp_path):
    data = FolderDataset(folder(tmp_path))
    ignoring = FolderDataset(tmp_path, colour="ignore")
    assert (data.colour, ignoring.colour) == ("convert", "ignore")
    near(data[0][0], NOISE[..., ::-1], 1)
    near(ignoring[0][0], NOISE, 0)
    assert pickle.loads(pickle.dumps(ignoring)).colour == "ignore"
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(red_of, data, 1).result() == red_of(data, 1)
        assert pool.submit(red_of, ignoring, 1).result() == red_of(ignoring, 1)


def test_a_mask_is_numbers_and_no_colour(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "1.png").write_bytes(encoded(NOISE, icc_profile=SWAPPED))
    (tmp_path / "masks" / "1.png").write_bytes(encoded(GREY % 4, icc_profile=grey_profile(1.0)))
    image, mask = ParallelDataset(tmp_path / "images", tmp_path / "masks", "mask")[0]
    near(image, NOISE[..., ::-1], 1)
    near(mask, GREY % 4, 0)
    (tmp_path / "masks" / "1.png").write_bytes(encoded(NOISE, icc_profile=SWAPPED))
    pair = ParallelDataset(tmp_path / "images", tmp_path / "masks", "image")[0]
    assert pair[0] == pair[1]
    pair = ParallelDataset(tmp_path / "images", tmp_path / "masks", "image", colour="ignore")[0]
    near(pair[1], NOISE, 0)


def test_threads_share_what_is_built():
    _conversion.cache_clear()
    files = [
        encoded(np.roll(NOISE, n, 0).repeat(20, 0), icc_profile=profile) for n in range(4) for profile in (SWAPPED, P3)
    ]
    expected, found = [decode(data, colour="convert") for data in files], {}

    def work(number):
        found[number] = all(
            decode(data) == image for _ in range(10) for data, image in zip(files, expected, strict=True)
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)
