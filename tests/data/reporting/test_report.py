"""The report: what it counts, which suspicious files it names, and which planted leaks it finds and which it does not."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

import cvkit
from cvkit.data import ArrayDataset, FolderDataset, Loader, TableDataset, report, split
from cvkit.data.__main__ import main
from cvkit.data.reporting import duplicates
from cvkit.errors import ArgumentError, DataError


def photo(seed, size=(96, 64)):
    """An image with structure at several scales, as photos have it."""
    draw = np.random.default_rng(seed)
    made = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12):
        rough = Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        made += np.asarray(rough.resize(size, Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(made.astype(np.uint8))


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def photos(tmp_path):
    for number in range(12):
        save(photo(number), tmp_path / "train" / ("ant" if number < 8 else "bee") / f"{number}.png")
    for number in range(20, 24):
        save(photo(number), tmp_path / "val" / ("ant" if number < 22 else "bee") / f"{number}.png")
    return tmp_path


def both(root):
    train = FolderDataset(root / "train")
    return report(train, FolderDataset(root / "val", classes=train.classes))


def kinds(found):
    return {row.kind for row in found.rows}


def test_a_clean_dataset_is_counted_and_nothing_is_suspicious(photos):
    found = both(photos)
    assert found
    assert found.rows == []
    assert found.counts == {"train": {"ant": 8, "bee": 4}, "val": {"ant": 2, "bee": 2}}
    assert str(found) == (
        "train: 12 images\n  classes: ant 8, bee 4\n  the largest class has 2.0 times the samples of the smallest\n"
        "  width: 96 to 96, median 96\n  height: 64 to 64, median 64\n  modes: RGB 12\n  formats: PNG 12\n"
        "val: 4 images\n  classes: ant 2, bee 2\n  the largest class has 1.0 times the samples of the smallest\n"
        "  width: 96 to 96, median 96\n  height: 64 to 64, median 64\n  modes: RGB 4\n  formats: PNG 4\n\n"
        "nothing suspicious was found"
    )


def test_suspicious_files_are_named(photos):
    ant = photos / "train" / "ant"
    data = (ant / "0.png").read_bytes()
    (ant / "cut.png").write_bytes(data[: len(data) // 2])
    save(Image.new("RGB", (96, 64), (9, 9, 9)), ant / "plain.png")
    save(photo(30, (500, 60)), ant / "long.png")
    save(photo(31, (4, 5)), ant / "tiny.png")
    save(photo(32), ant / "really.jpg", format="PNG")
    save(photo(33), ant / "lab.png", icc_profile=wide())
    found = both(photos)
    named = {row.kind: row.file for row in found.rows}
    assert named == {
        "unreadable": "ant/cut.png",
        "one colour": "ant/plain.png",
        "extreme shape": "ant/long.png",
        "odd size": "ant/tiny.png",
        "wrong extension": "ant/really.jpg",
        "colour profile": "ant/lab.png",
    }
    assert not found
    assert "cannot decode the image" in found.of("unreadable")[0].detail
    assert found.of("wrong extension")[0].detail == "its content is PNG"
    assert found.of("extreme shape")[0].detail == "500×60 pixels"


def wide():
    """A profile that is not sRGB: that of sRGB with red and blue exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


def test_one_stray_format_among_many_is_named(tmp_path):
    for number in range(250):
        save(photo(number, (8, 8)), tmp_path / "a" / f"{number}.png")
    save(photo(999, (8, 8)).convert("P"), tmp_path / "a" / "notFound.gif")
    found = report(FolderDataset(tmp_path), near_duplicates=False)
    assert [(row.file, row.detail) for row in found.of("odd format")] == [("a/notFound.gif", "GIF, where PNG is usual")]


def test_imbalance_is_said(tmp_path):
    for number in range(11):
        save(photo(number), tmp_path / "a" / f"{number}.png")
    save(photo(20), tmp_path / "b" / "0.png")
    assert 'the largest class has 11.0 times the samples of the smallest; weights="balanced"' in str(
        report(FolderDataset(tmp_path))
    )


