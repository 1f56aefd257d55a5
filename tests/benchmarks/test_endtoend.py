import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def endtoend(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("endtoend")
    sys.modules.pop("endtoend", None)


def test_the_tutorials_loop_and_fit_run_on_the_same_files(endtoend, capsys):
    endtoend.main(["--tiny", "--contenders", "tutorial,cvkit", "--workers", "0", "--epochs", "1"])
    said, left = capsys.readouterr()
    rows = [line.strip("| ").split(" | ") for line in said.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        [f"CIFAR-10, {name}", who] for name in ("cifar_quick", "resnet9") for who in ("tutorial", "cvkit")
    ]
    assert all(row[2].endswith(" s") and 0 <= float(row[4]) <= 1 for row in rows)
    assert "mnist is left out: it needs --mnist" in left


def test_who_is_not_installed_is_named(endtoend, capsys, monkeypatch):
    monkeypatch.setitem(endtoend.WANTS, "fastai", "no_such_module")
    endtoend.main(["--contenders", "fastai"])
    assert "fastai is left out: no_such_module is not installed" in capsys.readouterr().err


def test_a_name_that_is_none_is_refused(endtoend):
    with pytest.raises(
        SystemExit, match="--contenders got kears; expected some of tutorial,cvkit,lightning,fastai,keras"
    ):
        endtoend.main(["--contenders", "kears"])
