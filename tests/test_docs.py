"""What the documentation is made of: one file of recorded figures, a reference that misses no name, pages that can be found."""

import importlib
import json
import re
import runpy
from pathlib import Path

import pytest

import cvkit

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
RESULTS = json.loads((REPOSITORY / "benchmarks" / "results.json").read_text("utf-8"))
PAGES = [page for page in sorted(DOCS.rglob("*.rst")) if not {"generated", "_templates"} & set(page.parts)]

# What README says in Markdown, which no build fills in: a sentence's figure, and where it is recorded.
README = {
    r"about (\S+) µs": "loop.fit_added",
    r"small images (\S+) times": "data_ratio.small_later",
    r", photos (\S+) times": "data_ratio.photos",
    r"kept in memory (\S+) times": "data_ratio.photos_memory",
    r"cvkit (\S+), skorch": "loop.cvkit",
    r"Lightning (\S+), Keras": "loop.lightning",
}


@pytest.fixture(scope="module")
def reference():
    """What ``docs/_ext/reference_pages.py`` defines."""
    return runpy.run_path(str(DOCS / "_ext" / "reference_pages.py"))


@pytest.fixture(scope="module")
def written():
    """How a figure is written on a page, by its key."""
    function = runpy.run_path(str(DOCS / "_ext" / "measured.py"))["written"]
    return lambda key: function(RESULTS, key)


def recorded(key):
    group, _, name = key.partition(".")
    return RESULTS[group]["figures"][name]


# --- figures


def test_every_figure_says_where_it_comes_from():
    for group in RESULTS.values():
        assert {"script", "recorded", "machine", "unit", "figures"} == group.keys()
        assert group["script"] is None or (REPOSITORY / group["script"]).is_file()
        for figure in group["figures"].values():
            assert figure.get("low", figure["value"]) <= figure["value"] <= figure.get("high", figure["value"])


def test_every_figure_of_a_page_is_recorded(written):
    keys = {key for page in PAGES for key in re.findall(r":measured:`([^`]+)`", page.read_text("utf-8"))}
    assert len(keys) > 10
    assert all(written(key) for key in keys)


def test_no_page_types_a_figure_that_is_measured():
    for page in PAGES:
        found = re.findall(
            r"^.*\d[\d.,]* (?:µs|times the speed|times as fast).*$", page.read_text("utf-8"), re.MULTILINE
        )
        typed = [line for line in found if ":measured:" not in line and ":alt:" not in line]
        assert [line for line in typed if "noise" not in line and "spread" not in line] == [], page.name


def test_the_readme_tells_the_recorded_figures(written):
    text = " ".join((REPOSITORY / "README.md").read_text("utf-8").split())
    for pattern, key in README.items():
        found = re.findall(pattern, text)
        assert found, pattern
        assert set(found) == {written(key)}, key


def test_the_table_of_the_benchmarks_is_what_is_recorded():
    text = (REPOSITORY / "benchmarks" / "README.md").read_text("utf-8")
    for group, name, row in [
        ("loop", "cvkit", "| **cvkit** |"),
        ("loop", "skorch", "| skorch |"),
        ("loop", "lightning", "| Lightning, lean |"),
        ("data_ratio", "small_later", "| small images, second epoch on"),
        ("data_ratio", "photos", "| photos of 500×375"),
        ("checkpoint", "background", "| **`Checkpoint(background=True)`**"),
        ("tensorboard", "between_points", "| a step between points"),
    ]:
        line = next(line for line in text.splitlines() if line.startswith(row))
        assert f"{recorded(f'{group}.{name}')['value']:,}" in line.replace("**", ""), name


def test_the_charts_are_drawn_from_what_is_recorded():
    charts = dict(runpy.run_path(str(DOCS / "make_performance_charts.py"))["charts"]())
    there = {path.name: path.read_text("utf-8") for path in (DOCS / "_static" / "charts").glob("*.svg")}
    assert there == charts


def test_the_recording_shows_a_run_that_is_killed_and_continues():
    text = (DOCS / "_static" / "recordings" / "resume.svg").read_text("utf-8")
    lines = re.findall(r"<text [^>]*>([^<]*)</text>", text)
    killed = next(place for place, line in enumerate(lines) if "kill -9" in line)
    epochs = [int(found[1]) for line in lines if (found := re.match(r"epoch (\d)/6 ", line))]
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert lines[killed - 1].startswith("epoch 3/6")
    assert lines[killed + 2].startswith("continuing in epoch 4 of 6")


