"""Sphinx configuration; the build needs no network."""

import inspect
import os
from importlib.metadata import version as _version

project = "cvkit"
author = "The cvkit authors"
copyright = "The cvkit authors"
version = release = _version("cvkit")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "myst_parser",
]
exclude_patterns = ["_build"]

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
    ("py:class", "cvkit.data.index.PathIndex"),  # a sequence of paths
]

html_theme = "pydata_sphinx_theme"
html_title = f"cvkit {release}"
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "header_links_before_dropdown": 4,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _list_names(app, what, name, obj, options, lines):
    """Puts a table of a module's public names before their descriptions; it can never be out of date."""
    if what == "module":
        names = [one for one in obj.__all__ if not inspect.ismodule(getattr(obj, one))]
        lines += ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {one}" for one in names), ""]


def setup(app):
    app.connect("autodoc-process-docstring", _list_names)
