"""The chores: ``nox -s tests``, ``lint``, ``types``, ``docs``, ``examples``, ``coverage``, ``kills``.

Also ``ranks``, ``links`` and ``gpu``.
"""

import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
# One thread a process: two test processes with a thread pool each would only get in each other's way.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests"]


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def tests(session: nox.Session) -> None:
    """Runs the test suite; arguments after ``--`` go to pytest."""
    session.install(".", *_group("test"))
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2"]), env=ONE_THREAD)


@nox.session
def coverage(session: nox.Session) -> None:
    """Runs the test suite and prints which lines and branches of the library it reaches, and their share."""
    session.install(".", *_group("coverage"))
    measured = ["--cov=cvkit", "--cov-report=term:skip-covered"]
    session.run("python", "-m", "pytest", *measured, *(session.posargs or ["-n", "2"]), env=ONE_THREAD)


@nox.session
def kills(session: nox.Session) -> None:
    """Kills runs at every step, and while they save, and continues them; takes some minutes."""
    session.install(".", *_group("test"))
    only = ["-m", "slow", "tests/training/test_kills.py"]
    session.run("python", "-m", "pytest", *only, *(session.posargs or ["-n", "2"]), env=ONE_THREAD)


@nox.session
def gpu(session: nox.Session) -> None:
    """Checks and measures everything on this machine's GPU, in under nine minutes; arguments after ``--`` go to the script."""
    session.install(".")
    session.run("python", "benchmarks/gpu.py", *session.posargs)


@nox.session
def ranks(session: nox.Session) -> None:
    """Trains on two, three and four processes and compares with one; takes some minutes."""
    session.install(".", *_group("test"))
    only = ["-m", "slow", "tests/training/test_distributed.py"]
    session.run("python", "-m", "pytest", *only, *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks style and formatting."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Checks types, strictly: the library, the examples, and a user's script."""
    session.install("-e", ".", *_group("types"))
    session.run("mypy", "--strict", "src/cvkit", *map(str, _examples()), "tests/typing/user.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation into docs/_build, warnings being errors."""
    session.install(".", *_group("docs"))
    build = ["python", "-m", "sphinx", "-W", "--keep-going", "-n", "-b", "html"]
    session.run(*build, "docs", "docs/_build/html")
    session.run(*build, "-D", "language=zh_CN", "docs", "docs/_build/html/zh")


@nox.session
def links(session: nox.Session) -> None:
    """Checks the links of the documentation, those into torch's, NumPy's and Python's too; this needs the network."""
    session.install(".", *_group("docs"))
    session.run(
        *("python", "-m", "sphinx", "-n", "-b", "linkcheck", "docs", "docs/_build/links"),
        env={"CVKIT_DOCS_ONLINE": "1"},
    )


@nox.session
def examples(session: nox.Session) -> None:
    """Runs every example in an empty directory of its own, as a reader would."""
    session.install(".[plots]")
    for example in _examples():
        with tempfile.TemporaryDirectory() as empty, session.chdir(empty):
            session.run("python", str(ROOT / example), env=ONE_THREAD)


def _examples() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / "examples").glob("*.py"))
