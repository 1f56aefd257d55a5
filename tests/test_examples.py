"""Every example runs offline in an empty directory, and once more over its own results."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
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


def test_the_quickstart_continues_where_it_ended_and_learns(tmp_path):
    quickstart = EXAMPLES[[path.stem for path in EXAMPLES].index("quickstart")]
    run(quickstart, tmp_path, "--epochs", "2", "--out", "here")
    done = run(quickstart, tmp_path, "--epochs", "5", "--out", "here")
    rows = [line.split() for line in done.stdout.splitlines()[:6]]
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5"]
    assert float(table[-1]["val_accuracy"]) > 0.9
    assert (tmp_path / "here" / "best.pt").is_file()
    assert list((tmp_path / "here").glob("**/events.out.tfevents.*"))
