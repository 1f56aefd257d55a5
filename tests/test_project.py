"""What the project says of itself in several places is the same everywhere."""

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = REPOSITORY / ".github" / "workflows"

# an sdist holds the tests, but not what only the repository's host reads
in_repository = pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="not a checkout")


@in_repository
def test_every_python_that_is_promised_is_tested():
    promised = {one.rpartition(" ")[2] for one in PYPROJECT["project"]["classifiers"] if "Python :: 3." in one}
    matrix = re.search(r"python: \[(.*)\]", (WORKFLOWS / "ci.yml").read_text("utf-8")).group(1)
    assert promised == set(re.findall(r'"(3\.\d+)"', matrix))
    assert min(promised, key=lambda one: int(one[2:])) == PYPROJECT["project"]["requires-python"].removeprefix(">=")


@in_repository
def test_ci_runs_sessions_that_are_there():
    sessions = re.search(r"session: \[(.*)\]", (WORKFLOWS / "ci.yml").read_text("utf-8")).group(1).split(", ")
    noxfile = (REPOSITORY / "noxfile.py").read_text("utf-8")
    assert [name for name in sessions if f"def {name}(session" not in noxfile] == []


def test_the_sdist_takes_what_is_there():
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "LICENSE"} <= set(included)
    assert [name for name in included if not (REPOSITORY / name).exists()] == []


def test_the_package_of_malicious_releases_is_not_asked_for():
    names = [re.match(r"[\w-]+", one).group() for one in PYPROJECT["dependency-groups"]["bench"]]
    assert "pytorch-lightning" in names
    assert "lightning" not in names
    for path in (REPOSITORY / "benchmarks").rglob("*.py"):
        assert not re.search(r"^\s*(?:import|from) lightning\b", path.read_text("utf-8"), re.MULTILINE), path


@in_repository
def test_the_bug_report_asks_for_the_report():
    assert "python -m cvkit.report" in (REPOSITORY / ".github/ISSUE_TEMPLATE/bug_report.yml").read_text("utf-8")
