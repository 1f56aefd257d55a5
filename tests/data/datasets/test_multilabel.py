"""Several labels an image: from a cell or a text file to zeros and ones, trained with bce."""

import numpy as np
import pytest
import torch
from PIL import Image

import cvkit
from cvkit.data import Loader, ParallelDataset, TableDataset, concat, report
from cvkit.errors import ArgumentError, DataError

CELLS = ["sea|boat", "", "tree", "boat | tree"]
HOT = [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]  # boat, sea, tree


@pytest.fixture
def root(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(4):
        levels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def table(root, cells, **options):
    rows = [{"image": f"{number}.png", "label": cell} for number, cell in enumerate(cells)]
    return TableDataset(rows, root=root / "images", kind="multilabel", **options)


def texts(root, contents, **options):
    (root / "labels").mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (root / "labels" / f"{number}.txt").write_text(content, "utf-8")
    return ParallelDataset(root / "images", root / "labels", "multilabel", **options)


def test_a_cell_lists_the_classes_of_an_image(root):
    data = table(root, CELLS, separator="|")
    assert data.classes == ["boat", "sea", "tree"]
    assert data.targets == HOT
    target = data[0][1]
    assert target.dtype == torch.float32
    assert target.tolist() == HOT[0]
    assert table(root, [*CELLS[:1], float("nan"), *CELLS[2:]], separator="|").targets == HOT
    assert table(root, ["b a", "", "c", "a  c"], separator=" ").classes == ["a", "b", "c"]


def test_a_text_file_names_one_a_line_or_a_list(root):
    data = texts(root, ["sea\nboat\n", "", "tree", "boat\r\ntree"])
    assert (data.classes, data.targets) == (["boat", "sea", "tree"], HOT)
    assert data[3][1].tolist() == HOT[3]
    assert texts(root, ["sea, boat", "", "tree", "boat,tree"], separator=",").targets == HOT
    assert data.files(0) == [root / "images" / "0.png"]


def test_given_classes_govern(root):
    data = table(root, CELLS, separator="|", classes=["tree", "sea", "boat", "sky"])
    assert data.targets[0] == [0.0, 1.0, 1.0, 0.0]
    with pytest.raises(DataError) as error:
        table(root, CELLS, separator="|", classes=["tree", "boat"])
    assert str(error.value) == (
        "1 labels are no known class: sea\n  got: in the table, row 0\n  expected: only tree, boat\n"
        "  fix: mend or remove these labels, or add their class to the training set as well"
    )


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (
            CELLS,
            {},
            'it is not known what stands between two labels\n  got: kind="multilabel" without separator\n'
            "  expected: the characters between two labels of one cell\n  fix: pass separator='|', which 2 of 4 cells hold",
        ),
        (
            ["a|a", "a", "a", "a"],
            {"separator": "|"},
            "the table, row 0 lists labels that cannot be used\n  got: 'a' twice\n"
            "  expected: each label once, with '|' between two\n  fix: mend it, or name another separator",
        ),
        (
            ["a||b", "a", "a", "a"],
            {"separator": "|"},
            "the table, row 0 lists labels that cannot be used\n  got: an empty label in 'a||b'\n"
            "  expected: each label once, with '|' between two\n  fix: mend it, or name another separator",
        ),
        (
            ["", "", "", ""],
            {"separator": "|"},
            "no image has a label\n  got: 4 empty lists of labels\n"
            "  expected: at least one label, by which the classes are known\n  fix: name the classes: classes=[…]",
        ),
        (
            CELLS,
            {"separator": ""},
            "separator cannot be used\n  got: ''\n  expected: what stands between two labels\n  fix: separator=\"|\"",
        ),
    ],
)
def test_refusals(root, cells, options, message):
    with pytest.raises((ArgumentError, DataError)) as error:
        table(root, cells, **options)
    assert str(error.value) == message


def test_a_separator_belongs_to_several_labels(root):
    with pytest.raises(ArgumentError, match="separator is for several labels an image"):
        TableDataset([{"image": "0.png", "label": "a"}], root=root / "images", separator="|")


def test_they_train_with_bce_and_the_report_knows_them(root):
    data = table(root, CELLS, separator="|")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    loader = Loader(data, 2, shuffle=True, workers=0)
    result = cvkit.fit(model, loader, loader, epochs=2, loss="bce", metrics=["accuracy"], progress=False)
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(result.history.columns)
    assert report(data).looks[0].label == "boat, sea"
    assert concat(data, data).classes == data.classes
    assert len(concat(data, data)[5][1]) == 3
