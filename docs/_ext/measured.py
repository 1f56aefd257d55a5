"""The role ``:measured:``: a figure from benchmarks/results.json, so that no page can tell another one than was recorded.

``:measured:`data_ratio.small_later``` gives the value, ``:measured:`data_ratio.small_later spread``` the value with its spread.
"""

import json
from pathlib import Path

from docutils import nodes

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.json"


def number(value):
    """A figure as it is written on the pages."""
    return f"{value:,}".replace("-", "\N{MINUS SIGN}")


def written(results, text):
    """What stands on the page for the text of a role."""
    key, _, spread = text.partition(" ")
    group, _, name = key.partition(".")
    figure = results[group]["figures"][name]
    if not spread:
        return number(figure["value"])
    return f"{number(figure['value'])} ({number(figure['low'])} … {number(figure['high'])})"


def setup(app):
    results = json.loads(RESULTS.read_text("utf-8"))

    def measured(name, rawtext, text, lineno, inliner, options=None, content=None):
        try:
            return [nodes.Text(written(results, text))], []
        except (KeyError, ValueError):
            said = inliner.reporter.error(f"benchmarks/results.json has no figure {text!r}", line=lineno)
            return [inliner.problematic(rawtext, rawtext, said)], [said]

    app.add_role("measured", measured)
    return {"parallel_read_safe": True}
