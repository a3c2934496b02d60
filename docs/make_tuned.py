"""Writes what the studies in docs/figures/tuned say: the tables of docs/tuned_methods.md, and the list of the studies.

A table stands between `<!-- from the studies: NAME -->` and `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctbench.experiments.networks import TITLES
from ctbench.report.formats import as_markdown
from ctbench.report.grid import Bold
from ctbench.report.intervals import Spread, place
from ctbench.results import Study, TrialRecord

DOCS = Path(__file__).parent
FOLDER = DOCS / "figures" / "tuned"
PAGES = (DOCS / "tuned_methods.md", FOLDER / "README.md")
RADII = ("0.1", "0.3")
METHODS = ("ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp", "pgd")
ACCURACIES = ("natural", "adversarial", "certified")
BASE, COMPARED = "IBP", ("natural", "certified")  # the method and the accuracies of differences
WORDS = {"l1": "L1", "robust_weight": "robust weight", "lr": "learning rate"}
IN_HINDSIGHT = (
    "method",
    "certified %, held-out images, `fast`",
    "certified %, test images, one run, `fast`",
    "place",
    "certified %, mean over seeds",
    "place",
)
START, END = "<!-- from the studies: ", "<!-- end -->"
BLOCK = re.compile(rf"({START}([^\n]+) -->\n)(?:(?!{START}).)*?({END})", re.DOTALL)

Studies = Mapping[str, Study]  # by the title of the method


def studies(radius: str) -> Studies:
    """The studies at a radius.

    Raises:
        ValueError: one is not finished, or a final run of it failed.
    """
    folders = {TITLES[method]: FOLDER / f"{radius}-{method}" for method in METHODS}
    by_title = {title: Study.read(folder) for title, folder in folders.items() if folder.is_dir()}
    for study in by_title.values():
        if not study.finished or any("error" in result for result in study.results):
            raise ValueError(f"{study.path} is not finished, or a final run failed: run ctbench tune again")
    return by_title


def tables() -> dict[str, str]:
    """The text of each table by its name."""
    texts = {"all": _list_of_studies()}
    for radius in RADII:
        by_method = studies(radius)
        texts[f"results at {radius}"] = _results(by_method)
        texts[f"seeds at {radius}"] = _seeds(by_method)
        texts[f"differences at {radius}"] = _differences(by_method)
        texts[f"hindsight at {radius}"] = _hindsight(by_method)
    return texts


def _results(by_method: Studies) -> str:
    """The means over the seeds with their intervals; bold where an interval lies above all others."""
    spreads = {title: [_spread(study, name) for name in ACCURACIES] for title, study in by_method.items()}
    rows = []
    for title, study in by_method.items():
        others = zip(*(spread for other, spread in spreads.items() if other != title), strict=True)
        rivals = list(others) or [()] * len(ACCURACIES)
        means = [_interval(own, those) for own, those in zip(spreads[title], rivals, strict=True)]
        rows.append([title, *means, _in_words(_chosen(study).parameters)])
    return as_markdown(("method", *(f"{name} %" for name in ACCURACIES), "chosen"), rows, texts=(0, 4))


def _seeds(by_method: Studies) -> str:
    """The certified accuracy of each final run."""
    parts = []
    for title, study in by_method.items():
        shares = ", ".join(f"{share:.2f}" for share in _shares(study, "certified"))
        parts.append(f"- {title}: {shares} %")
    return "\n".join(parts)


def _differences(by_method: Studies) -> str:
    """The mean differences to IBP between runs of one seed, with their intervals; bold where these do not contain 0."""
    rows = []
    for title, study in by_method.items():
        if title != BASE:
            pairs = [list(zip(_shares(study, name), _shares(by_method[BASE], name), strict=True)) for name in COMPARED]
            rows.append([title, *(_difference([one - other for one, other in each]) for each in pairs)])
    return as_markdown(("method", *(f"{name}, points" for name in COMPARED)), rows, texts=(0,))


def _difference(numbers: Sequence[float]) -> str:
    spread = Spread.of(numbers)
    assert spread.interval is not None, "a single seed has no interval"
    low, high = spread.interval
    words = f"{spread.mean:+.2f} ({low:+.2f} to {high:+.2f})"
    return Bold(words) if low > 0 or high < 0 else words


def _hindsight(by_method: Studies) -> str:
    """What a choice by test images would have reported, and the places of the methods by both numbers."""
    best = {title: study.hindsight.best for title, study in by_method.items() if study.hindsight}
    reported = {title: 100 * trial.certified_accuracy for title, trial in best.items()}
    means = {title: _spread(by_method[title], "certified").mean for title in best}
    rows = []
    for title, trial in best.items():
        chosen = _chosen(by_method[title])
        name = title if trial.trial == chosen.trial else f"{title} (another trial)"
        rows.append([name, f"{100 * chosen.accuracies[1]:.2f}"])
        for numbers in (reported, means):
            rows[-1] += [f"{numbers[title]:.2f}", str(place(numbers[title], numbers.values()))]
    return as_markdown(IN_HINDSIGHT, rows, texts=(0,))


def _list_of_studies() -> str:
    lines = []
    for radius in RADII:
        links = [f"[{title}]({study.path.name}/study.md)" for title, study in studies(radius).items()]
        lines.append(f"- eps {radius}: {', '.join(links)}")
    return "\n".join(lines)


def _spread(study: Study, accuracy: str) -> Spread:
    """Of an accuracy in percent, over the final runs."""
    return Spread.of(_shares(study, accuracy))


def _shares(study: Study, accuracy: str) -> list[float]:
    """An accuracy of the final runs in percent, in the order of their seeds."""
    return [100 * result[f"{accuracy}_accuracy"] for result in sorted(study.results, key=lambda each: each["seed"])]


def _interval(spread: Spread, others: Sequence[Spread]) -> str:
    ends = spread.within(0, 100)
    assert ends is not None, "a single run has no interval"
    words = f"{spread.mean:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"
    return Bold(words) if spread.is_above_all(others) else words


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


def filled(text: str) -> str:
    """A page with its tables as the studies are now.

    Raises:
        ValueError: a table has no end, or its name is not known.
    """
    texts, found = tables(), BLOCK.findall(text)
    if not len(found) == text.count(START) == text.count(END):
        raise ValueError(f"not each {START}NAME --> has an {END}")
    if unknown := {name for _, name, _ in found} - texts.keys():
        raise ValueError(f"there are no tables {', '.join(sorted(unknown))}: expected {', '.join(texts)}")
    return BLOCK.sub(lambda block: f"{block[1]}\n{texts[block[2]]}\n\n{block[3]}", text)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
