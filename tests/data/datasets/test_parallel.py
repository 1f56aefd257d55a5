import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvkit.data import ParallelDataset, write_shapes
from cvkit.errors import ArgumentError, CvkitWarning, DataError, ImageError, UnknownNameError


def source(path, size=(4, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)


@pytest.fixture
def texts(tmp_path):
    """Three images and their labels."""
    for stem, label in (("a", "cat"), ("b", "dog"), ("c", "cat")):
        source(tmp_path / "images" / f"{stem}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{stem}.txt").write_text(label)
    return tmp_path


def parallel(root, **options):
    return ParallelDataset(root / "images", root / "labels", **options)


def mask_of(tmp_path, values, name="m.png", save=None, **options):
    """A dataset of one image with a mask of these values."""
    values = np.asarray(values)
    source(tmp_path / "images" / "m.png", values.shape[::-1])
    (tmp_path / "masks").mkdir(exist_ok=True)
    image = Image.fromarray(values)
    (save or (lambda image, path: image.save(path)))(image, tmp_path / "masks" / name)
    return ParallelDataset(tmp_path / "images", tmp_path / "masks", "mask", **options)


def values_of(data, index=0):
    return np.asarray(data[index][1]).tolist()


# labels in text files


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"cat", "cat"),
        (b"cat\n", "cat"),
        (b"cat\r\n", "cat"),
        (b"\n  cat \n\n", "cat"),
        (b"\xef\xbb\xbfcat\n", "cat"),
        ("Käfer".encode(), "Käfer"),
        (b"old tree", "old tree"),
    ],
)
def test_a_text_holds_the_name_of_a_class(texts, content, label):
    (texts / "labels" / "b.txt").write_bytes(content)
    data = parallel(texts)
    assert data.classes[data.targets[1]] == label


def test_labels_that_are_numbers_are_sorted_as_such(texts):
    for stem, label in (("a", "10"), ("b", "9"), ("c", "-1")):
        (texts / "labels" / f"{stem}.txt").write_text(label)
    assert (parallel(texts).classes, parallel(texts).targets) == (["-1", "9", "10"], [2, 1, 0])


