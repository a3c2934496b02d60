"""How Sphinx builds the documentation site: `make docs`."""

import importlib.metadata
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
PAGES = {"ARCHITECTURE.md": "architecture.md", "examples": "tutorials/train_and_certify.md"}  # what shows a file
sys.path.insert(0, str(HERE / "_extensions"))

project = "ctbench"
author = "The ctbench maintainers"
copyright = f"2026, {author}"  # noqa: A001 (Sphinx's name)
release = importlib.metadata.version("ctbench")

extensions = ["myst_parser", "members", "offline"]
exclude_patterns = ["_extensions"]
myst_enable_extensions = ["fieldlist", "html_image"]
myst_heading_anchors = 3
smartquotes = False  # names in quotes are strings of Python
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"ctbench {release}"
html_copy_source = False
html_extra_path = ["pages"]  # reports that `ctbench report` wrote; their folders are those of the site
html_theme_options = {"navigation_with_keys": True}


def _link_pages(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Links between files of the repository's root become links between the pages that include them."""
    for file, page in PAGES.items():
        content[0] = content[0].replace(f"]({file})", f"]({page})")


def setup(app: Sphinx) -> None:
    app.connect("include-read", _link_pages)
