"""Sphinx settings: `nox -s docs` builds the site; nothing is fetched, neither in the build nor by the pages."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]

from resnet_cli import __version__  # noqa: E402

project = "resnet-cli"
author = "the authors of resnet-cli"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_ext", "_built", "_site", "_static"]
html_theme = "furo"
html_title = f"resnet-cli {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
highlight_language = "text"  # indented blocks are commands and what they print
default_role = "code"  # docstrings quote names by single backticks
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