@pytest.mark.parametrize(
    ("content", "got"), [(b"", "an empty file"), (b"  \n\n", "an empty file"), (b"cat\ndog\n", "2 lines")]
)
def test_a_text_of_no_line_or_of_two_is_named(texts, content, got):
    (texts / "labels" / "b.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        parallel(texts)
    assert str(caught.value) == (
        f"the label {texts}/labels/b.txt is no class name\n  got: {got}\n"
        "  expected: one line that holds the name of a class\n  fix: write the class into it"
    )


def test_a_text_that_is_no_utf_8_is_named(texts):
    (texts / "labels" / "b.txt").write_bytes("Käfer".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        parallel(texts)
    assert str(caught.value) == (
        f"the label {texts}/labels/b.txt is not in UTF-8\n"
        "  got: 'utf-8' codec can't decode byte 0xe4 in position 1: invalid continuation byte\n"
        "  expected: a text file (UTF-8) that holds the name of a class\n"
        "  fix: pass encoding=… with the one in which it reads right: gb18030 ('K鋐er'), big5 ('K輎er'), shift_jis ('K臟er'), cp1252 ('Käfer'); or save "
        "it as UTF-8"
    )


def test_the_training_classes_govern(texts):
    assert parallel(texts, classes=["fox", "dog", "cat"]).targets == [2, 1, 2]
    with pytest.raises(DataError) as caught:
        parallel(texts, classes=["cat", "fox"])
    assert str(caught.value) == (
        f"1 labels are no known class: dog\n  got: in {texts}/labels/b.txt\n  expected: only cat, fox\n"
        "  fix: mend or remove these labels, or add their class to the training set as well"
    )


# pairs


def test_orphans_on_either_side_are_listed(texts):
    source(texts / "images" / "x.png")
    source(texts / "images" / "deep" / "y.JPG")
    (texts / "labels" / "z.txt").write_text("cat")
    with pytest.raises(DataError) as caught:
        parallel(texts)
    assert str(caught.value) == (
        f"{texts}/images and {texts}/labels do not match\n"
        "  got: 2 images without a label: deep/y.JPG, x.png; 1 labels without an image: z.txt\n"
        "  expected: for each image one label of its name, ending in .txt\n"
        "  fix: add what is missing or move the rest away; names such as 7_mask.png are matched by suffix='_mask'"
    )


def test_of_many_orphans_ten_are_listed(texts):
    for index in range(25):
        (texts / "labels" / f"{index:02d}.txt").write_text("cat")
    with pytest.raises(DataError, match=r"25 labels without an image: 00\.txt, .*, 09\.txt and 15 more\n"):
        parallel(texts)


@pytest.mark.parametrize("other", ["a.jpg", "a.PNG"])
def test_two_images_of_one_name_are_refused(texts, other):
    source(texts / "images" / other)
    with pytest.raises(DataError) as caught:
        parallel(texts)
    one, two = sorted(["a.png", other])
    assert str(caught.value) == (
        f"{texts}/images holds two files of one name: {one} and {two}\n  got: both are matched as 'a'\n"
        "  expected: names that differ before their ending\n  fix: rename or remove one of them"
    )


def test_two_labels_of_one_name_are_refused(tmp_path):
    source(tmp_path / "images" / "a.png")
    source(tmp_path / "labels" / "a.png", mode="L")
    source(tmp_path / "labels" / "a.tif", mode="L")
    with pytest.raises(DataError, match=r"labels holds two files of one name: a\.png and a\.tif\n"):
        parallel(tmp_path, kind="mask")


def test_folders_belong_to_the_name_and_hidden_files_and_other_endings_do_not_count(texts):
    source(texts / "images" / "deep" / "a.JPEG")
    (texts / "labels" / "deep").mkdir()
    (texts / "labels" / "deep" / "a.TXT").write_text("dog")
    (texts / "labels" / ".ipynb_checkpoints").mkdir()
    (texts / "labels" / ".ipynb_checkpoints" / "a.txt").write_text("dog")
    for name in (".DS_Store", "Thumbs.db", ".a.png", "._a.png"):
        (texts / "images" / name).write_bytes(b"")
    data = parallel(texts)
    assert list(data.paths) == ["a.png", "b.png", "c.png", "deep/a.JPEG"]
    assert list(data.label_paths) == ["a.txt", "b.txt", "c.txt", "deep/a.TXT"]
    assert data.targets == [0, 1, 0, 1]


def test_a_name_may_hold_dots_and_lack_its_place_in_the_order_of_labels(tmp_path):
    for stem, label in (("a.1", "x"), ("a", "y"), ("a-1", "z")):
        source(tmp_path / "images" / f"{stem}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{stem}.txt").write_text(label)
    data = parallel(tmp_path)
    assert [(path, data.classes[target]) for path, target in zip(data.paths, data.targets, strict=True)] == [
        ("a-1.png", "z"),
        ("a.1.png", "x"),
        ("a.png", "y"),
    ]


def test_a_suffix_of_the_labels_names_is_taken_off(tmp_path):
    source(tmp_path / "images" / "7.jpg")
    source(tmp_path / "labels" / "7_mask.png", mode="L")
    assert list(parallel(tmp_path, kind="mask", suffix="_mask").label_paths) == ["7_mask.png"]
    source(tmp_path / "labels" / "8.png", mode="L")
    with pytest.raises(DataError) as caught:
        parallel(tmp_path, kind="mask", suffix="_mask")
    assert str(caught.value).splitlines()[1:3] == [
        "  got: 1 labels without an image: 8.png",
        "  expected: for each image one label of its name and '_mask', ending in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, "
        ".tif, .tiff, .webp",
    ]


def test_directories_that_are_missing_or_empty_say_so(texts, tmp_path):
    with pytest.raises(DataError) as caught:
        ParallelDataset(texts / "images", texts / "label")
    assert str(caught.value) == (
        f"there is no directory {texts}/label\n  got: {texts} holds ['images', 'labels']\n"
        f"  expected: a directory of labels\n  fix: check the path; relative paths start at {Path.cwd()}"
    )
    for name in ("none", "nothing"):
        (texts / name).mkdir()
    (texts / "none" / "list.csv").write_text("")
    with pytest.raises(DataError) as caught:
        ParallelDataset(texts / "none", texts / "nothing")
    assert str(caught.value) == (
        f"no image in {texts}/none\n  got: 1 entries, e.g. list.csv\n"
        "  expected: files ending in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp\n"
        "  fix: check the path, or name other endings: extensions=(…)"
    )


def test_links_out_of_either_directory_are_left_out_or_followed(texts, tmp_path):
    source(tmp_path / "outside" / "d.png")
    (tmp_path / "outside" / "d.txt").write_text("dog")
    (texts / "images" / "d.png").symlink_to(tmp_path / "outside" / "d.png")
    (texts / "labels" / "d.txt").symlink_to(tmp_path / "outside" / "d.txt")
    with pytest.warns(CvkitWarning) as caught:
        data = parallel(texts)
    assert [str(one.message).split(",")[0] for one in caught] == [
        f"1 links in {texts}/images are left out",
        f"1 links in {texts}/labels are left out",
    ]
    assert {one.filename for one in caught} == {__file__}
    assert len(data) == 3
    assert parallel(texts, follow_links=True).targets == [0, 1, 0, 1]
    (texts / "labels" / "d.txt").unlink()
    (texts / "labels" / "d.txt").write_text("dog")
    with pytest.raises(DataError) as failed:
        parallel(texts)
    assert str(failed.value).splitlines()[1] == (
        "  got: 1 labels without an image: d.txt; 1 links, which are not followed without follow_links=True"
    )


# masks


def test_a_mask_is_its_integers(tmp_path):
    data = mask_of(tmp_path, np.array([[0, 1, 2], [2, 2, 0]], np.uint8))
    mask = data[0][1]
    assert (mask.mode, mask.size, values_of(data)) == ("L", (3, 2), [[0, 1, 2], [2, 2, 0]])
    assert data.classes == ["0", "1", "2"]


def test_the_classes_of_masks_are_counted_over_all_of_them_and_without_the_ignored(tmp_path):
    mask_of(tmp_path, np.array([[0, 3]], np.uint8))
    source(tmp_path / "images" / "n.png", (2, 1))
    Image.fromarray(np.array([[1, 255]], np.uint8)).save(tmp_path / "masks" / "n.png")
    data = ParallelDataset(tmp_path / "images", tmp_path / "masks", "mask", ignore=255)
    assert data.classes == ["0", "1", "2", "3"]
    assert values_of(data, 1) == [[1, 255]]


def test_values_are_mapped_to_classes(tmp_path):
    data = mask_of(tmp_path, np.array([[0, 255, 255]], np.uint8), mask_values=(0, 255))
    assert (values_of(data), data.classes) == ([[0, 1, 1]], ["0", "255"])
    data = mask_of(tmp_path, np.array([[7, 3, 9]], np.uint8), mask_values=(7, 3), classes=["a", "b"], ignore=9)
    assert (values_of(data), data.classes) == ([[0, 1, 9]], ["a", "b"])


def test_a_palette_mask_keeps_its_indices(tmp_path):
    def save(image, path):
        image = image.convert("L").copy()
        image.putpalette([200, 10, 10, 9, 9, 9, 255, 255, 255] * 20)
        image.save(path)

    data = mask_of(tmp_path, np.array([[0, 1], [2, 17]], np.uint8), save=save)
    assert Image.open(tmp_path / "masks" / "m.png").mode == "P"
    assert values_of(data) == [[0, 1], [2, 17]]


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_a_mask_of_16_bits_keeps_its_numbers(tmp_path, name):
    data = mask_of(tmp_path, np.array([[0, 300], [255, 65535]], np.uint16), name)
    assert (data[0][1].mode, values_of(data)) == ("I", [[0, 300], [255, 65535]])
    data = mask_of(tmp_path, np.array([[0, 300]], np.uint16), name, mask_values=(0, 300))
    assert (data[0][1].mode, values_of(data)) == ("L", [[0, 1]])


@pytest.mark.parametrize("name", ["m.png", "m.bmp", "m.tif"])
def test_a_mask_of_one_bit_holds_0_and_1(tmp_path, name):
    data = mask_of(tmp_path, np.array([[0, 255, 255]], np.uint8), name, save=lambda m, path: m.convert("1").save(path))
    assert Image.open(tmp_path / "masks" / name).mode == "1"
    assert (values_of(data), data.classes) == ([[0, 1, 1]], ["0", "1"])


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def few_bits(bits):
    """A PNG of one row, 0 1 2 3, in grey of so many bits."""
    row = bytes([0, 0b00011011]) if bits == 2 else bytes([0, 0x01, 0x23])
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.png", few_bits(2)),
        ("m.png", few_bits(4)),
        ("m.pgm", b"P5 4 1 3\n\0\1\2\3"),
        ("m.pgm", b"P2 4 1 20\n0 1 2 3\n"),
        ("m.pgm", b"P5 4 1 1000\n\0\0\0\1\0\2\0\3"),
        ("m.pgm", b"P5 4 1 255\n\0\1\2\3"),
        ("m.pgm", b"P5 4 1 65535\n\0\0\0\1\0\2\0\3"),
    ],
    ids=["2-bit png", "4-bit png", "pgm to 3", "plain pgm to 20", "pgm to 1000", "pgm to 255", "pgm to 65535"],
)
def test_levels_that_pillow_would_spread_stay_numbers(tmp_path, name, data):
    found = mask_of(tmp_path, np.array([[0, 1, 2, 3]], np.uint8), name, save=lambda _, path: path.write_bytes(data))
    assert values_of(found) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("levels", [3, 15, 20, 254, 256, 1000, 65534])
