from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cvkit.data import TableDataset
from cvkit.data.datasets.table import _inside
from cvkit.errors import ArgumentError, DataError, UnknownNameError


@pytest.fixture
def root(tmp_path):
    """A directory with four images."""
    for name in ("a.png", "b.png", "deep/c.png", "d, e.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "root" / name)
    return tmp_path / "root"


def table(root, content, **options):
    path = root / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TableDataset(path, **options)


def rows(*labels):
    return [
        {"image": name, "label": label} for name, label in zip(("a.png", "b.png", "deep/c.png"), labels, strict=False)
    ]


# what a table looks like


@pytest.mark.parametrize(
    "content",
    [
        "image,label\na.png,cat\nb.png,dog\n",
        "image,label\na.png,cat\nb.png,dog",
        "image;label\na.png;cat\nb.png;dog\n",
        "image\tlabel\na.png\tcat\nb.png\tdog\n",
        "label,image\ncat,a.png\ndog,b.png\n",
        "id,image,label,note\n1,a.png,cat,\n2,b.png,dog,x\n",
        "\ufeffimage,label\r\na.png,cat\r\nb.png,dog\r\n",
        '"image","label"\n"a.png","cat"\n"b.png","dog"\n',
        "image,label\n a.png , cat \n\nb.png,dog\n\n",
        'image,label,note\na.png,cat,"two\nlines"\nb.png,dog,"a ""word"""\n',
        "image,label\ra.png,cat\rb.png,dog\r",
    ],
    ids=[
        "plain",
        "no last newline",
        "semicolon",
        "tab",
        "turned",
        "more",
        "BOM",
        "quotes",
        "blanks",
        "newline",
        "old Mac",
    ],
)
def test_a_table_may_be_written_in_many_ways(root, content):
    data = table(root, content)
    assert list(data.paths) == ["a.png", "b.png"]
    assert (data.classes, data.targets) == (["cat", "dog"], [0, 1])
    assert data.root == root


def test_quoted_cells_may_hold_the_delimiter(root):
    data = table(root, 'image,label\n"d, e.png","cat, black"\n')
    assert (list(data.paths), data.classes) == (["d, e.png"], ["cat, black"])


def test_other_columns_may_be_named(root):
    data = table(root, "file;breed\na.png;pug\n", image="file", label="breed")
    assert (list(data.paths), data.classes) == (["a.png"], ["pug"])


def test_rows_and_data_frames_do_as_well(root):
    class Frame:
        def __init__(self, records):
            self.records = records

        def to_dict(self, orient):
            assert orient == "records"
            return self.records

    class Polars:
        def __init__(self, records):
            self.records = records

        def to_dict(self, *, as_series=True):
            raise NotImplementedError

        def to_dicts(self):
            return self.records

    found = rows("cat", "dog", "cat")
    for one in (found, tuple(found), iter(found), Frame(found), Polars(found)):
        data = TableDataset(one, root=root)
        assert (list(data.paths), data.targets) == (["a.png", "b.png", "deep/c.png"], [0, 1, 0])
    assert TableDataset([{"image": root / "a.png", "label": "x"}], root=root).paths[0] == "a.png"


def test_without_a_root_paths_start_at_the_table_or_at_the_working_directory(root, monkeypatch):
    monkeypatch.chdir(root / "deep")
    assert list(TableDataset([{"image": "c.png", "label": "x"}]).paths) == ["c.png"]
    (root / "table.csv").write_text("image,label\nc.png,x\n")
    assert len(TableDataset(root / "table.csv", root=root / "deep")) == 1
    assert len(TableDataset("../table.csv", root=".")) == 1


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ((10, 9, 2), ["2", "9", "10"]),
        (("10", "9", "2"), ["2", "9", "10"]),
        ((3.0, 1.0, 1.0), ["1", "3"]),
        ((np.float32(3), np.int64(1), 1), ["1", "3"]),
        ((0.5, 1, 2), ["0.5", "1", "2"]),
        ((True, False, True), ["False", "True"]),
        (("b", "C", "a"), ["C", "a", "b"]),
        (("10", "9", "x"), ["10", "9", "x"]),
        (("²", "10", "9"), ["10", "9", "²"]),
        (("9" * 5000, "10", "8"), ["10", "8", "9" * 5000]),
    ],
)
def test_labels_are_names_and_numbers_are_sorted_as_such(root, labels, classes):
    data = TableDataset(rows(*labels), root=root)
    assert data.classes == classes
    assert [type(target) for target in data.targets] == [int] * 3
    assert data[0][1] == data.targets[0]


