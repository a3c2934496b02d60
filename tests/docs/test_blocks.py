"""Every block of Python in README.md and docs/*.md runs, those of a page one after the other in one namespace.

A page runs in a process of its own, in an empty folder where only the run of the recipe `digits_ibp` is: complete, so
that `ctbench.train(ctbench.recipe("digits_ibp"), resume=True)` loads it, but trained for few epochs.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests import forked

import ctbench
from ctbench.results import jsonl
from ctbench.training import Adam, SmoothRamp

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("run_blocks.py")
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


def fences(text: str) -> list[tuple[str, str]]:
    """The blocks of a page: the language of each, or Sphinx's directive, and its content."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a complete run of `digits_ibp`."""
    folder = tmp_path_factory.mktemp("pages")
    recipe = ctbench.recipe("digits_ibp")
    short = replace(recipe, epochs=8, batch_size=128, ramp=SmoothRamp(start=0, end=4), optimizer=Adam(lr=0.02))
    run = ctbench.train(short, out=folder / "runs" / f"{recipe.name}-{recipe.hash}", quiet=True)
    jsonl.write_json(run.folder.recipe, recipe.to_json())
    return folder


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```python" in text])
def test_the_blocks_of_a_page_run(page, trained, tmp_path):
    (tmp_path / "runs").symlink_to(trained / "runs")
    ran = forked.run(RUNNER, ROOT / page, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(": ran\n") == sum(language == "python" for language, _ in fences(PAGES[page]))


@pytest.mark.parametrize("page", PAGES)
def test_no_block_of_python_goes_by_another_name(page):
    for language, content in fences(PAGES[page]):
        assert language in ("python", "") or language.startswith("{"), "name Python `python`, and nothing else"
        assert language == "python" or not re.search(r"^(import|from) ", content, re.MULTILINE), content


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/bounds.md", "docs/verifier.md"])
def test_a_page_for_newcomers_shows_code_that_runs(page):
    assert any(language == "python" for language, _ in fences(PAGES[page]))
