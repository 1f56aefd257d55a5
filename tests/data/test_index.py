import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvkit.data.index import PathIndex


@given(st.lists(st.text(max_size=20)))
def test_an_index_gives_back_the_strings(paths):
    index = PathIndex(paths)
    assert list(index) == paths
    assert index[:] == paths
    assert index[1:3] == paths[1:3]
    for i in range(-len(paths), len(paths)):
        assert index[i] == paths[i]


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexError, match="index 2 of 2 paths"):
        PathIndex(["a", "b"])[2]
