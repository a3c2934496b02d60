"""The page of several studies: their choices on the test images, and what a choice by these would have given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ctbench.report.comparison import shown_radius
from ctbench.report.grid import NOTHING
from ctbench.report.intervals import Spread
from ctbench.report.site.study_page import HELD_OUT, TEST_DATA, StudySubject
from ctbench.report.site.subjects import slug
from ctbench.report.site.tables import Cell, Line, Remark, Table, count, mean, percent, text
from ctbench.results import TrialRecord

ON_TEST_DATA = Remark("chosen on test data", TEST_DATA)
HEADINGS = (
    "study",
    "trial",
    "remarks",
    "natural %",
    "certified %",
    "place",
    "certified %, compared images",
    "certified %, best trial on test images",
    "its place",
)
MEAN, BEST = HEADINGS.index("certified %"), HEADINGS.index("certified %, best trial on test images")
SEVERAL = "Rows are not all of the same samples: compare those with care."
NOTE = (
    "Means over the final runs of a choice on test images, ± half the width of a 95 % interval. The best trial on test "
    "images is what a table would report whose hyper-parameters were chosen on these, with one run."
)


@dataclass(frozen=True)
class Choice:
    """A chosen trial of a study; None if nothing is chosen yet."""

    subject: StudySubject
    trial: TrialRecord | None

    @property
    def setting(self) -> str:
        """The data set, the norm and the radius."""
        recipe = self.subject.study.content["recipe"]
        threat = recipe["threat"]
        return f"{recipe['dataset']['name']}, {threat['name']}, eps {shown_radius(threat.get('eps'))}"

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Those of its final runs, without those that failed."""
        results = [each for each in self.subject.study.results if "error" not in each]
        return [each for each in results if self.trial is not None and each["trial"] == self.trial.trial]

    def spread(self, accuracy: str) -> Spread | None:
        """In percent."""
        return Spread.of([100 * each[f"{accuracy}_accuracy"] for each in self.results]) if self.results else None

    @property
    def mean(self) -> float | None:
        spread = self.spread("certified")
        return None if spread is None else spread.mean

    @property
    def best(self) -> float | None:
        """The certified accuracy of the best trial on the test images, in percent."""
        hindsight = self.subject.study.hindsight
        return None if hindsight is None or not hindsight.trials else 100 * hindsight.best.certified_accuracy


def studies_tables(subjects: Sequence[StudySubject]) -> list[Table]:
    """A table for each setting, the highest mean certified accuracy first."""
    groups: dict[str, list[Choice]] = {}
    for choice in _choices(subjects):
        groups.setdefault(choice.setting, []).append(choice)
    return [_table(setting, groups[setting]) for setting in sorted(groups)]


def _choices(subjects: Sequence[StudySubject]) -> Iterator[Choice]:
    for subject in subjects:
        for trial in subject.study.chosen or (None,):
            yield Choice(subject, trial)


def _table(setting: str, choices: Sequence[Choice]) -> Table:
    order = sorted(choices, key=lambda choice: -1.0 if choice.mean is None else choice.mean, reverse=True)
    several = len({result["samples"] for choice in choices for result in choice.results}) > 1
    return Table(
        name=slug("studies", setting),
        caption=setting,
        headings=HEADINGS,
        texts=(0, 2),
        lines=tuple(_line(choice, order) for choice in order),
        note=f"{SEVERAL} {NOTE}" if several else NOTE,
        order=MEAN,
    )


def _line(choice: Choice, every: Sequence[Choice]) -> Line:
    subject, trial = choice.subject, choice.trial
    remarks = () if subject.study.protocol == HELD_OUT else (ON_TEST_DATA,)
    certified = [spread for other in every if other is not choice and (spread := other.spread("certified"))]
    cells = (
        Cell(text=subject.name, links=((subject.name, subject.page),)),
        text(NOTHING) if trial is None else count(trial.trial),
        Cell(text=", ".join(one.word for one in remarks) or NOTHING, remarks=remarks),
        mean(choice.spread("natural")),
        mean(choice.spread("certified"), certified),
        _place(choice.mean, [other.mean for other in every]),
        percent(None if trial is None else trial.certified_accuracy),
        percent(None if choice.best is None else choice.best / 100),
        _place(choice.best, [other.best for other in every]),
    )
    return Line(cells=cells)


def _place(number: float | None, numbers: Sequence[float | None]) -> Cell:
    """1 for the highest; equal ones share a place."""
    if number is None:
        return text(NOTHING)
    return count(1 + sum(other is not None and other > number for other in numbers))