def test_every_level_of_a_pgm_comes_back(tmp_path, levels):
    wide = levels > 255
    numbers = np.linspace(0, levels, 200).round().astype(">u2" if wide else "u1")
    header = f"P5 200 1 {levels}\n".encode()
    data = mask_of(
        tmp_path,
        np.zeros((1, 200), np.uint8),
        "m.pgm",
        save=lambda _, path: path.write_bytes(header + numbers.tobytes()),
    )
    assert values_of(data) == [numbers.tolist()]


def test_a_mask_is_turned_upright_as_its_image_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    data = mask_of(tmp_path, np.array([[1], [0]], np.uint8), save=lambda image, path: image.save(path, exif=exif))
    assert values_of(data) == [[0], [1]]


def test_a_mask_of_another_size_is_named_with_its_image(tmp_path):
    data = mask_of(tmp_path, np.zeros((2, 3), np.uint8))
    source(tmp_path / "images" / "m.png", (2, 3))
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value) == (
        f"sample 0: the mask {tmp_path}/masks/m.png is not as large as its image {tmp_path}/images/m.png\n"
        "  got: mask 3×2, image 2×3\n  expected: the same size\n"
        "  fix: see whether one was resized or turned without the other (images are turned upright by their EXIF tag)"
    )
    assert not isinstance(caught.value, ImageError)  # on_error="skip" is for images that cannot be decoded
    assert list(data.verify().bad) == ["m.png"]


