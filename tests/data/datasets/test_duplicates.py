"""The same file listed more than once, and files that are none to read."""

import os
import socket
import time

import pytest
from PIL import Image

from cvkit.data import FilenameDataset, FolderDataset, ParallelDataset, Subset, TableDataset, decode
from cvkit.data.datasets.duplicates import identity, repeats
from cvkit.errors import CvkitWarning, DataError, ImageError


@pytest.fixture
def root(tmp_path):
    """Two classes with two images each."""
    for level, name in enumerate(("a/1.png", "a/2.png", "b/3.png", "b/4.png")):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (level,) * 3).save(tmp_path / "root" / name)
    return tmp_path / "root"


def parallel(root):
    (root.parent / "labels/a").mkdir(parents=True, exist_ok=True)
    (root.parent / "labels/b").mkdir(exist_ok=True)
    for image in root.rglob("*.png"):
        (root.parent / "labels" / image.relative_to(root)).with_suffix(".txt").write_text(image.parent.name)
    return ParallelDataset(root, root.parent / "labels")


def table(root):
    paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    return TableDataset([{"image": path, "label": path[0]} for path in paths], root=root)


ADAPTERS = {
    "folder": FolderDataset,
    "filename": lambda root: FilenameDataset(root, r"(?P<label>.)\.png"),
    "parallel": parallel,
    "table": table,
}


@pytest.mark.parametrize("kind", ["folder", "parallel", "table"])
def test_an_image_that_a_symbolic_link_puts_into_two_classes_is_refused_by_name(kind, root):
    os.symlink("../a/1.png", root / "b" / "9.png")
    with pytest.raises(DataError) as caught:
        ADAPTERS[kind](root)
    where = "the table" if kind == "table" else root
    assert str(caught.value) == (
        f"{where} lists one image with two labels: a/1.png and b/9.png are the same file\n  got: 'a' and 'b'\n"
        "  expected: one label for each image\n  fix: remove the link that is wrong"
    )


def test_names_that_a_link_labels_otherwise_are_refused(root):
    os.symlink("1.png", root / "a" / "9.png")
    with pytest.raises(DataError, match=r"a/1.png and a/9.png are the same file\n  got: '1' and '9'\n"):
        ADAPTERS["filename"](root)


@pytest.mark.parametrize("kind", ["folder", "parallel", "table"])
def test_an_image_that_a_symbolic_link_lists_twice_in_its_class_is_told(kind, root):
    os.symlink("1.png", root / "a" / "9.png")
    with pytest.warns(
        CvkitWarning, match=r"lists 1 images more than once, e.g. a/1.png and a/9.png, which are the same file"
    ):
        data = ADAPTERS[kind](root)
    assert len(data) == 5


def test_the_warning_of_a_repeat_points_to_the_script(root):
    os.symlink("1.png", root / "a" / "9.png")
    for build in (lambda: FolderDataset(root), lambda: table(root)):
        with pytest.warns(CvkitWarning) as told:
            build()
        assert [one.filename for one in told] == [__file__]


def test_several_that_contradict_are_counted(root):
    for name in ("1", "2"):
        os.symlink(f"../a/{name}.png", root / "b" / f"9{name}.png")
    with pytest.raises(DataError, match="\n  got: 'a' and 'b'; and 1 more such images\n"):
        FolderDataset(root)


def test_two_links_to_one_file_outside_are_the_same_file(root, tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "out.png")
    for name in "ab":
        os.symlink(tmp_path / "out.png", root / name / "9.png")
    with pytest.raises(DataError, match=r"a/9.png and b/9.png are the same file"):
        FolderDataset(root, follow_links=True)


def test_a_folder_that_is_a_link_to_another_class_is_refused(root):
    os.symlink("a", root / "c")
    with pytest.raises(DataError, match=r"a/1.png and c/1.png are the same file\n  got: 'a' and 'c'; and 1 more"):
        FolderDataset(root, follow_links=True)


def test_masks_cannot_contradict_and_are_told(root, tmp_path):
    os.symlink("../a/1.png", root / "b" / "9.png")
    for image in root.rglob("*.png"):
        path = tmp_path / "masks" / image.relative_to(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4)).save(path)
    with pytest.warns(CvkitWarning, match="lists 1 images more than once"):
        ParallelDataset(root, tmp_path / "masks", "mask")


def test_one_label_file_for_many_images_is_no_repeat(root, tmp_path):
    (tmp_path / "labels/a").mkdir(parents=True)
    (tmp_path / "labels/b").mkdir()
    (tmp_path / "labels/a/1.txt").write_text("ant")
    for name in ("a/2", "b/3", "b/4"):
        os.symlink(tmp_path / "labels/a/1.txt", tmp_path / "labels" / f"{name}.txt")
    assert ParallelDataset(root, tmp_path / "labels").targets == [0] * 4


