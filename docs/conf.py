"""Settings of Sphinx for the documentation site, which docs/make_site.py builds."""

from flowkit.versions import __version__

project = "flowkit"
author = "the flowkit authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx.ext.viewcode"]
root_doc = "index"

myst_heading_anchors = 4  # links to headings are written as on GitHub

default_role = "py:obj"  # `name` in docstrings
numpydoc_show_class_members = False  # autodoc does
autodoc_typehints = "none"  # docstrings give types, with shapes and units
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = f"flowkit {version}"
html_show_sphinx = False
html_copy_source = False
