"""Sphinx configuration: ``sphinx-build -W docs docs/_build`` from the repository's root."""

import sys
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parent.parent))

import impq_opt

project = "impq-opt"
version = release = impq_opt.__version__
project_copyright = "the impq-opt authors"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc", "myst_parser"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

# Documented without being installed.
autodoc_mock_imports = ["torch", "torchvision"] if "torch" not in sys.modules else []
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameters say types in words
numpydoc_show_class_members = False

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"impq-opt {version}"
html_static_path = ["_static"]
html_css_files = ["fit.css"]
exclude_patterns = ["_build"]


def _inline(translator, node):
    translator.body.append(convert(node.astext()))
    raise SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def setup(app):
    """Write formulas as MathML, which browsers draw without a script and without a network."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
