"""Every example runs offline in an empty directory, and once more over its own results."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(HERE.glob("*.py"))
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def run(example, directory, *options):
    done = subprocess.run(
        [sys.executable, str(example), *options],
        cwd=directory,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return done


def test_there_are_examples():
    assert "quickstart" in [path.stem for path in EXAMPLES]


@each_example
def test_an_example_runs_and_runs_again(example, tmp_path):
    first = run(example, tmp_path, "--size", "16", "--epochs", "1")
    again = run(example, tmp_path, "--size", "16", "--epochs", "1")
    assert first.stdout
    assert again.stdout == first.stdout


@each_example
def test_an_example_is_short_and_uses_public_names_only(example):
    text = example.read_text("utf-8")
    assert len(text.splitlines()) < 60
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cvkit"):
            room = __import__(node.module or "", fromlist=["__all__"])
            assert [alias.name for alias in node.names if alias.name not in room.__all__] == []


def rows(done):
    """The history that an example has printed."""
    names, *lines = [line.split() for line in done.stdout.splitlines() if ":" not in line]
    return [dict(zip(names, line, strict=True)) for line in lines]


def test_the_quickstart_learns_its_pictures_and_shows_it(tmp_path):
    table = rows(run(HERE / "quickstart.py", tmp_path))
    assert float(table[-1]["val_accuracy"]) > 0.9
    assert list((tmp_path / "runs" / "quickstart").glob("**/events.out.tfevents.*"))


def test_the_quickstart_continues_where_it_ended(tmp_path):
    options = ("--size", "16", "--out", "here")
    run(HERE / "quickstart.py", tmp_path, *options, "--epochs", "1")
    table = rows(run(HERE / "quickstart.py", tmp_path, *options, "--epochs", "2"))
    assert [row["epoch"] for row in table] == ["1", "2"]
    assert (tmp_path / "here" / "best.pt").is_file()
