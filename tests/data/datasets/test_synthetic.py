import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvkit.data import FolderDataset, write_shapes
from cvkit.errors import ArgumentError, UnknownNameError

ALL = ("circle", "cross", "ring", "square", "star", "triangle")


def contents(root):
    return {
        path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


def test_shapes_are_the_same_bytes_for_the_same_seed(tmp_path):
    one, two, other = (write_shapes(tmp_path / str(i), 2, 16, seed=seed) for i, seed in enumerate((0, 0, 1)))
    name = "circle/0001.png"
    assert (one / name).read_bytes() == (two / name).read_bytes() != (other / name).read_bytes()


def test_every_shape_can_be_drawn(tmp_path):
    classes = ("circle", "cross", "ring", "square", "star", "triangle")
    data = FolderDataset(write_shapes(tmp_path, 1, 24, classes=classes))
    assert data.classes == list(classes)
    assert all(data[i][0].size == (24, 24) for i in range(6))


def test_wrong_shapes_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown shape 'sircle'.*\n.*\n  fix: did you mean 'circle'"):
        write_shapes(tmp_path, classes=("sircle",))
    with pytest.raises(UnknownNameError, match="unknown layout 'tree'"):
        write_shapes(tmp_path, layout="tree")
    with pytest.raises(ArgumentError, match="write_shapes cannot draw this"):
        write_shapes(tmp_path, per_class=0)


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"per_class": 0}, "per_class=0, size=32, classes=('circle', 'square', 'triangle')"),
        ({"size": 7}, "per_class=50, size=7, classes=('circle', 'square', 'triangle')"),
        ({"classes": ()}, "per_class=50, size=32, classes=()"),
        ({"classes": ["ring", "ring"]}, "per_class=50, size=32, classes=('ring', 'ring')"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, options, got):
    with pytest.raises(ArgumentError) as caught:
        write_shapes(tmp_path / "new", **options)
    assert str(caught.value) == (
        f"write_shapes cannot draw this\n  got: {got}\n"
        "  expected: at least 1 image a class, of at least 8 pixels, and classes that differ\n"
        "  fix: write_shapes(root, per_class=50, size=32)"
    )
    assert not (tmp_path / "new").exists()


def test_the_layouts_lay_the_same_images_out(tmp_path):
    for layout in ("folder", "parallel", "mask"):
        assert write_shapes(tmp_path / layout, 2, 16, layout=layout, classes=("ring", "cross")) == tmp_path / layout
    folder, parallel, mask = (contents(tmp_path / layout) for layout in ("folder", "parallel", "mask"))
    assert list(folder) == ["cross/0000.png", "cross/0001.png", "ring/0000.png", "ring/0001.png"]
    stems = ["0000", "0001", "0002", "0003"]
    assert list(parallel) == [*(f"images/{stem}.png" for stem in stems), *(f"labels/{stem}.txt" for stem in stems)]
    assert list(mask) == [*(f"images/{stem}.png" for stem in stems), *(f"masks/{stem}.png" for stem in stems)]
    assert [parallel[f"images/{stem}.png"] for stem in stems] == [mask[f"images/{stem}.png"] for stem in stems]
    assert [parallel[f"images/{stem}.png"] for stem in stems] == [
        folder[name] for name in ("ring/0000.png", "cross/0000.png", "ring/0001.png", "cross/0001.png")
    ]
    labels = [(tmp_path / "parallel" / "labels" / f"{stem}.txt").read_bytes() for stem in stems]
    assert labels == [b"ring\n", b"cross\n"] * 2


def test_the_same_call_writes_the_same_bytes_and_more_of_them_begin_alike(tmp_path):
    few, again, more = (
        contents(write_shapes(tmp_path / str(i), count, 16, layout="mask")) for i, count in enumerate((2, 2, 3))
    )
    assert few == again
    assert few.items() < more.items()
    assert few.keys() == contents(write_shapes(tmp_path / "other", 2, 16, layout="mask", seed=1)).keys()


@pytest.mark.parametrize("place", range(6))
def test_a_mask_tells_where_its_shape_is(tmp_path, place):
    write_shapes(tmp_path, 3, 64, layout="mask", classes=ALL)
    for number in range(3):
        stem = f"{number * 6 + place:04d}.png"
        mask = Image.open(tmp_path / "masks" / stem)
        image = np.asarray(Image.open(tmp_path / "images" / stem)).astype(float)
        values = np.asarray(mask)
        assert (mask.mode, mask.size) == ("L", (64, 64))
        assert set(np.unique(values)) == {0, place + 1}
        inside, outside = (image[values == value].mean(0) for value in (place + 1, 0))
        assert abs(inside.sum() - outside.sum()) > 150
        clean = image[values == place + 1].std(0).max(), image[values == 0].std(0).max()
        assert max(clean) < 30  # noise, and the edge's mixed pixels
