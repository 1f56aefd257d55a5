"""The table of what cvkit does: ninety rows, and each yes has a test or an example that is there."""

import re
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "compare.rst"
ROWS = re.findall(r"^   \* - (.+)\n     - (.+)\n     - (.+)\n     -(.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
FEATURES = [row for row in ROWS if row[0] != "Feature"]


def test_there_are_ninety_rows_counted_right():
    assert len({name for name, *_ in FEATURES}) == len(FEATURES) == 90
    found = Counter(answer for _, answer, *_ in FEATURES)
    assert set(found) == {"yes", "partly", "no"}
    assert f"In all: {found['yes']} yes, {found['partly']} partly, {found['no']} no." in PAGE.read_text("utf-8")


@pytest.mark.parametrize(("name", "answer", "how", "shown"), FEATURES, ids=[row[0] for row in FEATURES])
def test_what_is_claimed_is_shown_and_what_is_not_says_where_to_go(name, answer, how, shown):
    link = re.fullmatch(r" :download:`(.+) <\.\./((?:tests|examples)/.+)>`", shown)
    assert how
    assert bool(link) == (answer != "no")
    if link:
        path = PAGE.parents[1] / link[2]
        assert path.name == link[1]
        assert path.is_file()
