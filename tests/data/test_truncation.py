"""Files that lack pixels and are closed all the same: Pillow fills them up in silence, and here they are refused."""

import io
import random
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from cvkit.data import ArrayDataset, FolderDataset, ParallelDataset, Subset, decode
from cvkit.data import truncation as checks
from cvkit.errors import ImageError, MissingDependencyError

NOISE = np.random.default_rng(0).integers(1, 256, (40, 50, 3), dtype=np.uint8)


def photo(width, height, mode="RGB"):
    """Something like a photograph; no block of it is one grey."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    soft = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y - 4 * x), np.sin(9 * x * y)], axis=-1) * 70 + 128
    soft += np.random.default_rng(1).normal(0, 6, soft.shape)
    return Image.fromarray(soft.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(raw, width, height, depth=8, colour=2, interlaced=0, parts=1):
    """A PNG by hand; ``raw`` has each row behind its filter byte."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packed = zlib.compress(raw)
    step = -(-len(packed) // parts)
    size = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = [chunk(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + b"".join(pixels) + chunk(b"IEND", b"")


def rows(array):
    return b"".join(b"\0" + row.tobytes() for row in array)


def adam7(array):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    return b"".join(rows(array[y::down, x::right]) for x, y, right, down in passes if array[y::down, x::right].size)


def refused(data, reason):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value) == (
        f"cannot decode the image {len(data)} bytes\n"
        f"  got: OSError: {reason}\n"
        "  expected: a whole image (JPEG, PNG, WebP, GIF, BMP, TIFF, …)\n"
        "  fix: replace or delete the file; a dataset's verify() lists all such files"
    )
    return True


# --------------------------------------------------------------------------- PNG


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("missing", [1, 20, 39])
def test_a_png_with_fewer_rows_than_its_header_says_is_refused(missing, parts):
    there = (40 - missing) * 151
    data = png(rows(NOISE[: 40 - missing]), 50, 40, parts=parts)
    assert refused(data, f"{there:,} of 6,040 bytes of pixels are there")


@pytest.mark.parametrize(
    ("colour", "depth", "width"),
    [
        (0, 8, 50),
        (0, 1, 51),
        (0, 4, 51),
        (0, 16, 50),
        (3, 8, 50),
        (3, 2, 49),
        (4, 8, 50),
        (6, 8, 50),
        (6, 16, 50),
        (2, 16, 50),
    ],
)
def test_rows_are_counted_in_every_kind_of_png(colour, depth, width):
    one = (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    raw = b"".join(b"\0" + b"\x11" * one for _ in range(40))
    for count in (40, 39):
        data = png(raw[: count * (one + 1)], width, 40, depth, colour)
        if colour == 3:
            at = data.index(b"IDAT") - 4
            palette = b"PLTE" + bytes(range(48))
            data = data[:at] + struct.pack(">I", 48) + palette + struct.pack(">I", zlib.crc32(palette)) + data[at:]
        if count == 40:
            assert decode(data).size == (width, 40)
        else:
            assert refused(data, f"{39 * (one + 1):,} of {40 * (one + 1):,} bytes of pixels are there")


@pytest.mark.parametrize("size", [(50, 40), (1, 1), (3, 2), (1, 9), (9, 1)])
def test_the_passes_of_an_interlaced_png_are_counted(size):
    part = NOISE[: size[1], : size[0]]
    raw = adam7(part)
    assert np.array_equal(np.asarray(decode(png(raw, *size, interlaced=1))), part)
    for lacking in {1, len(raw) // 3, len(raw) // 2} - {0}:
        if lacking < len(raw):
            with pytest.raises(ImageError, match=r"bytes of pixels are there|truncated"):
                decode(png(raw[:-lacking], *size, interlaced=1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_black_last_rows_that_are_there_are_no_fault(mode):
    image = Image.new(mode, (50, 40))
    assert decode(encoded(image, "PNG")).size == (50, 40)
    assert decode(png(rows(np.zeros_like(NOISE)), 50, 40, parts=7)).getextrema() == ((0, 0),) * 3


def test_what_follows_the_pixels_inside_their_chunk_is_no_fault():
    assert decode(png(rows(NOISE) + bytes(9), 50, 40)).size == (50, 40)


def test_masks_lack_no_rows_either(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(NOISE).save(tmp_path / "images" / "1.png")
    (tmp_path / "masks" / "1.png").write_bytes(png(rows(NOISE[:30, :, 0] % 3), 50, 40, colour=0))
    with pytest.raises(
        ImageError, match=r"cannot decode the image .*masks.1\.png\n  got: OSError: 1,530 of 2,040 bytes"
    ):
        ParallelDataset(tmp_path / "images", tmp_path / "masks", "mask", classes=["a", "b", "c"])[0]


# --------------------------------------------------------------------------- JPEG


def pixels_of(data):
    """Returns where a JPEG's last scan begins and ends."""
    at = data.rindex(b"\xff\xda")
    return at + 2 + struct.unpack_from(">H", data, at + 2)[0], data.rindex(b"\xff\xd9")


BASELINE = [
    {"quality": 90},
    {"quality": 90, "subsampling": 0, "optimize": True},
    {"quality": 80, "restart_marker_rows": 1},
    {"quality": 80, "restart_marker_blocks": 3},
]


@pytest.mark.parametrize("options", BASELINE, ids=["plain", "no subsampling", "a restart a row", "many restarts"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(160, 120), (161, 113)])
def test_a_jpeg_that_is_cut_and_closed_is_refused(options, mode, size):
    data = encoded(photo(*size, mode), **options)
    begin, end = pixels_of(data)
    assert decode(data).size == size
    for place in range(begin + 8, end - 200, max(1, (end - begin) // 12)):
        cut = data[:place] + b"\xff\xd9"
        assert refused(cut, "the data end before the last block of pixels")
        with pytest.raises(ImageError, match="the data end before the last block"):
            decode(cut, enough=lambda width, height: (width // 8, height // 8))


def test_a_jpeg_that_is_cut_and_closed_before_a_second_image_is_refused():
    data = encoded(photo(160, 120), "MPO", save_all=True, append_images=[photo(160, 120, "L")], quality=90)
    assert decode(data).size == (160, 120)
    begin = data.index(b"\xff\xda") + 14
    end = data.index(b"\xff\xd9", begin)
    with pytest.raises(ImageError, match="the data end before the last block of pixels"):
        decode(data[: begin + (end - begin) // 2] + data[end:])


def test_a_progressive_jpeg_that_lacks_a_scan_is_refused():
    data = encoded(photo(160, 120), quality=90, progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert decode(data).size == (160, 120)
    assert len(scans) > 3
    for scan in scans[1:]:
        assert refused(data[:scan] + b"\xff\xd9", "the data end before the last scan")
        assert refused(data[: scan - 40] + b"\xff\xd9", "the data end before the last scan")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_middle_grey_that_is_there_is_no_fault(mode):
    """What is missing looks like this; so does a border."""
    image = photo(160, 120).copy()
    image.paste((128, 128, 128), (0, 60, 160, 120))
    for options in (*BASELINE, {"progressive": True}):
        assert decode(encoded(image.convert(mode), **options)).size == (160, 120)
        assert decode(encoded(Image.new(mode, (24, 16), (128,) * len(Image.new(mode, (1, 1)).getbands())), **options))


@pytest.mark.parametrize("tail", [b"", b"\0" * 20, b"\xff\xff\xff", b"\xff\xd8\xff\xd9"])
@pytest.mark.parametrize("grey", [False, True])
def test_what_follows_a_jpeg_is_no_fault(tail, grey):
    image = Image.new("RGB", (160, 120), (128, 128, 128)) if grey else photo(160, 120)
    data = encoded(image, quality=90)
    assert decode(data + tail).tobytes() == decode(data).tobytes()


def test_fill_bytes_before_a_marker_are_no_fault():
    data = encoded(Image.new("RGB", (160, 120), (128, 128, 128)), quality=90)
    _, end = pixels_of(data)
    frame = data.index(b"\xff\xc0")
    assert decode(data[:frame] + b"\xff\xff" + data[frame:end] + b"\xff\xff" + data[end:]).size == (160, 120)


def test_a_file_is_decoded_once_more_only_where_it_ends_in_middle_grey(monkeypatch):
    seen = []
    monkeypatch.setattr(checks, "_ends_early", lambda data, scan: seen.append(data))
    decode(encoded(photo(160, 120), quality=90))
    assert seen == []
    decode(encoded(Image.new("L", (160, 120), 128)))
    assert len(seen) == 1


def test_a_user_who_wants_truncated_images_gets_these_too(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(photo(160, 120), quality=90)
    assert decode(data[: len(data) // 2] + b"\xff\xd9").size == (160, 120)
    assert decode(png(rows(NOISE[:20]), 50, 40)).size == (50, 40)


# --------------------------------------------------------------------------- strictly


def folder(tmp_path, files):
    for name, data in files.items():
        path = tmp_path / "a" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return FolderDataset(tmp_path)


def overwritten(data, seed):
    """200 bytes of pixels overwritten by what is no marker."""
    begin, end = pixels_of(data)
    chance = random.Random(seed)
    at = chance.randrange(begin, end - 200)
    return data[:at] + bytes(chance.randrange(255) for _ in range(200)) + data[at + 200 :]


def test_strictly_damage_is_found_that_decoding_does_not_see(tmp_path):
    data = encoded(photo(160, 120), quality=90)
    damaged = {f"{seed:02}.jpg": overwritten(data, seed) for seed in range(30)}
    whole = {"whole.jpg": data, "whole.png": encoded(photo(160, 120), "PNG"), "grey.jpg": encoded(photo(99, 99, "L"))}
    whole["ink.jpg"] = encoded(photo(99, 99, "CMYK"))
    whole["two.jpg"] = encoded(photo(99, 99), "MPO", save_all=True, append_images=[photo(50, 50)])
    whole["progressive.jpg"] = encoded(photo(99, 99), progressive=True)
    found = folder(tmp_path, damaged | whole)
    plain, strict = found.verify(), found.verify(strict=True)
    assert (plain.count, strict.count) == (len(damaged) + len(whole), len(damaged) + len(whole))
    assert set(plain.bad) < set(strict.bad) <= {f"a/{name}" for name in damaged}
    assert len(strict.bad) >= 25  # the rest happens to be a code that ends where it should
    path = next(path for path in strict.bad if path not in plain.bad)
    first, got, *rest = strict.bad[path].splitlines()
    assert first == f"the JPEG {tmp_path / path} is damaged"
    assert got.startswith("  got: libjpeg: ")
    assert rest == [
        "  expected: data that are decoded without a warning",
        "  fix: replace or delete the file; verify() without strict accepts it",
    ]


def test_strictly_the_last_scan_of_a_progressive_jpeg_is_looked_at(tmp_path):
    data = encoded(photo(160, 120), quality=90, progressive=True)
    begin, end = pixels_of(data)
    found = folder(tmp_path, {"1.jpg": data[: (begin + end) // 2] + b"\xff\xd9"})
    assert found.verify()
    assert list(found.verify(strict=True).bad) == ["a/1.jpg"]


def test_strictly_labels_that_are_images_are_looked_at(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    data = encoded(photo(160, 120), quality=90)
    (tmp_path / "images" / "1.jpg").write_bytes(data)
    _, end = pixels_of(data)
    (tmp_path / "labels" / "1.jpg").write_bytes(data[:end] + b"left over" + data[end:])
    pairs = ParallelDataset(tmp_path / "images", tmp_path / "labels", "image")
    assert pairs.verify()
    assert next(iter(pairs.verify(strict=True).bad.values())).startswith(
        f"the JPEG {tmp_path / 'labels' / '1.jpg'} is damaged\n"
    )


def test_parts_and_arrays_are_verified_strictly_too(tmp_path):
    data = encoded(photo(160, 120), quality=90)
    _, end = pixels_of(data)
    found = folder(tmp_path, {"1.jpg": data, "2.jpg": data[:end] + b"left over" + data[end:]})
    assert Subset(found, [1]).verify()
    assert not Subset(found, [1]).verify(strict=True)
    assert Subset(found, [0]).verify(strict=True)
    assert ArrayDataset(NOISE[None], [0]).verify(strict=True)


def test_strictly_needs_a_package_that_is_named(tmp_path, monkeypatch):
    found = folder(tmp_path, {"1.jpg": encoded(photo(160, 120))})
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert found.verify()
    with pytest.raises(MissingDependencyError) as caught:
        found.verify(strict=True)
    assert str(caught.value) == (
        "verify(strict=True) needs simplejpeg\n"
        "  got: import of simplejpeg halted; None in sys.modules\n"
        "  expected: the package simplejpeg, which tells what a JPEG's decoder had to guess\n"
        '  fix: pip install "cvkit[jpeg]"'
    )