def test_hard_links_are_found_where_files_are_looked_at_anyway(root):
    os.link(root / "a/1.png", root / "b/9.png")
    data = FolderDataset(root)  # a stat for every file would be needed
    found = data.verify()
    assert not found
    assert found.bad == {"b/9.png": "the image b/9.png is the same file as a/1.png, which has another label"}
    assert str(found).splitlines()[0] == "5 files, 1 of them bad"
    with pytest.raises(DataError, match=r"a/1.png and b/9.png are the same file\n  got: 'a' and 'b'\n"):
        table(root)


def test_hard_links_within_a_class_are_told_by_verify(root):
    os.link(root / "a/1.png", root / "a/9.png")
    data = FolderDataset(root)
    with pytest.warns(
        CvkitWarning, match=r"^1 images are listed more than once, e.g. a/1.png and a/9.png, which are"
    ) as told:
        assert data.verify()
    assert told[0].filename == __file__
    assert all(Subset(data, [one, 3]).verify() for one in (0, 2))
    with pytest.warns(CvkitWarning, match=r"the table lists 1 images more than once, e.g. a/1.png and a/9.png"):
        table(root)


def test_a_sample_that_a_part_holds_twice_is_no_second_file(root):
    assert Subset(FolderDataset(root), [0, 0, 3]).verify().count == 3


def test_repeats_are_compared_by_label():
    assert repeats([1, 2, 1, 1, None, None], ["a", "a", "b", "a", "c", "d"]) == ([(0, 2)], [(0, 3)])


def test_the_identity_of_a_file_is_that_of_all_its_names(root):
    os.link(root / "a/1.png", root / "a/hard.png")
    os.symlink("1.png", root / "a/soft.png")
    assert (
        identity(root / "a/1.png")
        == identity(root / "a/hard.png")
        == identity(root / "a/soft.png")
        != identity(root / "a/2.png")
    )
    assert identity(root / "gone.png") is None
    assert identity("a\0b") is None


def test_listing_looks_at_no_file(root, monkeypatch):
    stats = []
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, *args, **named: (stats.append(str(path)), real(path, *args, **named))[1]
    )
    FolderDataset(root)
    assert [path for path in stats if path.endswith(".png")] == []


# pipes, sockets, devices


def pipe(path):
    os.mkfifo(path)
    return "a pipe (FIFO)"


def bound(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # the whole path may be longer than a socket's may be
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)
    return "a socket"


def device(path):
    os.symlink("/dev/zero", path)
    return "a character device"


SPECIAL = {"pipe": pipe, "socket": bound, "device": device}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.timeout(20)
def test_what_is_no_file_to_read_is_refused_when_it_is_listed(kind, root):
    said = SPECIAL[kind](root / "b" / "9.png")
    with pytest.raises(DataError) as caught:
        FolderDataset(root, follow_links=True)
    assert str(caught.value) == (
        f"{root}/b/9.png is no file that can be read to its end\n  got: {said}\n"
        "  expected: an image or a label in a file\n  fix: move it out of the directory"
    )
    with pytest.raises(DataError) as caught:
        TableDataset([{"image": "b/9.png", "label": "x"}], root=root, follow_links=True)
    assert str(caught.value) == (
        f"1 of 1 images in the table are no files that can be read to their end\n  got: b/9.png (row 0), {said}\n"
        "  expected: image files\n  fix: take these rows out"
    )


@pytest.mark.timeout(20)
def test_a_label_that_is_a_pipe_is_refused_when_it_is_listed(root, tmp_path):
    parallel(root)
    (tmp_path / "labels/a/1.txt").unlink()
    os.mkfifo(tmp_path / "labels/a/1.txt")
    with pytest.raises(DataError, match=r"labels/a/1\.txt is no file that can be read to its end\n  got: a pipe"):
        ParallelDataset(root, tmp_path / "labels")


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.timeout(20)
def test_what_is_no_file_to_read_is_refused_when_it_is_opened(kind, root):
    data = FolderDataset(root)
    (root / "b" / "3.png").unlink()
    said = SPECIAL[kind](root / "b" / "3.png").partition(" (")[0]
    start = time.monotonic()
    with pytest.raises(ImageError, match=rf"^cannot read the image {root}/b/3\.png\n  got: {said}"):
        decode(root / "b" / "3.png")
    with pytest.raises(ImageError, match=r"^sample 2: cannot read the image"):
        data[2]
    with pytest.raises(ImageError, match=r"^sample 2: cannot read the image"):
        data.size(2)
    assert list(data.verify().bad) == ["b/3.png"]
    assert time.monotonic() - start < 15


def test_a_pipe_that_is_not_listed_harms_nobody(root):
    os.mkfifo(root / "b" / "notes.txt")
    os.mkfifo(root / "b" / ".hidden.png")
    assert len(FolderDataset(root)) == 4
