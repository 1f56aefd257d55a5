"""Writes the error index: one page a code, from the programs in ``docs/errors/programs`` and what cvkit says of them.

    python docs/make_error_pages.py

``CVxxx_bad.py`` and ``CVxxx_good.py`` each end in a call of ``cvkit.fit``; the docstring of the bad one says why it is wrong.
Codes without programs are listed in the index with their title.
"""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import warnings
from pathlib import Path

from cvkit.diagnosis import TABLE
from cvkit.errors import CvkitWarning, PreflightError

HERE = Path(__file__).parent / "errors"
PROGRAMS = HERE / "programs"
ROOMS = {
    "1": "Labels",
    "2": "Batches, inputs, leaks",
    "3": "Outputs, and what lies between them and the loss",
    "4": "The loss against the targets",
    "5": "Settings",
    "6": "What the gradient reaches",
    "7": "Coupling, modes, and the batch that is not full",
    "8": "Programs that fail",
    "9": "While it trains",
}


def says(source: str, name: str) -> list[tuple[str, str]]:
    """Runs a program; returns the codes and the words of what cvkit says of it."""
    found: list[tuple[str, str]] = []
    source = body(source)
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name  # so that a line can be shown
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            exec(compile(source, name, "exec"), {"__name__": "__main__"})
        except PreflightError as error:
            found += [(one.code, f"error[{one}") for one in error.findings]
    found += [(str(one.message)[:5], f"warning[{one.message}") for one in caught if one.category is CvkitWarning]
    return [(code, text.replace(f"[{code}:", f"[{code}]:")) for code, text in found]


def programs(code: str) -> tuple[str, str] | None:
    """Returns the bad and the good program of a code."""
    files = [PROGRAMS / f"{code}_{kind}.py" for kind in ("bad", "good")]
    return (files[0].read_text("utf-8"), files[1].read_text("utf-8")) if files[0].exists() else None


def body(source: str) -> str:
    """Returns a program without its docstring."""
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    lines = source.splitlines()
    return "\n".join(lines[tree.body[0].end_lineno if docstring else 0 :]).strip()


def page(code: str) -> str:
    """Returns the page of a code."""
    check, pair = TABLE[code], programs(code)
    title = f"{code}: {check.title}"
    lines = [title, "=" * len(title), "", f"*{check.severity.capitalize()}.*", ""]
    if pair is None:
        return "\n".join([*lines, f"Left out by ``ignore=({code!r},)``.", ""])
    bad, good = pair
    why = ast.get_docstring(ast.parse(bad)) or ""
    said = next((text for found, text in says(bad, f"{code}_bad.py") if found == code), "")
    for heading, text, language in (("The program", body(bad), "python"), ("What cvkit says", said, "text")):
        lines += [heading, "-" * len(heading), "", f".. code-block:: {language}", ""]
        lines += [f"   {line}".rstrip() for line in text.splitlines()] + [""]
    lines += ["Why", "---", "", why, "", "The sound program", "-----------------", "", ".. code-block:: python", ""]
    lines += [f"   {line}".rstrip() for line in body(good).splitlines()]
    return "\n".join([*lines, "", f"If it is meant so: ``cvkit.fit(…, ignore=({code!r},))``.", ""])


def index() -> str:
    """Returns the index of all codes."""
    title = "Error index"
    lines = [
        *(title, "=" * len(title), ""),
        "What ``fit`` and :func:`cvkit.preflight` say of a program begins with a code. Each has a page: a program with the",
        "mistake, what cvkit says of it, why it is wrong, and the sound program. An *error* cannot work and is raised; a",
        "*warning* works, and",
        'learns nothing or the wrong thing; ``preflight="strict"`` raises for it, too, and ``ignore=("CV…",)`` leaves it out.',
        "",
    ]
    for digit, room in ROOMS.items():
        codes = sorted(code for code in TABLE if code[2] == digit)
        if codes:
            lines += [
                room,
                "-" * len(room),
                "",
                ".. toctree::",
                "   :maxdepth: 1",
                "",
                *(f"   {one}" for one in codes),
                "",
            ]
    return "\n".join(lines)


def main() -> None:
    """Writes all pages."""
    for code in TABLE:
        (HERE / f"{code}.rst").write_text(page(code), "utf-8")
    (HERE / "index.rst").write_text(index(), "utf-8")


if __name__ == "__main__":
    main()
