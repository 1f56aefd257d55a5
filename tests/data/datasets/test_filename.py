import re

import pytest
from PIL import Image

from cvkit.data import FilenameDataset
from cvkit.errors import ArgumentError, CvkitWarning, DataError

PATTERN = r"^(?P<label>[a-z]+)\."


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return root


def test_the_name_tells_the_class_wherever_the_file_lies(tmp_path):
    write(tmp_path, "dog.1.png", "cat.2.JPG", "deep/er/cat.1.png", ".hidden.png", ".git/cat.3.png")
    (tmp_path / "notes.txt").write_text("")
    data = FilenameDataset(tmp_path, PATTERN)
    assert list(data.paths) == ["cat.2.JPG", "deep/er/cat.1.png", "dog.1.png"]
    assert (data.classes, data.targets) == (["cat", "dog"], [0, 0, 1])
    assert data[2][1] == 1


def test_folders_are_no_part_of_the_name(tmp_path):
    write(tmp_path, "cat.folder/dog.1.png")
    assert FilenameDataset(tmp_path, r"(?P<label>cat|dog)\.").classes == ["dog"]


def test_numbers_are_sorted_as_such_and_names_as_text(tmp_path):
    write(tmp_path / "n", "10_a.png", "9_a.png", "2_a.png")
    assert FilenameDataset(tmp_path / "n", r"^(?P<label>\d+)_").classes == ["2", "9", "10"]
    write(tmp_path / "t", "10_a.png", "9_a.png", "b_a.png")
    assert FilenameDataset(tmp_path / "t", r"^(?P<label>[^_]+)_").classes == ["10", "9", "b"]


def test_the_training_classes_govern(tmp_path):
    write(tmp_path, "dog.1.png", "cat.1.png")
    data = FilenameDataset(tmp_path, re.compile(PATTERN), classes=["fox", "dog", "cat"])
    assert (data.classes, data.targets) == (["fox", "dog", "cat"], [2, 1])
    with pytest.raises(DataError) as caught:
        FilenameDataset(tmp_path, PATTERN, classes=["cat"])
    assert str(caught.value) == (
        f"1 labels are no known class: dog\n  got: in {tmp_path}/dog.1.png\n  expected: only cat\n"
        "  fix: mend or remove these labels, or add their class to the training set as well"
    )
    with pytest.raises(ArgumentError, match=r"^classes cannot be used\n"):
        FilenameDataset(tmp_path, PATTERN, classes=["cat", "dog", "cat"])


@pytest.mark.parametrize("name", ["CAT.2.png", "2.png"])
def test_names_that_do_not_match_are_listed(tmp_path, name):
    write(tmp_path, "cat.1.png", f"deep/{name}")
    with pytest.raises(DataError) as caught:
        FilenameDataset(tmp_path, PATTERN)
    assert str(caught.value) == (
        f"the names of 1 images in {tmp_path} do not match the pattern\n  got: deep/{name}\n"
        f"  expected: names in which {PATTERN!r} finds a label\n  fix: widen the pattern, or move these files away"
    )


@pytest.mark.parametrize("pattern", [r"^(?P<label>[a-z]*)", r"^(?P<label>[a-z]+)?"])
def test_a_label_of_no_letters_is_none(tmp_path, pattern):
    write(tmp_path, "cat.png", "7.png")
    with pytest.raises(DataError, match=r"^the names of 1 images in .* do not match the pattern\n  got: 7\.png\n"):
        FilenameDataset(tmp_path, pattern)


def test_of_many_names_ten_are_listed(tmp_path):
    write(tmp_path, *(f"{index:02d}.png" for index in range(12)))
    with pytest.raises(DataError, match=r"\n  got: 00\.png, .*, 09\.png and 2 more\n"):
        FilenameDataset(tmp_path, PATTERN)


def test_a_pattern_that_is_none_is_refused(tmp_path):
    with pytest.raises(ArgumentError) as caught:
        FilenameDataset(tmp_path, "(?P<label>")
    assert str(caught.value) == (
        "pattern is no regular expression\n"
        "  got: '(?P<label>': missing ), unterminated subpattern at position 0\n"
        '  expected: r"^(?P<label>[a-z]+)"\n  fix: mend it'
    )
    for wrong in (b"(?P<label>a)", 7, None):
        with pytest.raises(ArgumentError, match=r"^pattern is no regular expression\n"):
            FilenameDataset(tmp_path, wrong)


@pytest.mark.parametrize("pattern", ["^([a-z]+)", "(?P<class>[a-z]+)"])
def test_a_pattern_without_a_label_says_how_one_looks(tmp_path, pattern):
    with pytest.raises(ArgumentError) as caught:
        FilenameDataset(tmp_path, pattern)
    assert str(caught.value) == (
        f"pattern has no group that is the label\n  got: {pattern!r}\n  expected: a group (?P<label>…)\n"
        '  fix: e.g. r"^(?P<label>[a-z]+)" for names like cat.0001.jpg'
    )


def test_a_directory_without_images_says_what_is_there(tmp_path):
    (tmp_path / "list.csv").write_text("")
    with pytest.raises(DataError) as caught:
        FilenameDataset(tmp_path, PATTERN)
    assert str(caught.value) == (
        f"no image in {tmp_path}\n  got: 1 entries, e.g. list.csv\n"
        "  expected: files ending in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp\n"
        "  fix: check the path, or name other endings: extensions=(…)"
    )


def test_links_are_left_out_or_followed(tmp_path):
    write(tmp_path / "root", "cat.1.png")
    write(tmp_path / "outside", "dog.1.png")
    (tmp_path / "root" / "more").symlink_to(tmp_path / "outside")
    with pytest.warns(CvkitWarning, match=r"^1 links in .*root are left out, e\.g\. .*root/more: ") as caught:
        assert len(FilenameDataset(tmp_path / "root", PATTERN)) == 1
    assert caught[0].filename == __file__
    data = FilenameDataset(tmp_path / "root", PATTERN, follow_links=True)
    assert list(data.paths) == ["cat.1.png", "more/dog.1.png"]
    assert data[1][1] == 1
