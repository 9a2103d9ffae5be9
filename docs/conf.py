"""Sphinx configuration. Warnings are errors (`make docs`), and every example is executed."""

import tempfile
from pathlib import Path

import msmmiv

project = "msmmiv"
author = "The msmmiv authors"
copyright = "2026, The msmmiv authors"
release = msmmiv.__version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
]
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Reference pages are written from the docstrings at every build and are not committed.
autosummary_generate = True
# `heterogeneity` and `Heterogeneity` are one file name where case is not kept.
autosummary_filename_map = {"msmmiv.Heterogeneity": "msmmiv.Heterogeneity-class"}
autodoc_typehints = "none"  # numpydoc states the types in words
autodoc_member_order = "bysource"
default_role = "autolink"  # `Moments` in a docstring is a link to its page
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# A documented parameter that does not exist, or stands in the wrong order, is an error. (PR01 would
# ask dataclasses to list their attributes twice.)
numpydoc_validation_checks = {"PR02", "PR03", "SS01"}

# A reference inside the package that leads nowhere is an error. References to other projects are
# left as text: resolving them would need the network, and a build must not.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!msmmiv).*"),
]

# Pages with code cells are run at every build, so that a number can never be older than the code; an
# exception in a cell stops the build. Cells that write files write them to a folder that is thrown away.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # formulas in Markdown that a cell displays
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = f"msmmiv {release}"
html_show_sourcelink = False
html_css_files = ["docs.css"]
html_sidebars = {"**": ["globaltoc.html"]}
html_theme_options = {
    "navbar_center": [],  # all pages are in the sidebar
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}

# Checklists to print, made by the package at every build.
_made = Path(tempfile.mkdtemp())
for _estimand in ("ate", "late"):
    msmmiv.write_checklist(_made / f"checklist-{_estimand}.html", estimand=_estimand)
html_extra_path = [str(_made)]