# --- the reference


def test_the_reference_has_every_public_name_once(reference):
    for module in reference["modules"]():
        shown = [name for names in reference["groups"](module).values() for name in names]
        assert len(shown) == len(set(shown))
        assert set(shown) == set(reference["public_names"](module))


def test_the_reference_has_every_module_and_begins_with_fit(reference):
    index = (DOCS / "reference" / "index.rst").read_text("utf-8")
    assert [f"   generated/{module}" for module in reference["modules"]()] == [
        line for line in reference["filled"](index, DOCS / "reference").splitlines() if "generated/" in line
    ]
    assert "cvkit.data" in reference["modules"]()
    assert reference["groups"]("cvkit")["Train"][0] == "fit"
    assert index.index("\n   fit\n") < index.index("\n   load\n")


def test_a_table_of_contents_takes_up_new_pages(reference, tmp_path):
    for name in ("index", "listed", "new", "shards"):
        (tmp_path / f"{name}.rst").touch()
    text = ".. toctree::\n\n   listed\n   shard*\n   absent*\n   *\n"
    assert reference["filled"](text, tmp_path) == ".. toctree::\n\n   listed\n   shards\n   new\n"


def test_a_group_of_the_reference_names_what_is_there(reference):
    for module, groups in reference["GROUPS"].items():
        names = [name for group in groups.values() for name in group]
        assert set(names) <= set(importlib.import_module(module).__all__)


def test_examples_are_found_by_what_they_use(reference):
    found = reference["examples_by_name"]()
    assert "quickstart" in found["cvkit.fit"]
    assert "quickstart" in found["cvkit.callbacks.Checkpoint"]


# --- pages


def test_troubleshooting_quotes_messages_that_are_raised():
    page = (DOCS / "help" / "troubleshooting.rst").read_text("utf-8")
    source = "\n".join(path.read_text("utf-8") for path in Path(cvkit.__file__).parent.rglob("*.py"))
    for message in [
        "a worker process died",
        "the cache would not fit into memory",
        "already holds a run",
        "is another one than this",
        "no checkpoint of the run is sound",
        "is an iterator, which is used up after one epoch",
        "the loader would have no batches",
        "the training loss is not finite",
        "outputs and the targets of",
        "are integers, as images are on disk",
        "would be broadcast against each other",
    ]:
        assert message in page
        assert message in source, f"docs/help/troubleshooting.rst quotes {message!r}, which nothing raises"


def test_every_page_is_in_a_table_of_contents(reference):
    filled = reference["filled"]
    listed = set()
    for page in PAGES:
        for entry in re.findall(
            r"^   (?:.*<)?([\w./*-]+)>?$", filled(page.read_text("utf-8"), page.parent), re.MULTILINE
        ):
            listed |= {found.resolve() for found in page.parent.glob(f"{entry}.rst")} if "/" not in entry[:1] else set()
    assert [page.name for page in PAGES if page.resolve() not in listed and page != DOCS / "index.rst"] == []


def test_pages_stand_in_the_words_of_the_field():
    for page in [*PAGES, REPOSITORY / "README.md"]:
        text = " ".join(page.read_text("utf-8").split())
        for odd in [
            *("it sees that all is done", "dropout drops.", "is told in reverse", "a hook that nobody has"),
            *("do not know of pyplot", "bears one epoch more", "in one folder a class", "of one's own", "data set"),
        ]:
            assert odd.lower() not in text.lower(), f"{page.name}: {odd}"


# --- translations


def test_no_translation_is_older_than_its_page():
    tool = runpy.run_path(str(DOCS / "update_translations.py"))
    pairs = list(tool["translations"]())
    assert [page.relative_to(DOCS).as_posix() for _, page in pairs] == [
        "help/troubleshooting.rst",
        "quickstart.rst",
        "tutorial.rst",
    ]
    old = [str(path.relative_to(DOCS)) for path, page in pairs if tool["noted"](path) != tool["digest"](page)]
    assert old == [], "their pages have changed: python docs/update_translations.py, then translate what it prints"


def test_a_translation_that_is_older_is_noticed(tmp_path):
    tool = runpy.run_path(str(DOCS / "update_translations.py"))
    path, page = next(iter(tool["translations"]()))
    changed = tmp_path / page.name
    changed.write_text(page.read_text("utf-8") + "\nOne more sentence.\n", "utf-8")
    assert tool["noted"](path) == tool["digest"](page) != tool["digest"](changed)
