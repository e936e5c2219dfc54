"""Sphinx configuration: ``sphinx-build -W docs docs/_build`` from the repository's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import impq_opt

project = "impq-opt"
version = release = impq_opt.__version__
project_copyright = "the impq-opt authors"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "numpydoc", "myst_parser"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

# Documented without being installed.
autodoc_mock_imports = ["torch", "torchvision"] if "torch" not in sys.modules else []
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameters say types in words
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"impq-opt {version}"
exclude_patterns = ["_build"]
