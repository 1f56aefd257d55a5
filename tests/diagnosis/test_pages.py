"""The error index: each code has a page, and the programs of each page do what the page says."""

import importlib.util
import warnings
from pathlib import Path

import pytest

from cvkit.diagnosis import TABLE

DOCS = Path(__file__).parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("make_error_pages", DOCS / "make_error_pages.py")
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

WITH_PROGRAMS = sorted(code for code in TABLE if pages.programs(code) is not None)


@pytest.mark.parametrize("code", sorted(TABLE))
def test_each_code_has_a_page_in_the_index(code):
    assert (DOCS / "errors" / f"{code}.rst").read_text("utf-8").startswith(f"{code}: {TABLE[code].title}\n")
    assert f"   {code}\n" in (DOCS / "errors" / "index.rst").read_text("utf-8")


@pytest.mark.parametrize("code", WITH_PROGRAMS)
def test_the_bad_program_is_named_and_the_good_one_is_not(code):
    bad, good = pages.programs(code)
    assert code in [found for found, _ in pages.says(bad, f"{code}_bad.py")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pages.says(good, f"{code}_good.py") == []
