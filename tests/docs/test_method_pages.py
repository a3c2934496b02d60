"""The pages about training methods are up to date with the docstrings."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("make_methods", DOCS / "make_methods.py")
make_methods = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_methods)
PAGES = make_methods.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_up_to_date(name):
    assert (DOCS / "methods" / name).read_text() == PAGES[name], "run `python docs/make_methods.py`"


def test_there_are_no_other_pages():
    assert {path.name for path in (DOCS / "methods").iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", sorted(PAGES.keys() - {"README.md"}))
def test_a_page_says_when_to_use_the_method_and_what_it_costs(name):
    assert "\n\nUse " in PAGES[name]
    assert "\n\nCost" in PAGES[name]


def test_each_page_lists_the_results_of_its_own_methods():
    """SABR trains IBP on its small box, and is not IBP; STAPS is SABR around TAPS, and stands on both pages."""
    text = PAGES
    assert "_ibp` |" in text["ibp.md"]
    assert "sabr" not in text["ibp.md"]
    assert "_staps` |" in text["taps.md"]
    assert "_staps` |" in text["sabr.md"]
