"""Writes what the studies in docs/figures/tuned say: the tables of docs/tuned_methods.md, and the list of the studies.

A table stands between `<!-- from the studies: NAME -->` and `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctbench.experiments.networks import TITLES
from ctbench.report.intervals import Spread
from ctbench.results import Study, TrialRecord

DOCS = Path(__file__).parent
FOLDER = DOCS / "figures" / "tuned"
PAGE = DOCS / "tuned_methods.md"
RADII = ("0.1", "0.3")
METHODS = ("ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp", "pgd")
ACCURACIES = ("natural_accuracy", "adversarial_accuracy", "certified_accuracy")
WORDS = {"l1": "L1", "robust_weight": "robust weight", "lr": "learning rate"}
BLOCK = re.compile(r"(<!-- from the studies: ([^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Studies = Mapping[str, Study]  # by the title of the method


def studies(radius: str) -> Studies:
    """The finished studies at a radius."""
    folders = {TITLES[method]: FOLDER / f"{radius}-{method}" for method in METHODS}
    return {title: Study.read(folder) for title, folder in folders.items() if folder.is_dir()}


def results(of: Studies) -> str:
    """The means over the seeds with their intervals; bold where an interval lies above all others."""
    spreads = {title: {name: _spread(study, name) for name in ACCURACIES} for title, study in of.items()}
    lines = ["| method | natural % | adversarial % | certified % | chosen |", "| --- | ---: | ---: | ---: | --- |"]
    for title, study in of.items():
        others = [spreads[other] for other in spreads if other != title]
        cells = [_interval(spreads[title][name], [other[name] for other in others]) for name in ACCURACIES]
        lines.append(f"| {' | '.join([title, *cells, _in_words(_chosen(study).parameters)])} |")
    return _text(lines)


def hindsight(of: Studies) -> str:
    """What a choice by test images would have reported, and the places of the methods by both numbers."""
    reported = {title: 100 * study.hindsight.best.certified_accuracy for title, study in of.items() if study.hindsight}
    means = {title: _spread(of[title], "certified_accuracy").mean for title in reported}
    lines = ["| method | held-out images | test images, one run | place | mean over seeds | place |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title in reported:
        held_out = 100 * _chosen(of[title]).accuracies[1]
        by_test, mean = (
            f"{reported[title]:.2f} | {_place(title, reported)}",
            f"{means[title]:.2f} | {_place(title, means)}",
        )
        lines.append(f"| {title} | {held_out:.2f} | {by_test} | {mean} |")
    return _text(lines)


def listed() -> str:
    """The list of all studies."""
    lines = []
    for radius in RADII:
        links = [f"[{title}]({study.path.name}/study.md)" for title, study in studies(radius).items()]
        lines.append(f"- eps {radius}: {', '.join(links)}")
    return _text(lines)


def _spread(study: Study, name: str) -> Spread:
    """Of an accuracy in percent, over the final runs."""
    return Spread.of([100 * result[name] for result in study.results])


def _interval(spread: Spread, others: Sequence[Spread]) -> str:
    ends = spread.within(0, 100)
    assert ends is not None, "a single run has no interval"
    mean = f"{spread.mean:.2f}"
    if others and all(spread.is_above(other) for other in others):
        mean = f"**{mean}**"
    return f"{mean} ({ends[0]:.2f} to {ends[1]:.2f})"


def _chosen(study: Study) -> TrialRecord:
    (trial,) = study.chosen
    return trial


def _in_words(parameters: Mapping[str, Any]) -> str:
    parts = []
    for path, value in parameters.items():
        name = path.partition("+")[0].rpartition(".")[2]
        shown = f"{value:.2g}" if isinstance(value, float) else value
        parts.append(f"{WORDS.get(name, name)} {shown}")
    return ", ".join(parts)


def _place(title: str, accuracies: Mapping[str, float]) -> int:
    """1 for the highest; equal ones share a place."""
    return 1 + sum(other > accuracies[title] for other in accuracies.values())


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def filled(text: str) -> str:
    """A page with its tables as the studies are now."""
    tables = {"all": listed()}
    for radius in RADII:
        tables |= {
            f"results at {radius}": results(studies(radius)),
            f"hindsight at {radius}": hindsight(studies(radius)),
        }
    return BLOCK.sub(lambda block: f"{block[1]}\n{tables[block[2]]}\n{block[3]}", text)


def main() -> None:
    for page in (PAGE, FOLDER / "README.md"):
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