LEAKS = {
    "copied": (lambda image, path: save(image, path), "duplicate across splits"),
    "saved again without loss": (lambda image, path: save(image, path.with_suffix(".bmp")), "duplicate across splits"),
    "saved again as JPEG": (
        lambda image, path: save(image, path.with_suffix(".jpg"), quality=60),
        "near duplicate across splits",
    ),
    "cropped by one pixel": (
        lambda image, path: save(image.crop((1, 1, *image.size)), path),
        "near duplicate across splits",
    ),
    "at half its size": (
        lambda image, path: save(image.resize((image.width // 2, image.height // 2)), path),
        "near duplicate across splits",
    ),
    "in grey": (lambda image, path: save(image.convert("L"), path), "near duplicate across splits"),
    "mirrored": (lambda image, path: save(ImageOps.mirror(image), path), "near duplicate across splits"),
    "upside down": (lambda image, path: save(ImageOps.flip(image), path), "near duplicate across splits"),
    "turned left": (lambda image, path: save(image.rotate(90, expand=True), path), "near duplicate across splits"),
    "turned right": (lambda image, path: save(image.rotate(270, expand=True), path), "near duplicate across splits"),
    "turned by 180°": (lambda image, path: save(image.rotate(180), path), "near duplicate across splits"),
    "cropped by a tenth": (lambda image, path: save(image.crop((20, 12, *image.size)), path), None),
    "turned by 20°": (lambda image, path: save(image.rotate(20), path), None),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_planted_leaks_are_found_or_known_not_to_be(photos, leak):
    plant, kind = LEAKS[leak]
    plant(photo(77, (192, 128)), photos / "val" / "ant" / "other-name.png")
    save(photo(77, (192, 128)), photos / "train" / "ant" / "original.png")
    found = both(photos)
    pairs = [(row.kind, row.file, row.other.rpartition(".")[0]) for row in found.rows if row.other_split == "val"]
    assert pairs == ([(kind, "ant/original.png", "ant/other-name")] if kind else [])


@pytest.mark.parametrize("frame", [(1, 0, 32, 32), (0, 1, 31, 32), (0, 0, 31, 31), (1, 1, 32, 32)])
def test_small_images_that_are_cropped_by_one_pixel_are_found(tmp_path, frame):
    for number in range(20):
        save(photo(number, (32, 32)), tmp_path / "train" / "a" / f"{number}.png")
        save(photo(number, (32, 32)).crop(frame), tmp_path / "val" / "a" / f"{number}.png")
    found = both(tmp_path)
    pairs = {(row.file, row.other) for row in found.of("near duplicate across splits")}
    assert pairs == {(f"a/{number}.png", f"a/{number}.png") for number in range(20)}
    assert all((row.split, row.other_split) == ("train", "val") for row in found.rows)


def test_duplicates_in_a_split_and_labels_that_contradict(photos):
    shutil.copy(photos / "train/ant/1.png", photos / "train/ant/copy.png")
    shutil.copy(photos / "train/ant/2.png", photos / "train/bee/other.png")
    shutil.copy(photos / "train/ant/2.png", photos / "val/ant/leak.png")
    found = both(photos)
    assert [(row.file, row.other) for row in found.of("duplicate")] == [
        ("ant/1.png", "ant/copy.png"),
        ("ant/2.png", "bee/other.png"),
    ]
    assert [(row.file, row.other) for row in found.of("duplicate across splits")] == [("ant/2.png", "ant/leak.png")]
    assert [(row.file, row.other, row.detail) for row in found.of("contradicting labels")] == [
        ("ant/2.png", "bee/other.png", "ant and bee")
    ]
    assert (
        "error: 1 equal images with different labels\n  train: ant/2.png and train: bee/other.png (ant and bee)"
        in str(found)
    )


def test_loaders_parts_and_arrays_are_looked_at_too(photos, tmp_path):
    data = cvkit.data.from_folder(photos, size=32, batch_size=4)
    assert kinds(report(data)) == set()
    train, val = split(FolderDataset(photos / "train"), 0.25)
    assert report(Loader(train, 4), val).counts["train"] == {"ant": 6, "bee": 3}
    arrays = ArrayDataset(torch.randint(0, 255, (4, 12, 12, 3), dtype=torch.uint8).repeat(2, 1, 1, 1), [0, 1] * 4)
    found = report(arrays, near_duplicates=False)
    assert len(found.of("duplicate")) == 4
    rows = [{"image": path, "label": 0.5} for path in train.paths]
    assert report(TableDataset(rows, root=photos / "train", kind="value")).rows == []


def test_what_is_no_dataset_of_images_is_refused(photos):
    with pytest.raises(ArgumentError, match="there is nothing to report on"):
        report(photos)
    found = report(ArrayDataset(torch.zeros(2, 3), [0, 1]))
    assert [row.detail for row in found.of("unreadable")] == ["a sample is no image; got: Tensor"] * 2
    with pytest.raises(ArgumentError, match="kind cannot be used"):
        found.of("leak")


def test_too_many_for_likeness_is_said(photos, monkeypatch):
    monkeypatch.setattr("cvkit.data.reporting.report.MOST_NEAR", 5)
    assert "note: images that look alike were not looked for: 16 are more than 5" in str(both(photos))


def test_likeness_is_the_same_in_blocks(photos, monkeypatch):
    for number in range(4):
        save(photo(number).crop((1, 0, 96, 64)), photos / "val" / "ant" / f"near{number}.png")
    whole = both(photos).rows
    monkeypatch.setattr(duplicates, "_ROWS", 3)
    assert both(photos).rows == whole
    assert len(whole) == 4


def test_the_table(photos, tmp_path):
    shutil.copy(photos / "train/ant/1.png", photos / "val/ant/copy.png")
    found = both(photos)
    found.to_csv(tmp_path / "found.csv")
    with open(tmp_path / "found.csv", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == found.table()
    with pytest.raises(DataError, match=r"the report .* cannot be written"):
        found.to_csv(tmp_path / "missing" / "found.csv")


def test_the_page_is_one_file_with_escaped_names(photos):
    name = '<img src=x onerror=alert(1)>&".png'
    shutil.copy(photos / "train/ant/1.png", photos / "val" / "ant" / name)
    (photos / "val" / "ant" / "bad.png").write_bytes(b"no image")
    both(photos).to_html(photos / "page.html")
    text = (photos / "page.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&quot;.png" in text
    assert text.count("data:image/") > 4
    assert "http" not in text
    assert "no image" in text
    with pytest.raises(DataError, match=r"the report .* cannot be written"):
        both(photos).to_html(photos / "missing" / "page.html")


def test_the_command(photos, capsys):
    assert main([str(photos)]) == 0
    assert capsys.readouterr().out.startswith("train: 12 images\n")
    shutil.copy(photos / "train/ant/1.png", photos / "val/ant/copy.png")
    page, table = photos / "page.html", photos / "found.csv"
    assert main([str(photos), "--html", str(page), "--csv", str(table), "--no-near", "--manifest"]) == 1
    assert page.exists()
    assert table.exists()
    assert f"manifest of {photos / 'train'}: 12 files" in capsys.readouterr().out
    assert main([str(photos / "train")]) == 0
    assert main([str(photos), "--val", "test"]) == 2
    assert f"there is no directory {photos / 'test'}" in capsys.readouterr().err
