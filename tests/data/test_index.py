import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvkit.data import FolderDataset, write_shapes
from cvkit.data.index import PathIndex


@given(st.lists(st.one_of(st.text(max_size=20), st.binary(max_size=8).map(os.fsdecode))))
def test_an_index_gives_back_the_strings(paths):
    index = PathIndex(paths)
    assert list(index) == paths
    assert index[:] == paths
    assert index[1:3] == paths[1:3]
    assert index[::-2] == paths[::-2]
    for i in range(-len(paths), len(paths)):
        assert index[i] == paths[i]
    assert list(pickle.loads(pickle.dumps(index))) == paths


@pytest.mark.parametrize("place", [2, -3, 10**12])
def test_an_index_out_of_range_is_an_index_error(place):
    with pytest.raises(IndexError, match=rf"^index {place} of 2 paths$"):
        PathIndex(["a", "b"])[place]


def test_an_index_is_a_sequence_like_any():
    index = PathIndex(["a", "", "ü"])
    assert (len(index), index[np.int64(2)], index.index("ü"), "" in index, "x" in index) == (3, "ü", 2, True, False)
    assert list(reversed(index)) == ["ü", "", "a"]
    assert list(PathIndex([])) == []
    assert repr(index) == "PathIndex(3: 'a', '', 'ü')"
    assert repr(PathIndex(list("abcd"))) == "PathIndex(4: 'a', 'b', 'c', …)"


def test_file_names_that_are_no_utf_8_are_read(tmp_path):
    root = write_shapes(tmp_path, 1, 8, classes=("circle",))
    name = os.fsencode(root / "circle") + b"/caf\xe9.png"
    try:
        os.rename(root / "circle" / "0000.png", name)
    except OSError:
        pytest.skip("this file system takes no such name")
    data = FolderDataset(root)
    assert data.paths[0] == "circle/caf\udce9.png"
    assert data[0][0].size == (8, 8)
    assert pickle.loads(pickle.dumps(data))[0][0].size == (8, 8)
    assert data.fingerprint == FolderDataset(root).fingerprint
    assert data.verify()


def test_two_hundred_thousand_paths_take_their_bytes_and_eight_each():
    paths = [f"n{index % 1000:08d}/n{index % 1000:08d}_{index}.JPEG" for index in range(200_000)]
    index = PathIndex(paths)
    size = sum(map(len, paths)) + 8 * len(paths)
    assert index.nbytes == size < 8_000_000
    assert len(pickle.dumps(index)) < size + 1_000
    assert (index[199_999], index[0]) == (paths[-1], paths[0])


def test_reading_leaves_nothing_in_memory():
    index = PathIndex([f"class/{number:06d}.jpg" for number in range(20_000)])
    list(index)
    tracemalloc.start()
    try:
        for _ in range(3):
            assert sum(map(len, index)) == 20_000 * 16
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1_000