def test_the_training_classes_govern(root):
    assert table(root, "image,label\na.png,cat\nb.png,dog\n", classes=["dog", "fox", "cat"]).targets == [2, 0]
    with pytest.raises(DataError) as caught:
        table(root, "image,label\na.png,cat\nb.png,dog\ndeep/c.png,emu\n", classes=["dog"])
    assert str(caught.value) == (
        f"2 labels are no known class: cat, emu\n  got: in {root}/table.csv, line 2, {root}/table.csv, line 4\n"
        "  expected: only dog\n  fix: mend or remove these labels, or add their class to the training set as well"
    )


# labels that are values


def test_one_column_of_values_is_a_number_an_image(root):
    data = table(root, "image,age\na.png,3.5\nb.png,-1e2\n", label="age", kind="value")
    assert (data.classes, data.targets) == (None, [3.5, -100.0])
    target = data[1][1]
    assert (target.dtype, tuple(target.shape), target.item()) == (torch.float32, (), -100.0)


def test_several_columns_of_values_are_a_row_an_image(root):
    data = table(root, "image,cat,dog\na.png,1,0\nb.png,1,1\n", label=["cat", "dog"], kind="value")
    assert (data.classes, data.targets) == (["cat", "dog"], [[1.0, 0.0], [1.0, 1.0]])
    assert (data[0][1].dtype, data[0][1].tolist()) == (torch.float32, [1.0, 0.0])
    one = table(root, "image,cat\na.png,1\n", label=["cat"], kind="value")
    assert (one.classes, tuple(one[0][1].shape)) == (["cat"], (1,))
    named = table(root, "image,c,d\na.png,1,0\n", label=["c", "d"], kind="value", classes=["cat", "dog"])
    assert named.classes == ["cat", "dog"]


@pytest.mark.parametrize("cell", ["many", "1;2", "nan", "inf", "-inf", "1e39", "1e999"])
def test_a_value_that_is_no_finite_number_is_named(root, cell):
    with pytest.raises(DataError) as caught:
        table(root, f"image,age\na.png,1\nb.png,{cell}\n", label="age", kind="value")
    assert str(caught.value) == (
        f"{root}/table.csv, line 3: age is no number\n  got: {cell!r}\n  expected: a finite number of 32 bits\n"
        '  fix: mend the cell, or pass kind="class" if the labels are names'
    )


def test_options_that_do_not_go_together_are_refused(root):
    with pytest.raises(UnknownNameError, match=r"^unknown kind 'values'\n.*\n  fix: did you mean 'value'\?$"):
        TableDataset(rows(1), root=root, kind="values")
    with pytest.raises(ArgumentError) as caught:
        TableDataset(rows(1), root=root, label=["a", "b"])
    assert str(caught.value) == (
        "several label columns hold no one class\n  got: label=['a', 'b']\n  expected: one column, or kind=\"value\"\n"
        '  fix: pass kind="value" for several numbers an image, as for loss="bce"'
    )
    with pytest.raises(ArgumentError, match=r"^label names no column\n  got: label=\[\]\n"):
        TableDataset(rows(1), root=root, label=[], kind="value")
    with pytest.raises(ArgumentError) as caught:
        TableDataset(rows(1), root=root, kind="value", classes=["a", "b"])
    assert str(caught.value) == (
        "classes and label columns do not belong together\n  got: 2 classes, 1 columns\n  expected: one name a column\n"
        "  fix: leave classes out: the columns' names are taken"
    )


# what is wrong with a table


@pytest.mark.parametrize("given", [7, None, "rows", ["a.png"], [("a.png", "cat")], {"image": ["a.png"]}])
def test_what_is_no_table_is_refused(root, given):
    if given == "rows":
        with pytest.raises(DataError, match=r"^the table rows cannot be read\n  got: FileNotFoundError: "):
            TableDataset(given)
        return
    with pytest.raises(ArgumentError) as caught:
        TableDataset(given, root=root)
    assert str(caught.value) == (
        f"table cannot be used\n  got: {type(given).__name__}\n"
        "  expected: the path of a CSV file, a data frame, or rows as mappings\n"
        '  fix: e.g. [{"image": "a.jpg", "label": "cat"}, …]'
    )


@pytest.mark.parametrize("content", ["", "image,label\n", "\ufeff", "\n\n"])
def test_an_empty_table_is_refused(root, content):
    with pytest.raises(DataError) as caught:
        table(root, content)
    assert str(caught.value) == (
        f"the table {root}/table.csv is empty\n  got: no rows\n  expected: a header and one row an image\n  fix: fill it"
    )
    with pytest.raises(DataError, match=r"^the table is empty\n  got: no rows\n"):
        TableDataset([], root=root)