@pytest.mark.parametrize(
    ("values", "options", "wrong", "count", "expected"),
    [
        ([[0, 3, 9]], {"classes": ["a", "b"]}, "3, 9", 2, "0, 1, for the classes a, b"),
        ([[0, 255]], {"classes": ["a", "b"]}, "255", 1, "0, 1, for the classes a, b"),
        ([[0, 255, 254]], {"classes": ["a", "b"], "ignore": 255}, "254", 1, "0, 1, for the classes a, b"),
        ([[0, 1, 255]], {"mask_values": (0, 255)}, "1", 1, "0, 255, for the classes 0, 255"),
        ([[0, 1, 7]], {"mask_values": (1, 7), "ignore": 9}, "0", 1, "1, 7, for the classes 1, 7"),
    ],
)
def test_values_that_are_no_class_are_named(tmp_path, values, options, wrong, count, expected):
    data = mask_of(tmp_path, np.array(values, np.uint8), **options)
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value) == (
        f"sample 0: the mask {tmp_path}/masks/m.png holds values that are no class: {wrong}\n"
        f"  got: {count} such values\n  expected: only {expected}\n"
        "  fix: name what the values stand for: mask_values=(0, 255), or ignore=255; a mask saved as JPEG is lost: use PNG"
    )


@pytest.mark.parametrize("value", [-1, -65536, 65536, 2**31 - 1])
@pytest.mark.parametrize("options", [{}, {"mask_values": (0, 255)}, {"classes": ["a"]}])
def test_a_mask_of_32_bits_beyond_any_class_is_refused(tmp_path, value, options):
    data = mask_of(tmp_path, np.full((1, 2), value, np.int32), "m.tif", **options)
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value) == (
        f"sample 0: the mask {tmp_path}/masks/m.tif holds values that are no class numbers\n"
        f"  got: values from {value} to {value}\n  expected: integers from 0 to 65,535\n"
        "  fix: save it with the classes' numbers, e.g. 255 where there is none, and pass ignore=255"
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "F"])
def test_a_mask_of_colours_is_refused(tmp_path, mode):
    name = "m.tif" if mode in ("CMYK", "F") else "m.png"
    data = mask_of(tmp_path, np.zeros((1, 2), np.uint8), name, save=lambda _, path: source(path, (2, 1), mode))
    with pytest.raises(ImageError) as caught:
        data[0]
    assert str(caught.value) == (
        f"sample 0: the mask {tmp_path}/masks/{name} holds colours or transparency, not class numbers\n"
        f"  got: mode {mode!r}\n  expected: one integer a pixel (mode 1, L, P or 16-bit grey)\n"
        "  fix: map each colour to its class number, and save that as a grey or palette PNG"
    )


