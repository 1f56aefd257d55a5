"""What README and documentation say is so: every block of Python runs, the two commands are what CI runs."""

import os
import re
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

import cvkit

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    *(
        page
        for page in sorted((REPOSITORY / "docs").rglob("*.rst"))
        if not {"generated", "errors"}
        & set(page.parts)  # made by the build; with programs that fail, run by tests/diagnosis
    ),
]

# The program at the top of README and index is for real photographs, a GPU and a downloaded model. Here it runs on little
# images, with a little model and without the net; nothing else of it is changed.
SMALLER = {
    "size=224, batch_size=64": "size=32, batch_size=8",
    '"resnet18"': '"resnet9"',
    "pretrained=True": "pretrained=False",
    "epochs=10": "epochs=1",
}


def blocks(page: Path) -> list[str]:
    """The blocks of Python on a page, in order."""
    text = page.read_text("utf-8")
    if page.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^( *)\.\. code-block:: python\n\n((?:(?:\1 {3}.*)?\n)+)", text + "\n", re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def commands() -> list[str]:
    """The README's two commands."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block.strip() for language, block in fences if not language]


OWN_IMAGES = {REPOSITORY / "README.md", REPOSITORY / "docs" / "index.rst"}
"""The two pages that open with the program for a user's own images; every other page runs in an empty directory."""


@pytest.fixture
def desk(request, tmp_path, monkeypatch):
    """An empty directory; for the pages with a user's own images it holds a small dataset and a photograph."""
    monkeypatch.chdir(tmp_path)
    if request.node.callspec.params["page"] in OWN_IMAGES:
        cvkit.data.write_shapes("data/train", per_class=8, seed=0)
        cvkit.data.write_shapes("data/val", per_class=4, seed=1)
        Image.effect_noise((48, 36), 60).convert("RGB").save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(REPOSITORY).with_suffix(""))
)
def test_every_block_of_a_page_runs_in_order(page, desk):
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page), 1):
        if "pretrained=True" in block:
            assert all(block.count(theirs) == 1 for theirs in SMALLER)
            for theirs, ours in SMALLER.items():
                block = block.replace(theirs, ours)
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
    assert getattr(namespace.get("result"), "stop_reason", "finished") == "finished"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_the_program_of_the_quickstart_page_learns(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for block in blocks(REPOSITORY / "docs" / "quickstart.rst")[:4]:  # as pasted, up to its predictions
            exec(compile(block.replace("seed=0, resume", f"seed={seed}, resume"), "quickstart.rst", "exec"), namespace)
    assert namespace["result"].history[-1]["val_accuracy"] > 0.9
    assert namespace["prediction"].label == "circle"
    assert namespace["prediction"].probability > 0.7


def test_the_quickstart_page_shows_what_its_program_prints():
    table, _, rest = (REPOSITORY / "docs" / "recorded" / "quickstart.txt").read_text("utf-8").partition("best epoch: ")
    names, *rows = [line.split() for line in table.splitlines()]
    assert names == ["epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1][names.index("val_accuracy")]) > 0.9
    label, probability = rest.partition("prediction:")[2].split()
    assert label == "circle"
    assert float(probability) > 0.7


def test_no_block_of_python_is_missed():
    for page in PAGES:
        marks = len(re.findall(r"^\s*(?:```python|\.\. code-block:: python)", page.read_text("utf-8"), re.MULTILINE))
        assert len(blocks(page)) == marks, page.name
    assert len(blocks(PAGES[0])) == 2


def test_the_readme_opens_with_fifteen_lines_of_a_user():
    text = (REPOSITORY / "README.md").read_text("utf-8")
    opening = text.partition("```python\n")[0].splitlines()
    assert opening[0] == "# cvkit"
    assert len([line for line in opening[1:] if line]) == 2, "one line and the badges"
    assert len(blocks(PAGES[0])[0].splitlines()) <= 15


def test_ci_runs_literally_the_test_command_of_the_readme():
    _, tests = commands()
    ci = REPOSITORY / ".ci" / "run"
    assert tests in ci.read_text("utf-8").splitlines()
    assert tests.endswith("-m pytest -n 2")
    assert os.access(ci, os.X_OK)


def test_the_main_job_of_the_readme_is_an_example_that_is_there():
    job, _ = commands()
    assert (REPOSITORY / job.rpartition(" ")[2]).is_file()


def test_files_that_the_readme_links_to_are_there():
    for page in [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (REPOSITORY / target).exists(), target


def test_names_that_the_changelog_gives_are_public():
    text = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    rooms = [cvkit, cvkit.data, cvkit.transforms, cvkit.models, cvkit.callbacks, cvkit.metrics]
    public = {name for room in rooms for name in room.__all__} | set(cvkit.models.names())
    for line in re.findall(r"^- (?:Callbacks|`cvkit\.(?:data|models)`):?(.*(?:\n  .*)*)", text, re.MULTILINE):
        names = re.findall(r"`(\w+)`", line)
        assert names
        assert set(names) - public == set()