def test_another_encoding_is_refused(root):
    with pytest.raises(DataError) as caught:
        table(root, "image,label\na.png,Käfer\n".encode("latin-1"))
    assert str(caught.value) == (
        f"the table {root}/table.csv is not in UTF-8\n"
        "  got: 'utf-8' codec can't decode byte 0xe4 in position 19: invalid continuation byte\n"
        "  expected: a CSV file (UTF-8) with a header line\n"
        "  fix: pass encoding=… with the one in which it reads right: gb18030 ('K鋐er'), big5 ('K輎er'), shift_jis ('K臟er'), cp1252 ('Käfer'); or save "
        "it as UTF-8"
    )


@pytest.mark.parametrize(
    ("options", "missing"),
    [({"image": "path"}, "'path'"), ({"label": "class"}, "'class'"), ({"image": "x", "label": "y"}, "'x', 'y'")],
)
def test_a_missing_column_is_named_with_those_there_are(root, options, missing):
    with pytest.raises(DataError) as caught:
        table(root, "image,label,id\na.png,cat,1\n", **options)
    assert str(caught.value) == (
        f"{root}/table.csv has no column {missing}\n  got: columns image, label, id\n"
        "  expected: the columns that image= and label= name\n"
        "  fix: pass image='image', label='label', or whichever they are"
    )


def test_a_column_that_comes_twice_is_refused(root):
    with pytest.raises(DataError) as caught:
        table(root, "image,label,label\na.png,cat,dog\n")
    assert str(caught.value) == (
        f"the header of {root}/table.csv names columns twice: label\n  got: columns image, label, label\n"
        "  expected: each column once, so that it is known which holds the labels\n  fix: rename or remove one of them"
    )


@pytest.mark.parametrize(("line", "cells"), [("b.png", 1), ("b.png,dog,3", 3), (" ", 1)])
def test_a_line_with_another_number_of_cells_is_named(root, line, cells):
    with pytest.raises(DataError) as caught:
        table(root, f"image,label\na.png,cat\n{line}\n")
    assert str(caught.value) == (
        f"{root}/table.csv, line 3 has another number of cells than the header\n  got: {cells} cells\n"
        "  expected: 2: image, label\n  fix: mend the line; a cell that holds the delimiter goes into quotes"
    )


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest(root):
    with pytest.raises(DataError) as caught:
        table(root, 'image,label\na.png,cat\nb.png,"dog\ndeep/c.png,cat\n')
    assert str(caught.value) == (
        f"{root}/table.csv cannot be read from line 3 on\n  got: unexpected end of data\n"
        '  expected: cells parted by commas, semicolons or tabs; quotes are closed, and doubled ("") inside a cell\n'
        "  fix: mend the line; it may open a quote that is never closed"
    )
    with pytest.raises(DataError, match=r"cannot be read from line 2 on\n  got: field larger than field limit"):
        table(root, f"image,label\na.png,{'x' * 140_000}\n")


@pytest.mark.parametrize("value", ["", "  ", None, float("nan"), np.float32("nan"), np.float64("nan")])
@pytest.mark.parametrize("column", ["image", "label"])
def test_an_empty_cell_is_named(root, column, value):
    found = rows("cat", "dog")
    found[1][column] = value
    with pytest.raises(DataError) as caught:
        TableDataset(found, root=root)
    assert str(caught.value) == (
        f"the table, row 1 has no {column}\n  got: an empty cell\n  expected: a value\n"
        "  fix: fill it in, or take the row out"
    )


@pytest.mark.parametrize("value", [b"cat", [1, 2], ("a",), {"a": 1}, np.array([1, 2]), torch.tensor(3)])
def test_a_cell_that_is_no_single_value_is_refused(root, value):
    with pytest.raises(DataError) as caught:
        TableDataset(rows("a", value), root=root)
    assert str(caught.value) == (
        f"the table, row 1: label is no single value\n  got: {type(value).__name__}: {value!r}\n"
        "  expected: a text or a number\n"
        '  fix: take its text or number out; several numbers an image go into columns: label=[…], kind="value"'
    )


def test_rows_of_nothing_have_no_columns(root):
    with pytest.raises(DataError) as caught:
        TableDataset([{}], root=root)
    assert str(caught.value) == (
        "the table has no column 'image', 'label'\n  got: columns \n"
        "  expected: the columns that image= and label= name\n  fix: see how the table was made"
    )


