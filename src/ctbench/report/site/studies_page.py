"""The page of several studies: their choices on the test images, and what a choice by test images would have given."""

from __future__ import annotations

from collections.abc import Sequence

from ctbench.report.grid import NOTHING
from ctbench.report.intervals import place
from ctbench.report.site.study_subject import MEANS, ChosenTrial, Key, StudySubject
from ctbench.report.site.subjects import page_names
from ctbench.report.site.tables import OTHER_SAMPLES, Cell, Line, Table, count, mean_cell, percent, text

BEFORE = ("study", "recipe", "trial", "final runs", "natural %", "certified %", "place")
AFTER = ("in hindsight: trial", "certified %, one run", "place in hindsight")
TEXTS = tuple(BEFORE.index(name) for name in ("study", "recipe", "final runs"))
PLACES = "A row has a place if all its final runs have been tested."
LATER = (
    "In hindsight: the trial with the highest certified accuracy on the test images; one run, trained without the "
    "held-out images and certified by the stages {stages}. The places can differ even if the same trial is best."
)


def studies_tables(subjects: Sequence[StudySubject]) -> list[Table]:
    """A table for each setting, protocol and verifier; the highest mean certified accuracy first."""
    groups: dict[Key, list[ChosenTrial]] = {}
    for chosen in (each for subject in subjects for each in subject.chosen):
        groups.setdefault(chosen.key, []).append(chosen)
    tables = [groups[key] for key in sorted(groups)]
    names = page_names((rows[0].title for rows in tables), "studies")
    return [_table(name.removesuffix(".html"), rows) for name, rows in zip(names, tables, strict=True)]


def _table(name: str, rows: Sequence[ChosenTrial]) -> Table:
    order = sorted(rows, key=lambda row: row.mean if row.mean is not None else -1.0, reverse=True)
    samples = {result["samples"] for row in rows for result in row.results}
    stages = {row.subject.study.hindsight.stages for row in rows if row.subject.study.hindsight is not None}
    notes = [OTHER_SAMPLES] if len(samples) > 1 else []
    notes += [MEANS, PLACES, *([LATER.format(stages=", ".join(sorted(stages)))] if stages else [])]
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
    subject, trial = row.subject, row.trial
    ranked = [other for other in every if other.mean is not None]
    best = {id(other): other.best.certified_accuracy for other in ranked if other.best is not None}
    means = [other.mean for other in ranked if other.mean is not None]
    compared = len(best) == len(ranked) and id(row) in best
    cells = (
        Cell(text=subject.name, links=((subject.name, subject.page),)),
        text(row.content["name"]),
        text(NOTHING) if trial is None else count(trial.trial),
        row.runs_cell,
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
