"""Label files in the encodings that occur: read right, or refused by name."""

import pytest
from PIL import Image

from cvkit.data import ParallelDataset, TableDataset
from cvkit.errors import ArgumentError, DataError

TEXT = "image,label\na.png,蚂蚁\nb.png,蜜蜂\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def table(root, data, **options):
    (root / "table.csv").write_bytes(data)
    return TableDataset(root / "table.csv", root=root / "images", **options)


def parallel(root, first, second, **options):
    (root / "labels" / "a.txt").write_bytes(first)
    (root / "labels" / "b.txt").write_bytes(second)
    return ParallelDataset(root / "images", root / "labels", "text", **options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf_8_and_what_a_mark_names_are_read_as_they_are(root, encoding):
    assert table(root, TEXT.encode(encoding)).classes == ["蚂蚁", "蜜蜂"]
    assert parallel(root, "蚂蚁".encode(encoding), "蜜蜂\r\n".encode(encoding)).classes == ["蚂蚁", "蜜蜂"]


def test_big_endian_utf_16_with_its_mark(root):
    assert table(root, b"\xfe\xff" + TEXT.encode("utf-16-be")).classes == ["蚂蚁", "蜜蜂"]


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-16-le", "utf-8-sig"])
def test_an_encoding_that_is_named_is_used(root, encoding):
    assert table(root, TEXT.encode(encoding), encoding=encoding).classes == ["蚂蚁", "蜜蜂"]
    made = parallel(root, "蚂蚁".encode(encoding), "蜜蜂".encode(encoding), encoding=encoding)
    assert made.classes == ["蚂蚁", "蜜蜂"]


def test_gbk_is_refused_with_what_it_would_read_as(root):
    with pytest.raises(DataError) as error:
        table(root, TEXT.encode("gbk"))
    message = str(error.value)
    assert message.startswith(
        f"the table {root}/table.csv is not in UTF-8\n  got: 'utf-8' codec can't decode byte 0xc2"
    )
    assert "gb18030 ('蚂蚁')" in message


def test_a_mark_that_says_otherwise_is_refused(root):
    with pytest.raises(DataError) as error:
        table(root, TEXT.encode("utf-8-sig"), encoding="gbk")
    assert str(error.value) == (
        f"the table {root}/table.csv is not in gbk\n  got: a byte order mark of UTF-8\n  expected: text in gbk\n"
        "  fix: leave encoding out: the mark says what the file is"
    )


def test_utf_16_without_a_mark_is_refused(root):
    with pytest.raises(DataError) as error:
        table(root, "image,label\na.png,x\n".encode("utf-16-le"))
    assert str(error.value) == (
        f"the table {root}/table.csv is no text as it stands\n"
        "  got: characters of number zero, as UTF-16 without a byte order mark has them\n"
        '  expected: a CSV file (UTF-8) with a header line\n  fix: pass encoding="utf-16-le"'
    )


def test_the_wrong_encoding_is_refused(root):
    with pytest.raises(DataError, match=r"table.csv is not in ascii\n") as error:
        table(root, "image,label\na.png,Größe\n".encode(), encoding="ascii")
    assert "fix: pass the encoding that it is in, or save it as UTF-8" in str(error.value)


@pytest.mark.parametrize("encoding", ["klingon", "hex", 7])
def test_what_is_no_encoding_is_refused(root, encoding):
    for make in (
        lambda: table(root, TEXT.encode(), encoding=encoding),
        lambda: parallel(root, b"a", b"b", encoding=encoding),
    ):
        with pytest.raises(ArgumentError, match="encoding cannot be used"):
            make()
