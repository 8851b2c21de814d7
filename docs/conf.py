"""Settings of Sphinx for `make docs`: the pages of this folder, and the docstrings, which are read and not imported."""

project = "TriFuse"
author = "The TriFuse authors"
version = release = "0.1.0"

extensions = ["myst_parser", "autoapi.extension", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "TriFuse"

# Anchors as GitHub makes them, so that a link works in both places.
myst_heading_anchors = 3
# Names that are imported for types alone, and a name that stands in two modules, are no fault of a page.
suppress_warnings = ["autoapi.python_import_resolution", "ref.python"]

# Docstrings write `names` as Markdown does.
default_role = "literal"
napoleon_use_ivar = True
autoapi_dirs = ["../cache", "../configs", "../extract", "../fuse"]
autoapi_root = "api"
autoapi_options = ["members", "show-module-summary"]
autoapi_python_class_content = "both"
autoapi_keep_files = False