def test_the_gaps_of_data_frames_are_empty_cells(root):
    for name in ("NAType", "NaTType"):
        with pytest.raises(DataError, match=r"^the table, row 0 has no label\n"):
            TableDataset(rows(type(name, (), {})()), root=root)


def test_a_row_that_lacks_the_column_is_named(root):
    with pytest.raises(DataError, match=r"^the table, row 1 has no label\n"):
        TableDataset([*rows("cat"), {"image": "b.png"}], root=root)


def test_images_that_are_not_there_are_listed_with_their_lines(root):
    with pytest.raises(DataError) as caught:
        table(root, "image,label\na.png,cat\nx.png,cat\ndeep,dog\n")
    assert str(caught.value) == (
        f"2 of 3 images in {root}/table.csv are not there\n  got: x.png (line 3), deep (line 4)\n"
        f"  expected: files under {root}\n  fix: pass the directory that the paths are relative to: root=…"
    )
    with pytest.raises(DataError, match=r"got: 0\.png \(row 0\), .*, 4\.png \(row 4\) and 3 more\n"):
        TableDataset([{"image": f"{i}.png", "label": "x"} for i in range(8)], root=root)


@pytest.mark.parametrize("again", ["a.png", "./a.png", "deep/../a.png"])
def test_an_image_that_comes_twice_is_named(root, again):
    with pytest.raises(DataError) as caught:
        table(root, f"image,label\na.png,cat\nb.png,cat\n{again},dog\n")
    assert str(caught.value) == (
        f"{root}/table.csv lists a.png twice\n  got: line 2 and line 4\n"
        "  expected: each image once, so that none counts twice\n  fix: take one of the rows out"
    )


# paths stay under the root


def test_a_path_under_the_root_may_be_whole_or_roundabout(root):
    assert list(table(root, f"image,label\n{root}/a.png,x\ndeep/../b.png,x\n").paths) == ["a.png", "b.png"]


@pytest.mark.parametrize("path", ["../x.png", "deep/../../x.png", "/etc/hostname"])
@pytest.mark.parametrize("follow_links", [False, True])
def test_a_path_that_leads_out_of_the_root_is_refused(root, path, follow_links):
    Image.new("RGB", (4, 4)).save(root.parent / "x.png")
    with pytest.raises(DataError) as caught:
        TableDataset([{"image": path, "label": "x"}], root=root, follow_links=follow_links)
    assert str(caught.value) == (
        f"the path {path} leads out of {root}\n  got: {(root / path).resolve()}\n  expected: a path under {root}\n"
        "  fix: pass the directory above all images as root, or follow_links=True where a link in it is meant"
    )


@pytest.mark.parametrize("name", ["linked.png", "folder/x.png"])
def test_a_link_out_of_the_root_is_refused_unless_asked_for(root, name):
    (root.parent / "out").mkdir()
    Image.new("RGB", (4, 4)).save(root.parent / "out" / "x.png")
    (root / "linked.png").symlink_to(root.parent / "out" / "x.png")
    (root / "folder").symlink_to(root.parent / "out")
    with pytest.raises(DataError, match=rf"^the path {name} leads out of .*\n  got: .*/out/x\.png\n"):
        TableDataset([{"image": name, "label": "x"}], root=root)
    data = TableDataset([{"image": name, "label": "x"}], root=root, follow_links=True)
    assert (list(data.paths), data[0][0].size) == ([name], (4, 4))


def test_a_root_that_is_a_link_itself_is_the_users_choice(root):
    (root.parent / "here").symlink_to(root)
    assert len(TableDataset(rows("x", "y"), root=root.parent / "here")) == 2


@pytest.mark.parametrize("path", ["a\0.png", "\ud800.png"])
def test_what_is_no_path_is_refused(root, path):
    with pytest.raises(
        DataError, match=r"^.* is no path\n  got: .*\n  expected: a file under .*\n  fix: mend the cell$"
    ):
        TableDataset([{"image": path, "label": "x"}], root=root)
    with pytest.raises(DataError, match=r"^1 of 1 images in the table are not there\n"):
        TableDataset([{"image": path, "label": "x"}], root=root, follow_links=True)


def test_a_link_to_itself_is_refused(root):
    (root / "loop.png").symlink_to("loop.png")
    with pytest.raises(DataError):
        TableDataset([{"image": "loop.png", "label": "x"}], root=root)


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "/"]), max_size=6))
def test_no_path_escapes(parts):
    root = Path("/some/where")
    try:
        found = _inside(root, str(root), "/".join(parts) or ".", follow_links=False)
    except DataError:
        return
    assert (root / found).resolve().is_relative_to(root)
    assert ".." not in Path(found).parts
