"""Published results of papers, shown next to our own results; the two are never mixed.

They are the rows of `published.csv`: CTBench's Table 1 with its literature columns; Müller et al. 2023 (SABR), Tables 1
and 2; Mao et al. 2023 (TAPS), Table 1; De Bartolomeis et al. 2023, "How robust accuracy suffers from certified training
with convex relaxations", Tables 4 and 5, which print errors: here they are accuracies, 100 (1 - error). Tables 1 and 2
of Müller et al. and Table 1 of Mao et al. also have the results of others, e.g. COLT, IBP-R, SortNet and
l-infinity-distance nets. `by` says whose network it is, `paper` and `table` where the numbers were read.

CTBench's Table 1 marks the certified accuracy of PGD and EDAC as about 0, because none of the first ten samples was
certified: there is no value here. In the text that was read, its row of PGD on TinyImageNet has 33.41 next to 33.16,
without a column: this adversarial accuracy is uncertain. Its natural accuracy of standard training holds for all radii
of a data set. The arXiv versions that papers cite have the names of the later publications, e.g. Müller et al. 2022
that of 2023.

    published_result("mnist", "linf", 0.1, "IBP", paper="CTBench").accuracies
    [result for result in published_results() if result.method == "SortNet"]
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctbench.results.decimals import decimals

TABLE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True, kw_only=True)
class Published:
    """The accuracies of a paper's network, in percent; None if the paper does not give the value.

    Args:
        natural, adversarial, certified: the accuracies.
        source: the paper and its table.

    Raises:
        ValueError: an accuracy is not in [0, 100].
    """

    natural: float
    adversarial: float | None = None
    certified: float | None = None
    source: str

    def __post_init__(self) -> None:
        for name in ("natural", "adversarial", "certified"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ValueError(f"{name} is {value}: give percents, from 0 to 100")

    def __str__(self) -> str:
        shown = ["-" if value is None else f"{value:.2f}" for value in (self.natural, self.adversarial, self.certified)]
        return " / ".join(shown)


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """A row of a paper's table: a method on a data set, at a radius."""

    dataset: str
    norm: str
    eps: float  # in [0, 1] pixel space
    method: str
    by: str  # whose network it is
    paper: str  # the paper that printed the numbers
    table: str
    accuracies: Published


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """All published results, in the order of the file."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(map(_result, csv.DictReader(file)))


def published_result(
    dataset: str, norm: str, eps: float, method: str, *, paper: str, by: str | None = None
) -> PublishedResult:
    """The published result of a method.

    Args:
        dataset, norm, eps: the setting; eps in [0, 1] pixel space.
        method: the method, e.g. "MTL-IBP" or "SABR with shrinking".
        paper: the paper that printed it, e.g. "CTBench" or "Mao et al. 2023"; the last of its tables that has the row.
        by: whose network it is; None: the paper's own.

    Raises:
        ValueError: there is no such result.
    """
    key = (dataset, norm, eps, method, paper, by or paper)
    for result in reversed(published_results()):
        if (result.dataset, result.norm, result.eps, result.method, result.paper, result.by) == key:
            return result
    raise ValueError(
        f"{paper} has no result of {by or paper} for {method} on {dataset} at {norm} {decimals(eps)}: see {TABLE.name}"
    )


def _result(row: dict[str, str]) -> PublishedResult:
    above, _, below = row["eps"].partition("/")
    place = f"{row['paper']}, {row['table']}"
    natural, adversarial, certified = (_percent(row[name]) for name in ("natural", "adversarial", "certified"))
    assert natural is not None, f"{row} has no natural accuracy"
    return PublishedResult(
        **{name: row[name] for name in ("dataset", "norm", "method", "by", "paper", "table")},
        eps=float(above) / float(below or 1),
        accuracies=Published(
            natural=natural,
            adversarial=adversarial,
            certified=certified,
            source=place if row["by"] == row["paper"] else f"{row['by']}, by {place}",
        ),
    )


def _percent(text: str) -> float | None:
    return float(text) if text else None
