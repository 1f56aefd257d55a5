"""What is no whole image is refused by name; nothing else escapes, and no process dies of it."""

import io
import os
import random
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from cvkit.data import decode
from cvkit.errors import ArgumentError, ImageError

NOISE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore:(Corrupt EXIF data|Truncated File Read):UserWarning")  # damaged TIFFs
FORMATS = {"JPEG": {"quality": 90}, "PNG": {}, "GIF": {}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "WEBP": {}}


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


WHOLE = {form: encoded(Image.fromarray(NOISE), form, **options) for form, options in FORMATS.items()}


def refusal(source, **options):
    with pytest.raises(ImageError) as caught:
        decode(source, **options)
    return str(caught.value)


def cannot_decode(path, message):
    """Whether this is the message, whatever reason Pillow gave."""
    return re.fullmatch(
        re.escape(f"cannot decode the image {path}\n  got: ")
        + r"[\w.]+: .+\n"
        + re.escape(
            "  expected: a whole image (JPEG, PNG, WebP, GIF, BMP, TIFF, …)\n"
            "  fix: replace or delete the file; a dataset's verify() lists all such files"
        ),
        message,
    )


@pytest.mark.parametrize(
    ("name", "kind", "save"),
    [
        ("float.tiff", "floating-point levels", lambda path: Image.new("F", (6, 4), 0.5).save(path)),
        ("whole.tiff", "32-bit integers", lambda path: Image.new("I", (6, 4), 100_000).save(path)),
        ("few.tiff", "32-bit integers", lambda path: Image.new("I", (6, 4), 3).save(path)),
        ("signed.tiff", "32-bit integers", lambda path: Image.new("I;16", (6, 4)).save(path, tiffinfo={339: 2})),
        ("float.pfm", "floating-point levels", lambda path: path.write_bytes(b"Pf\n6 4\n-1.0\n" + bytes(96))),
    ],
)
def test_what_has_no_right_answer_in_8_bits_is_refused_by_name(tmp_path, name, kind, save):
    path = tmp_path / name
    save(path)
    assert (
        refusal(path)
        == refusal(path, mode="L")
        == (
            f"the image {path} has no right answer in 8 bits\n"
            f"  got: {kind}, 6×4\n"
            "  expected: 8 or 16 bits a channel\n"
            "  fix: scale it yourself and save it as 16-bit grey, or give arrays to ArrayDataset"
        )
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"label,score\n1,2\n", b"\0" * 1000, b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
    ids=["empty", "text", "zeros", "a PNG's first bytes", "SVG"],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    assert cannot_decode(path, refusal(path))
    assert cannot_decode(f"{len(content)} bytes", refusal(content))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.png", "FileNotFoundError: No such file or directory"),
        (".", "IsADirectoryError: Is a directory"),
        ("file.png/a.png", "NotADirectoryError: Not a directory"),
        ("x" * 300 + ".png", "OSError: File name too long"),
        ("nul\0.png", "ValueError: embedded null byte"),
    ],
    ids=["missing", "directory", "below a file", "long", "nul"],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name, reason):
    (tmp_path / "file.png").write_bytes(b"")
    path = tmp_path / name
    assert refusal(path) == (
        f"cannot read the image {path}\n"
        f"  got: {reason}\n"
        "  expected: a file that can be read\n"
        "  fix: check the path and its permissions"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_by_name(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(WHOLE["PNG"])
    path.chmod(0)
    assert f"cannot read the image {path}\n  got: PermissionError: Permission denied\n" in refusal(path)


def test_another_mode_is_refused():
    with pytest.raises(ArgumentError) as caught:
        decode(WHOLE["PNG"], mode="HSV")
    assert str(caught.value) == 'mode cannot be used\n  got: \'HSV\'\n  expected: "RGB" or "L"\n  fix: mode="RGB"'


def test_a_full_memory_is_not_blamed_on_the_file(monkeypatch):
    def full(*args, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(MemoryError):
        decode(b"")


# --------------------------------------------------------------------------- how large


def header_of(width, height):
    """A PNG that says how large it is and holds next to nothing: what is refused is refused from the header."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_an_image_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(header_of(100, 100))
    assert refusal(path, max_pixels=9_999) == (
        f"the image {path} is too large\n"
        "  got: 100×100 pixels\n"
        "  expected: at most 9,999 pixels\n"
        "  fix: make it smaller, or pass a larger max_pixels"
    )
    assert cannot_decode(path, refusal(path, max_pixels=10_000))  # not too large any more: decoded, and found not whole


@pytest.mark.parametrize("form", FORMATS)
def test_the_bound_holds_for_every_format(form):
    assert decode(WHOLE[form], max_pixels=480).size == (24, 20)
    assert "is too large\n  got: 24×20 pixels\n  expected: at most 479 pixels\n" in refusal(WHOLE[form], max_pixels=479)


def test_the_bound_holds_for_the_whole_image_also_where_less_is_enough():
    assert "is too large" in refusal(WHOLE["JPEG"], max_pixels=479, enough=lambda width, height: (1, 1))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_default_bound_is_where_pillow_begins_to_warn():
    assert "got: 10000×8948 pixels\n  expected: at most 89,478,485 pixels" in refusal(header_of(10_000, 8_948))


# beyond 89,478,485 pixels Pillow itself warns before it can be asked how large an image is: an error follows all the same
@pytest.mark.parametrize(
    ("size", "action"), [((100, 100), "always"), ((100, 100), "error"), ((10_000, 10_000), "error")]
)
def test_an_image_that_is_too_large_is_an_error_and_no_warning(size, action):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter(action)
        assert "is too large\n  got: " in refusal(header_of(*size), max_pixels=5_000)
    assert heard == []


def test_pillows_own_bound_is_named_where_it_is_the_lower_one():
    assert re.fullmatch(
        r"the image \d+ bytes is too large\n"
        r"  got: Image size \(400000000 pixels\) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack\.\n"
        r"  expected: no more than twice PIL\.Image\.MAX_IMAGE_PIXELS, whatever max_pixels says\n"
        r"  fix: make it smaller, or raise PIL\.Image\.MAX_IMAGE_PIXELS as well",
        refusal(header_of(20_000, 20_000), max_pixels=10**9),
    )


def test_no_global_setting_of_pillow_is_touched():
    def settings():
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK, list(warnings.filters)

    before, during = settings(), []

    def enough(width, height):
        during.append(settings())
        return width, height

    for data in WHOLE.values():
        decode(data, enough=enough)
        refusal(data[: len(data) // 2], enough=enough)
    for data in (b"", header_of(20_000, 20_000), header_of(9, 9)):
        refusal(data)
    assert [*during, settings()] == [before] * (1 + len(during))
    assert during


def test_a_user_who_wants_truncated_images_gets_them(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert decode(WHOLE["JPEG"][:-200]).size == (24, 20)


# --------------------------------------------------------------------------- damage


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_refused_by_name(tmp_path, form):
    path = tmp_path / f"cut.{form.lower()}"
    path.write_bytes(WHOLE[form][: len(WHOLE[form]) * 2 // 3])
    assert cannot_decode(path, refusal(path))


@pytest.mark.parametrize("form", FORMATS)
def test_wherever_a_file_is_cut_it_is_refused_or_nothing_is_missing(form):
    whole = WHOLE[form]
    places = {*range(0, len(whole), max(1, len(whole) // 60)), *range(max(0, len(whole) - 20), len(whole))}
    image = decode(whole).tobytes()
    for place in sorted(places):
        try:
            assert decode(whole[:place]).tobytes() == image, place
        except ImageError as error:
            refused = str(error)
            assert cannot_decode(f"{place} bytes", refused), refused


@pytest.mark.parametrize("form", FORMATS)
def test_what_follows_an_image_does_not_change_it(form):
    assert decode(WHOLE[form] + b"and a note") == decode(WHOLE[form])


CHILD = """
import faulthandler, sys
from pathlib import Path
faulthandler.enable()
from cvkit.data import decode
from cvkit.errors import ImageError
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)  # what is damaged says so before it can do harm
    try:
        image = decode(path)
        print("decoded" if image.mode == "RGB" and len(image.tobytes()) == 3 * image.width * image.height else "WRONG")
    except ImageError as error:
        print("refused" if str(path) in str(error).splitlines()[0] else f"NAMELESS {error}")
    except BaseException as error:
        print(f"ESCAPED {type(error).__name__}: {error}")
"""


def damaged(whole, chance):
    """One to four bits flipped; or an end, or a piece out of the middle, cut off."""
    data, kind = bytearray(whole), chance.randrange(4)
    if kind == 0:
        return data[: chance.randrange(len(data))]
    if kind == 1:
        start = chance.randrange(len(data))
        return data[:start] + data[start + chance.randrange(1, 40) :]
    places = len(data) if kind == 2 else min(64, len(data))  # half of the flips in the header, where most harm is done
    for _ in range(chance.randrange(1, 5)):
        data[chance.randrange(places)] ^= 1 << chance.randrange(8)
    return data


def test_300_damaged_files_are_decoded_or_refused_by_name_and_the_process_lives(tmp_path):
    for form, whole in WHOLE.items():
        chance = random.Random(form)
        for n in range(50):
            (tmp_path / f"{form}-{n:02}").write_bytes(damaged(whole, chance))
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stdout.splitlines()[-1:] + child.stderr.splitlines()[-20:]
    fates = dict(line.split(" ", 1) for line in child.stdout.splitlines())
    assert len(fates) == 300
    assert {name: fate for name, fate in fates.items() if fate not in ("decoded", "refused")} == {}
    refused = {
        form: sum(fate == "refused" for name, fate in fates.items() if name.startswith(form)) for form in FORMATS
    }
    assert min(refused.values()) >= 10  # the damage is not nothing,
    assert sum(refused.values()) <= 250  # and not everything


def test_threads_that_decode_side_by_side_do_not_meet():
    results, faults = {}, []

    def work(form):
        try:
            for _ in range(10):
                results.setdefault(form, set()).add(decode(WHOLE[form]).tobytes())
                refusal(WHOLE[form][:30])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(form,)) for form in FORMATS for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert results == {form: {decode(whole).tobytes()} for form, whole in WHOLE.items()}


def exif_of(*entries):
    """EXIF by hand, (tag, type, count, value) each: as damaged, or as odd, as what is found in files."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0)


TURNED = (0x0112, 3, 1, 6)


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        pytest.param(b"Exif\0\0garbage", (24, 20), id="garbage"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff", (24, 20), id="cut"),
        pytest.param(exif_of((0x8769, 4, 1, 0xFFFFFF)), (24, 20), id="further notes beyond the end"),
        pytest.param(exif_of(TURNED, (0x8769, 4, 1, 0xFFFFFF)), (20, 24), id="turned, further notes beyond the end"),
        pytest.param(exif_of(TURNED, (0x8825, 4, 1, 3)), (20, 24), id="turned, position out of place"),
        pytest.param(exif_of(TURNED, (0x010F, 2, 1000, 0xFFFFFF)), (20, 24), id="turned, maker beyond the end"),
        pytest.param(exif_of(TURNED, (0x010F, 3, 1, 6)), (20, 24), id="turned, maker a number"),
        pytest.param(exif_of(TURNED, (0x0201, 4, 1, 0xFFFFFF), (0x0202, 4, 1, 9)), (20, 24), id="turned, no thumbnail"),
        pytest.param(exif_of((0x0112, 3, 2, 6 | 1 << 16)), (20, 24), id="turned twice"),
        pytest.param(exif_of((0x0112, 4, 1, 6)), (20, 24), id="turned, in 32 bits"),
        pytest.param(exif_of(TURNED, (0x011A, 2, 4, 0x3237)), (20, 24), id="turned, resolution a text"),
        pytest.param(exif_of(TURNED, (0x010F, 5, 1, 8)), (20, 24), id="turned, maker a fraction"),
        pytest.param(exif_of(TURNED, (0x0100, 2, 2, 0x36)), (20, 24), id="turned, width a text"),
        pytest.param(exif_of(TURNED, (0x0100, 9, 1, 2**32 - 1)), (20, 24), id="turned, width -1"),
        pytest.param(exif_of((0x0112, 2, 2, 0x36)), (24, 20), id="orientation a text"),
        pytest.param(exif_of((0x0112, 1, 1, 6)), (24, 20), id="orientation a byte"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_good_image_is_not_refused_for_odd_notes_of_its_camera(exif, size):
    data = encoded(Image.fromarray(NOISE), "JPEG", exif=exif)
    assert decode(data).size == decode(data, enough=lambda width, height: (width, height)).size == size


def test_no_program_is_run_to_decode_an_image(tmp_path, monkeypatch):
    program, trace, path = tmp_path / "gs", tmp_path / "trace", tmp_path / "photo.jpg"
    program.write_text(f"#!/bin/sh\necho run >> {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # where Pillow remembers whether there is one
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert cannot_decode(path, refusal(path))
    assert not trace.exists()


def test_a_file_that_is_no_image_is_named_without_the_address_of_its_bytes(tmp_path):
    (tmp_path / "notes.jpg").write_text("hello")
    with pytest.raises(ImageError) as caught:
        decode(tmp_path / "notes.jpg")
    assert "got: UnidentifiedImageError: cannot identify image file\n" in str(caught.value)
