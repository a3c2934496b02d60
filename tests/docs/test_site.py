"""Our own parts of the documentation site: the pages of the Python interface; nothing is loaded from elsewhere."""

import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import ctbench

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = [name for path in (DOCS / "api").glob("*.md") for name in re.findall(r"{members} (\S+)", path.read_text())]


def extension(name: str) -> ModuleType:
    """A module of docs/_extensions, if Sphinx is installed."""
    pytest.importorskip("sphinx", reason="the site needs: pip install sphinx furo myst-parser")
    spec = importlib.util.spec_from_file_location(name, DOCS / "_extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_has_a_page():
    packages = {f"ctbench.{info.name}" for info in pkgutil.iter_modules(ctbench.__path__) if info.ispkg}
    assert packages - {"ctbench.cli"} | {"ctbench"} <= set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_has_every_public_name(name):
    members, module = extension("members"), importlib.import_module(name)
    names = members.public(module)
    text = "\n".join(members.page(module))
    assert names or any(other.startswith(f"{name}.") for other in SHOWN)
    for public in names:
        assert re.search(rf"{{py:\w+}} {public}\b|{{py:obj}}`[\w.]+\.{public}`", text), public


def test_the_sections_of_a_docstring_become_lists():
    def function(first: int, second: int) -> int:
        """What it does.

        Args:
            first, second: two numbers,
                in one entry.

        Returns:
            Their sum.

        Raises:
            ValueError: never.
        """

    assert extension("members").body(function) == [
        "What it does.",
        "",
        ":param first: two numbers, in one entry.",
        ":param second: two numbers, in one entry.",
        ":returns: Their sum.",
        ":raises ValueError: never.",
    ]


def test_defaults_are_shown_as_they_stand_in_the_source():
    described = "\n".join(extension("members").described("certify", ctbench.certify))
    assert "stages: Sequence[Stage]=DEFAULT_STAGES" in described


@pytest.mark.parametrize(
    "loaded",
    [
        '<script src="https://elsewhere/x.js"></script>',
        '<link rel="stylesheet" href="//elsewhere/x.css">',
        '<img src="http://elsewhere/x.png">',
        "<style>@font-face { src: url('https://elsewhere/x.woff') }</style>",
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(loaded):
    assert len(extension("offline").loads(loaded)) == 1


@pytest.mark.parametrize(
    "kept",
    [
        '<a href="https://elsewhere">a link</a>',
        '<script src="_static/x.js"></script>',
        '<link rel="search" href="//x">',
    ],
)
def test_links_and_files_of_the_site_are_no_remote_loads(kept):
    assert extension("offline").loads(kept) == []


def test_every_tutorial_and_page_is_in_the_navigation():
    index = (DOCS / "index.md").read_text()
    pages = {path.relative_to(DOCS) for path in DOCS.rglob("*.md") if not path.is_relative_to(DOCS / "pages")}
    studies = {path for path in pages if path.match("figures/tuned/*/study.md")}
    named = set(re.findall(r"^(?:[^<\n]*<)?([\w./-]+)>?$", index, re.MULTILINE))
    assert {path.with_suffix("").as_posix() for path in pages - studies - {Path("index.md")}} <= named
    assert re.search(r"^:glob:\n\*/study$", (DOCS / "figures" / "tuned" / "README.md").read_text(), re.MULTILINE)