def test_a_jpeg_is_no_mask_unless_its_values_are_known(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8) * 255
    data = mask_of(tmp_path, noise, "m.jpg")
    with pytest.raises(ImageError) as caught:
        data.classes  # noqa: B018
    assert str(caught.value) == (
        f"the mask {tmp_path}/masks/m.jpg is a JPEG, which does not keep its values\n  got: 8×8 pixels\n"
        "  expected: a mask as it was drawn, e.g. a PNG\n"
        "  fix: save the masks as PNG, or name the values they should hold: mask_values=(0, 255)"
    )
    with pytest.raises(DataError, match="holds values that are no class: "):
        mask_of(tmp_path, noise, "m.jpg", mask_values=(0, 255))[0]
    assert values_of(mask_of(tmp_path, noise[:1, :1] * 0, "m.jpg", mask_values=(0, 255))) == [[0]]


def test_a_damaged_mask_is_named(tmp_path):
    data = mask_of(tmp_path, np.zeros((1, 2), np.uint8))
    (tmp_path / "masks" / "m.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"^sample 0: cannot decode the image .*masks/m\.png\n"):
        data[0]
    assert list(data.verify().bad) == ["m.png"]


def test_larger_masks_than_allowed_are_refused(tmp_path):
    data = mask_of(tmp_path, np.zeros((3, 3), np.uint8), max_pixels=8)
    source(tmp_path / "images" / "m.png", (2, 2))
    with pytest.raises(ImageError, match=r"^sample 0: the image .*masks/m\.png is too large\n  got: 3×3 pixels\n"):
        data[0]


@pytest.mark.parametrize("ignore", [-100, 65536, "255", 255.0, True])
def test_an_ignored_value_that_no_mask_can_hold_is_refused(tmp_path, ignore):
    with pytest.raises(ArgumentError) as caught:
        mask_of(tmp_path, np.zeros((1, 2), np.uint8), ignore=ignore)
    assert str(caught.value) == (
        f"ignore cannot be used\n  got: {ignore!r}\n  expected: an integer from 0 to 65,535 that the masks hold\n"
        "  fix: save the masks with 255 there, and pass ignore=255 here and ignore_index=255 to the loss"
    )


def test_an_ignored_value_among_the_classes_is_refused(tmp_path):
    with pytest.raises(ArgumentError) as caught:
        mask_of(tmp_path, np.zeros((1, 2), np.uint8), classes=["a", "b"], ignore=1)
    assert str(caught.value) == (
        "ignore is the number of a class\n  got: ignore=1, 2 classes\n  expected: a value beyond the classes' numbers\n"
        "  fix: save the masks with another value there, e.g. 255"
    )
    data = mask_of(tmp_path, np.array([[0, 1, 2]], np.uint8), ignore=1)
    with pytest.raises(DataError) as caught:
        data.classes  # noqa: B018
    assert str(caught.value) == (
        "ignore is the number of a class\n  got: ignore=1, and masks with values up to 2\n"
        "  expected: a value beyond the classes' numbers\n"
        "  fix: name the classes' values, so that they are numbered without it: mask_values=(0, 1, …)"
    )


@pytest.mark.parametrize(
    ("values", "ignore"),
    [
        ((), None),
        ((0, 0), None),
        ((0, -1), None),
        ((0, 65536), None),
        ((0, 1.0), None),
        ((0, True), None),
        ((0, 255), 255),
    ],
)
def test_mask_values_that_are_none_are_refused(tmp_path, values, ignore):
    with pytest.raises(ArgumentError) as caught:
        mask_of(tmp_path, np.zeros((1, 2), np.uint8), mask_values=values, ignore=ignore)
    assert str(caught.value) == (
        f"mask_values cannot be used\n  got: {values!r}, ignore={ignore}\n"
        "  expected: integers from 0 to 65,535, each of them once, without the ignored one\n"
        "  fix: e.g. mask_values=(0, 255) for a black and white mask"
    )


def test_mask_values_may_be_an_array(tmp_path):
    data = mask_of(tmp_path, np.array([[0, 255]], np.uint8), mask_values=np.array([0, 255]), ignore=9)
    assert (values_of(data), data.classes, data.mask_values) == ([[0, 1]], ["0", "255"], (0, 255))
    assert (
        data.fingerprint
        == mask_of(tmp_path, np.array([[0, 255]], np.uint8), mask_values=(0, 255), ignore=9).fingerprint
    )
    with pytest.raises(ArgumentError, match=r"^mask_values cannot be used\n  got: 255\n"):
        mask_of(tmp_path, np.array([[0, 255]], np.uint8), mask_values=255)


def test_the_fingerprint_of_masks_sees_what_their_values_mean(tmp_path):
    options = ({}, {"ignore": 255}, {"mask_values": (0, 1)}, {"mask_values": (1, 0)}, {"classes": ["a", "b"]})
    found = {mask_of(tmp_path, np.array([[0, 1]], np.uint8), **one).fingerprint for one in options}
    assert len(found) == len(options)


def test_options_that_do_not_go_together_are_refused(texts):
    with pytest.raises(UnknownNameError, match=r"^unknown kind 'masks'\n.*\n  fix: did you mean 'mask'\?$"):
        parallel(texts, kind="masks")
    for options in ({"mask_values": (0, 255)}, {"ignore": 255}):
        with pytest.raises(ArgumentError) as caught:
            parallel(texts, **options)
        assert str(caught.value) == (
            "mask_values and ignore are for masks\n  got: kind='text'\n  expected: kind=\"mask\"\n  fix: leave them out"
        )
    with pytest.raises(ArgumentError, match=r"^images have no classes\n"):
        parallel(texts, kind="image", classes=["a"])
    with pytest.raises(ArgumentError) as caught:
        parallel(texts, kind="mask", classes=["a"], mask_values=(0, 255))
    assert str(caught.value) == (
        "classes and mask_values do not belong together\n  got: 1 classes, 2 values\n  expected: one value a class\n"
        "  fix: name a class for each value"
    )


# images


def test_an_image_as_target_comes_in_rgb_and_its_own_size(tmp_path):
    source(tmp_path / "images" / "a.png", (4, 4))
    source(tmp_path / "labels" / "a.webp", (8, 6), "L")
    data = parallel(tmp_path, kind="image")
    image, target = data[0]
    assert (image.size, target.mode, target.size, data.classes) == ((4, 4), "RGB", (8, 6), None)
    (tmp_path / "labels" / "a.webp").write_bytes(b"")
    with pytest.raises(ImageError, match=r"^sample 0: cannot decode the image .*labels/a\.webp\n"):
        data[0]


def test_beside_a_mask_or_an_image_an_image_comes_whole(tmp_path):
    for name in ("images", "labels"):
        source(tmp_path / name / "a.jpg", (64, 64), "L")

    def enough(width, height):
        return width // 4, height // 4

    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("cat")
    assert ParallelDataset(tmp_path / "images", tmp_path / "texts").read(0, enough)[0].size == (16, 16)
    assert parallel(tmp_path, kind="image").read(0, enough)[0].size == (64, 64)
    assert parallel(tmp_path, kind="mask", mask_values=(0, 255)).read(0, enough)[0].size == (64, 64)


def test_written_shapes_are_read_back(tmp_path):
    write_shapes(tmp_path / "p", 2, 16, layout="parallel")
    data = ParallelDataset(tmp_path / "p" / "images", tmp_path / "p" / "labels")
    assert (data.classes, data.targets) == (["circle", "square", "triangle"], [0, 1, 2, 0, 1, 2])
    write_shapes(tmp_path / "m", 2, 16, layout="mask")
    data = ParallelDataset(tmp_path / "m" / "images", tmp_path / "m" / "masks", "mask")
    assert data.classes == ["0", "1", "2", "3"]
    assert [sorted({0, *np.unique(np.asarray(mask)).tolist()}) for _, mask in data] == [[0, 1], [0, 2], [0, 3]] * 2
