"""Sphinx configuration; the build needs no network."""

import os
import sys
import tomllib
from importlib.metadata import version as _version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
import reference_pages

reference_pages.write()  # before autosummary looks for what it has to write

project = "cvkit"
author = "The cvkit authors"
copyright = "The cvkit authors"
version = release = _version("cvkit")

_urls = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["urls"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "myst_parser",
    "measured",
    "reference_pages",
]
exclude_patterns = ["_build", "_ext", "_templates", "README.md"]
templates_path = ["_templates"]
locale_dirs = ["locale"]
gettext_compact = False

if os.environ.get("CVKIT_DOCS_ONLINE"):  # types of other libraries become links to their pages
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = True
autosummary_imported_members = False
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 88
default_role = "any"

nitpicky = True
# Names of other libraries have no page here, nor have type aliases; every other reference of cvkit's must resolve.
nitpick_ignore_regex = [("py:.*", r"(?!cvkit\b).*")]

nitpick_ignore = [
    ("py:class", "cvkit.serialization.weights.M"),  # a type variable
    ("py:class", "cvkit.losses.T"),  # a type variable
    ("py:class", "cvkit.metrics.core.T"),  # a type variable
    ("py:class", "cvkit.outputs.OutputSpec"),  # what outputs are, as losses say
    ("py:class", "cvkit.training.internals.Internals"),  # the engine's own
    ("py:class", "cvkit.data.prefetch.Part"),  # the rows of one process
    ("py:class", "cvkit.data.order.Batches"),  # which samples a batch holds
    ("py:class", "cvkit.data.prefetch.Part"),  # the share of a batch that a rank computes
    ("py:class", "cvkit.data.datasets.shard_set.LazyList"),  # a sequence that is read from shards
    ("py:class", "cvkit.data.index.PathIndex"),  # a sequence of paths
    ("py:class", "cvkit.training.monitor.Monitor"),  # what a callback watches; made by the callbacks themselves
]

html_theme = "pydata_sphinx_theme"
html_title = "cvkit"
html_static_path = ["_static"]
html_css_files = ["cvkit.css"]
html_js_files = ["cvkit.js"]
html_favicon = "_static/logo/cvkit.svg"
html_show_sourcelink = False
html_sidebars = {"index": [], "search": []}
html_theme_options = {
    "logo": {"image_light": "_static/logo/cvkit.svg", "image_dark": "_static/logo/cvkit.svg", "text": "cvkit"},
    "show_prev_next": True,
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navbar_start": ["navbar-logo", "version-switcher"],
    "switcher": {"json_url": "_static/switcher.json", "version_match": release},
    "check_switcher": False,
    "show_version_warning_banner": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "search_bar_text": "Search, for example: out of memory",
    "icon_links": [
        {
            "name": "Repository",
            "url": _urls["Repository"],
            "icon": "fa-brands fa-github",
        }
    ],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
