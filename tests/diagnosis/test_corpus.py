"""Each mistake is named by its code; its twin, and every other sound program, is left in peace."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the corpus is in files of its own beside this one

from corpus import MISTAKES, SOUND, codes_of

for file in sorted(Path(__file__).parent.glob("*.py")):
    if re.match("mistakes_|sound_", file.name):
        __import__(file.stem)

from cvkit.diagnosis import TABLE  # noqa: E402
from cvkit.diagnosis.examine import Examination  # noqa: E402


@pytest.fixture(autouse=True)
def no_check_fails(monkeypatch):
    """A check that fails says nothing to a user; here it fails the test."""
    failed = {}
    run = Examination.run

    def watched(self):
        report = run(self)
        failed.update(report.failed)
        return report

    monkeypatch.setattr(Examination, "run", watched)
    yield
    assert failed == {}


@pytest.mark.parametrize("one", MISTAKES, ids=lambda one: one.name)
def test_a_mistake_is_named(one):
    found = codes_of(one.build(True))
    assert set(found) & set(one.codes), found


@pytest.mark.parametrize("one", MISTAKES, ids=lambda one: one.name)
def test_nothing_is_said_of_its_twin(one):
    assert codes_of(one.build(False)) == []


@pytest.mark.parametrize("one", SOUND, ids=lambda one: one.name)
def test_nothing_is_said_of_a_sound_program(one):
    assert codes_of(one.build()) == []


def test_the_codes_of_the_corpus_are_in_the_table():
    assert {code for one in MISTAKES for code in one.codes} <= set(TABLE)
