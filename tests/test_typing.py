"""The types as a user's own mypy sees them: through the installed package, with no configuration of cvkit's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"
MARK = re.compile(r"# error: ([\w, -]+)$")
SAID = re.compile(r"^(\w+)\.py:(\d+): error: (.*?)(?:  \[([\w-]+)\])?$", re.MULTILINE)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Every error that mypy finds, as ``(file, line, code, message)``; one run for both files."""
    cache = tmp_path_factory.mktemp("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "--no-error-summary"]
    done = subprocess.run([*command, "user.py", "wrong.py"], cwd=HERE, capture_output=True, text=True)
    assert done.stderr == ""
    return [(name, int(line), code, text) for name, line, text, code in SAID.findall(done.stdout)]


def test_a_users_script_is_clean_under_strict(said):
    assert [one for one in said if one[0] != "wrong"] == []


def test_a_users_mistakes_are_refused_each_on_its_line(said):
    expected = {
        (number, code.strip())
        for number, line in enumerate((HERE / "wrong.py").read_text("utf-8").splitlines(), 1)
        if (mark := MARK.search(line))
        for code in mark.group(1).split(",")
    }
    assert {(line, code) for name, line, code, _ in said if name == "wrong"} == expected
    assert len(expected) > 15


def test_a_misspelt_argument_is_answered_with_its_name(said):
    assert any('Unexpected keyword argument "epoch" for "fit"' in text for _, _, _, text in said)
