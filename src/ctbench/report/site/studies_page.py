"""The page of several studies: their choices on the test images, and what a choice by test images would have given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ctbench.report.comparison import setting_title
from ctbench.report.grid import NOTHING
from ctbench.report.intervals import Spread, place
from ctbench.report.site.study_page import HELD_OUT, StudySubject
from ctbench.report.site.subjects import page_names
from ctbench.report.site.tables import OTHER_SAMPLES, Cell, Line, Remark, Table, count, mean_cell, percent, text
from ctbench.results import TrialRecord
from ctbench.results.studies import TestedTrial

BEFORE = ("study", "recipe", "trial", "final runs", "natural %", "certified %", "place")
AFTER = ("in hindsight: trial", "certified %, one run", "place in hindsight")
TEXTS = tuple(BEFORE.index(name) for name in ("study", "recipe", "final runs"))
MEANS = "Means over the final runs of a choice on test images, ± half the width of a 95 % interval."
LATER = (
    "In hindsight: the trial with the highest certified accuracy on the test images; one run, trained without the "
    "held-out images and certified by the stages {stages}. The places can differ even if the same trial is best."
)
Key = tuple[str, str, float, str]  # data set, norm and radius for the order, and all in which rows of a table agree


@dataclass(frozen=True)
class ChosenTrial:
    """A chosen trial of a study; None if nothing is chosen yet."""

    subject: StudySubject
    trial: TrialRecord | None

    @property
    def content(self) -> Any:
        return self.subject.study.content

    @property
    def key(self) -> Key:
        """Rows with the same key are compared."""
        dataset, threat = self.content["recipe"]["dataset"]["name"], self.content["recipe"]["threat"]
        eps, settings = threat.get("eps"), self.content["settings"]
        same: list[Any] = [
            {name: value for name, value in threat.items() if name != "seed"},
            self.subject.study.protocol,
        ]
        same += [settings.get(name) for name in ("stages", "timeout", "samples")]
        radius = float(eps) if isinstance(eps, int | float) else float("inf")
        return dataset, threat["name"], radius, json.dumps(same, sort_keys=True)

    @property
    def title(self) -> str:
        """Of the table of this row."""
        recipe, settings = self.content["recipe"], self.content["settings"]
        threat, samples, timeout = recipe["threat"], settings.get("samples"), settings.get("timeout")
        parts = [
            setting_title(recipe["dataset"]["name"], threat["name"], threat.get("eps")),
            "" if self.subject.study.protocol == HELD_OUT else "chosen on test data",
            f"{samples} images" if samples else "",
            f"stages {settings['stages']}" if settings.get("stages") else "",
            f"{timeout:g} s for each image" if timeout else "",
        ]
        return ", ".join(filter(None, parts))

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """The results of its final runs that did not fail."""
        return [result for result in self._of_trial if "error" not in result]

    @property
    def _of_trial(self) -> list[dict[str, Any]]:
        every = self.subject.study.results
        return [result for result in every if self.trial is not None and result["trial"] == self.trial.trial]

    @property
    def runs(self) -> int:
        """How many final runs there are to be."""
        return int(self.content["settings"].get("seeds") or max(1, len(self._of_trial)))

    @property
    def complete(self) -> bool:
        """Whether all final runs have results."""
        return bool(self.results) and len(self.results) == self.runs

    def spread(self, accuracy: str) -> Spread | None:
        """The spread of an accuracy over its final runs, in percent."""
        return Spread.of([100 * result[f"{accuracy}_accuracy"] for result in self.results]) if self.results else None

    @property
    def mean(self) -> float | None:
        """The mean certified accuracy in percent; None unless all runs have results."""
        spread = self.spread("certified") if self.complete else None
        return None if spread is None else spread.mean

    @property
    def best(self) -> TestedTrial | None:
        """What a choice by test images would have taken; None if it is not known or would have been a front."""
        hindsight = self.subject.study.hindsight
        if hindsight is None or not hindsight.trials or self.subject.study.objective != "certified":
            return None
        return hindsight.best

    @property
    def remarks(self) -> Iterator[Remark]:
        """Why the row has no place."""
        failed = len(self._of_trial) - len(self.results)
        coming = self.runs - len(self._of_trial)
        if failed:
            yield Remark(f"{failed} of {self.runs} failed", "the mean is that of the others, so the row has no place")
        if coming:
            yield Remark(f"{coming} of {self.runs} to come", "the study is not finished, so the row has no place")


def studies_tables(subjects: Sequence[StudySubject]) -> list[Table]:
    """A table for each setting, protocol and verifier; the highest mean certified accuracy first."""
    groups: dict[Key, list[ChosenTrial]] = {}
    for chosen in _chosen(subjects):
        groups.setdefault(chosen.key, []).append(chosen)
    tables = [groups[key] for key in sorted(groups)]
    names = page_names((rows[0].title for rows in tables), "studies")
    return [_table(name.removesuffix(".html"), rows) for name, rows in zip(names, tables, strict=True)]


def _chosen(subjects: Iterable[StudySubject]) -> Iterator[ChosenTrial]:
    for subject in subjects:
        for trial in subject.study.chosen or (None,):
            yield ChosenTrial(subject, trial)


def _table(name: str, rows: Sequence[ChosenTrial]) -> Table:
    order = sorted(rows, key=lambda row: row.mean if row.mean is not None else -1.0, reverse=True)
    samples = {result["samples"] for row in rows for result in row.results}
    stages = {row.subject.study.hindsight.stages for row in rows if row.subject.study.hindsight is not None}
    notes = [OTHER_SAMPLES] if len(samples) > 1 else []
    notes += [MEANS, *([LATER.format(stages=", ".join(sorted(stages)))] if stages else [])]
    return Table(
        name=name,
        caption=rows[0].title,
        headings=(*BEFORE, f"certified %, {rows[0].content['compared_on']} images", *AFTER),
        texts=TEXTS,
        lines=tuple(_line(row, order) for row in order),
        note=" ".join(notes),
        order=BEFORE.index("certified %"),
    )


def _line(row: ChosenTrial, every: Sequence[ChosenTrial]) -> Line:
    subject, trial, remarks = row.subject, row.trial, tuple(row.remarks)
    ranked = [other for other in every if other.mean is not None]
    best = {id(other): other.best.certified_accuracy for other in ranked if other.best is not None}
    means = [other.mean for other in ranked if other.mean is not None]
    compared = len(best) == len(ranked) and id(row) in best
    cells = (
        Cell(text=subject.name, links=((subject.name, subject.page),)),
        text(row.content["name"]),
        text(NOTHING) if trial is None else count(trial.trial),
        Cell(text=", ".join(one.word for one in remarks) or str(row.runs), remarks=remarks),
        _mean(row, ranked, "natural"),
        _mean(row, ranked, "certified"),
        text(NOTHING) if row.mean is None else count(place(row.mean, means)),
        percent(None if trial is None else trial.certified_accuracy),
        text(NOTHING) if row.best is None else count(row.best.trial),
        percent(None if row.best is None else row.best.certified_accuracy),
        count(place(best[id(row)], best.values())) if compared else text(NOTHING),
    )
    return Line(cells=cells)


def _mean(row: ChosenTrial, ranked: Sequence[ChosenTrial], accuracy: str) -> Cell:
    """A mean, bold if all runs have results and its interval lies above those of all other studies."""
    others = [spread for other in ranked if other.subject is not row.subject and (spread := other.spread(accuracy))]
    return mean_cell(row.spread(accuracy), others if row.complete else ())
