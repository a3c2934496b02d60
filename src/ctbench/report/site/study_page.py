"""The page of a study: its trials, what was chosen and why, and how the choice did on the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report.comparison import duration
from ctbench.report.grid import NOTHING
from ctbench.report.site.charts import Chart, Point, Series, chart, percents
from ctbench.report.site.study_subject import (
    ACCURACIES,
    DIFFERENCE,
    HELD_OUT,
    MEANS,
    RECORDS_DIFFER,
    StudySubject,
)
from ctbench.report.site.subjects import slug
from ctbench.report.site.tables import Cell, Line, Remark, Table, count, mean_cell, percent, table, text
from ctbench.results import Study, TrialRecord
from ctbench.results.decimals import decimals
from ctbench.results.studies import IMPORTANCE, Hindsight, front, values_in_words

CHOSEN = Remark("chosen", "trained again on the whole training set, and tested", plain=True)
BY_TEST = Remark("best on test", "what a choice by test images would have taken", plain=True)
ON_FRONT = Remark("front", "no other trial is at least as good in both accuracies and better in one", plain=True)
TEST_DATA = (
    "Trials were compared on the test images: the results on these images are optimistic. Do not compare them with "
    "results that were chosen on held-out images."
)
HELD_OUT_NOTE = "Trials were compared on images held out of the training set; the final runs alone saw test images."


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """All that the page of a study shows."""

    name: str
    warning: str
    note: str
    facts: tuple[tuple[str, str], ...]
    why: str
    means: Table | None
    results: Table | None
    trials: Table
    charts: tuple[Chart, ...]
    hindsight: Table | None
    importance: Table | None
    unimportant: str  # why there is no importance
    space: Table
    settings: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that have files."""
        every = (self.means, self.results, self.trials, self.hindsight, self.importance)
        return tuple(each for each in every if each is not None)


def study_page(subject: StudySubject) -> StudyPage:
    """The page of a study."""
    study, name = subject.study, subject.page.removesuffix(".html")
    content = study.content
    held_out = study.protocol == HELD_OUT
    importance = content["importance"] or {"evaluator": None, "reason": "not all trials have ended"}
    values = importance.get("values") if importance.get("evaluator") else None
    return StudyPage(
        name=subject.name,
        warning="" if held_out else TEST_DATA,
        note=HELD_OUT_NOTE if held_out else "",
        facts=tuple(_facts(study)),
        why=_sentence(str(content["why"])) or "Nothing is chosen yet: trials are still to come.",
        means=_means(subject, name) if study.results else None,
        results=_results(subject, name) if study.results else None,
        trials=_trials(study, name),
        charts=tuple(_charts(study, name)),
        hindsight=_hindsight(study, study.hindsight, name) if study.hindsight else None,
        importance=_importance(values, str(importance["evaluator"]), name) if values else None,
        unimportant="" if values else f"Not computed: {importance.get('reason', 'there are no values')}.",
        space=_pairs(
            "Values that were tried",
            "parameter",
            {key: values_in_words(value) for key, value in content["space"].items()},
        ),
        settings=_pairs("Settings", "setting", content["settings"]),
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _facts(study: Study) -> Iterator[tuple[str, str]]:
    counts = study.trials_by_state
    yield "recipe", str(study.content["name"])
    yield "protocol", study.protocol
    yield "compared on", f"{study.content['compared_on']} images"
    yield "objective", study.objective
    yield "trials", f"{len(study.trials)} of {study.content['trials']}" + (f": {counts}" if counts else "")
    yield "finished", "yes" if study.finished else "no"
    yield "time of all trials", duration(sum(trial.seconds for trial in study.trials))


def _trials(study: Study, name: str) -> Table:
    """A row for each trial, with its parameters."""
    parameters = _parameters(study)
    chosen, best = set(study.content["chosen"] or ()), {trial.trial for trial in front(study.trials)}
    lines = []
    for trial in study.trials:
        remarks = [CHOSEN] if trial.trial in chosen else []
        remarks += [ON_FRONT] if trial.trial in best else []
        cells = (
            Cell(text=str(trial.trial), value=trial.trial),
            Cell(text=", ".join(one.word for one in remarks) or NOTHING, remarks=tuple(remarks)),
            text(trial.ending),
            percent(trial.natural_accuracy),
            percent(trial.certified_accuracy),
            *(_parameter(trial.parameters.get(path)) for path in parameters),
            Cell(text=duration(trial.seconds), value=trial.seconds),
        )
        lines.append(Line(cells=cells))
    headings = ("trial", "remarks", "end", "natural %", "certified %", *parameters, "time")
    words = [5 + place for place, path in enumerate(parameters) if not _numeric(study, path)]
    return Table(
        name=f"{name}-trials",
        caption=f"Trials: accuracies on {study.content['compared_on']} images",
        headings=headings,
        texts=[1, 2, *words],
        lines=tuple(lines),
    )


def _parameters(study: Study) -> list[str]:
    return list(dict.fromkeys(path for trial in study.trials for path in trial.parameters))


def _numeric(study: Study, path: str) -> bool:
    return all(_is_number(trial.parameters.get(path, 0)) for trial in study.trials)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parameter(value: Any) -> Cell:
    if _is_number(value):
        return Cell(text=decimals(value, 4), value=float(value))
    return text(NOTHING if value is None else value)


def _means(subject: StudySubject, name: str) -> Table:
    """A row for each chosen trial: the means over its final runs."""
    rows = [
        [
            text(NOTHING) if chosen.trial is None else count(chosen.trial.trial),
            chosen.runs_cell,
            *(mean_cell(chosen.spread(accuracy)) for accuracy in ACCURACIES),
        ]
        for chosen in subject.chosen
    ]
    headings = ("trial", "final runs", *(f"{accuracy} %" for accuracy in ACCURACIES))
    return table("The choice on test images", headings, rows, texts=[1], name=f"{name}-means", note=MEANS)


def _end(subject: StudySubject, result: Mapping[str, Any]) -> Cell:
    """Whether a final run failed; else whether its records say the same."""
    said = subject.differences.get(result["folder"])
    if said is None:
        return text(result.get("error") or "tested")
    return Cell(text=RECORDS_DIFFER, remarks=(Remark(RECORDS_DIFFER, DIFFERENCE, said),))


def _results(subject: StudySubject, name: str) -> Table:
    """The final runs: their accuracies on the test images next to those of their trials."""
    study = subject.study
    trials = {trial.trial: trial for trial in study.trials}
    rows = []
    for result in study.results:
        trial, folder = trials.get(result["trial"]), str(result["folder"])
        page = subject.runs.get(folder)
        compared = [None, None] if trial is None else [trial.natural_accuracy, trial.certified_accuracy]
        tested = [result.get(f"{kind}_accuracy") for kind in ("natural", "certified")]
        rows.append(
            [
                Cell(text=folder, links=((folder, page),) if page else ()),
                _end(subject, result),
                Cell(text=str(result["trial"]), value=result["trial"]),
                Cell(text=str(result["seed"]), value=result["seed"]),
                *(percent(share) for pair in zip(compared, tested, strict=True) for share in pair),
                _difference(compared[1], tested[1]),
            ]
        )
    on = study.content["compared_on"]
    compared_to = [f"{kind} %, {where}" for kind in ("natural", "certified") for where in (on, "test")]
    return table(
        f"The choice: {on} against test images",
        ("final run", "end", "trial", "seed", *compared_to, "certified: difference"),
        rows,
        texts=range(2),
        name=f"{name}-results",
        note=" ".join(f"{folder}: {said}." for folder, said in subject.differences.items()),
    )


def _hindsight(study: Study, hindsight: Hindsight, name: str) -> Table:
    """The complete trials on the compared images and on the test images, with what each choice takes."""
    chosen, trials = set(study.content["chosen"] or ()), {trial.trial: trial for trial in study.trials}
    rows = []
    for tested in hindsight.trials:
        remarks = [CHOSEN] if tested.trial in chosen else []
        remarks += [BY_TEST] if tested is hindsight.best else []
        before = trials[tested.trial].certified_accuracy
        rows.append(
            [
                Cell(text=str(tested.trial), value=tested.trial),
                Cell(text=", ".join(one.word for one in remarks) or NOTHING, remarks=tuple(remarks)),
                *(percent(share) for share in (before, tested.certified_accuracy, tested.natural_accuracy)),
                _difference(before, tested.certified_accuracy),
            ]
        )
    return table(
        "In hindsight: the trials on the test images",
        (
            "trial",
            "remarks",
            "certified %, validation",
            "certified %, test",
            "natural %, test",
            "certified: difference",
        ),
        rows,
        texts=[1],
        name=f"{name}-hindsight",
        note="Certified on the test images after the end of the study, by the stages that compared the trials.",
    )


def _difference(before: float | None, after: float | None) -> Cell:
    if before is None or after is None:
        return Cell(text=NOTHING)
    return Cell(text=f"{100 * (after - before):+.2f}", value=100 * (after - before))


def _charts(study: Study, name: str) -> Iterator[Chart]:
    """Certified over natural accuracy of all complete trials, and over each parameter that is a number."""
    complete = [trial for trial in study.trials if trial.state == "complete"]
    if not complete:
        return
    best = {trial.trial for trial in front(study.trials)}
    series = _marks(study, complete, lambda trial: 100 * trial.accuracies[0])
    natural, certified = ([(100 * trial.accuracies[place], 0.0) for trial in complete] for place in (0, 1))
    yield chart(
        f"{name}-front",
        f"Certified against natural accuracy ({study.content['compared_on']} images)",
        series,
        x="natural accuracy (%)",
        y="certified accuracy (%)",
        x_range=percents(natural),
        y_range=percents(certified),
        front=[(100 * t.accuracies[0], 100 * t.accuracies[1]) for t in complete if t.trial in best],
    )
    for path in _parameters(study):
        numbers = [trial for trial in complete if _is_number(trial.parameters.get(path))]
        if len({trial.parameters[path] for trial in numbers}) > 1:
            log = bool(study.content["space"].get(path, {}).get("log"))
            yield chart(
                f"{name}-{slug(path)}",
                f"Certified accuracy over {path}",
                _marks(study, numbers, lambda trial, path=path: float(trial.parameters[path])),
                x=path,
                y="certified accuracy (%)",
                log_x=log and all(trial.parameters[path] > 0 for trial in numbers),
                y_range=percents([(100 * trial.accuracies[1], 0.0) for trial in numbers]),
            )


def _marks(study: Study, trials: Sequence[TrialRecord], place: Any) -> list[Series]:
    """Chosen trials and others, at a place on the x axis."""
    chosen = set(study.content["chosen"] or ())
    kinds = [
        ("chosen", 1, [trial for trial in trials if trial.trial in chosen]),
        ("other trials", 0, [trial for trial in trials if trial.trial not in chosen]),
    ]
    return [
        Series(
            name=kind,
            kind="marks",
            colour=colour,
            points=tuple(
                Point(
                    x=place(trial),
                    y=100 * trial.accuracies[1],
                    text=_told(trial),
                    label=str(trial.trial),
                )
                for trial in members
            ),
        )
        for kind, colour, members in kinds
        if members
    ]


def _told(trial: TrialRecord) -> str:
    natural, certified = trial.accuracies
    values = ", ".join(f"{path} {_parameter(value).text}" for path, value in trial.parameters.items())
    return f"trial {trial.trial}: natural {100 * natural:.2f} %, certified {100 * certified:.2f} %; {values}"


def _importance(values: Mapping[str, float], evaluator: str, name: str) -> Table:
    rows = [[text(path), percent(share, bar=True)] for path, share in sorted(values.items(), key=lambda item: -item[1])]
    note = IMPORTANCE.format(evaluator=evaluator)
    return table("Importance of parameters", ("parameter", "importance %"), rows, name=f"{name}-importance", note=note)


def _pairs(caption: str, heading: str, values: Mapping[str, Any]) -> Table:
    rows = [[text(key), text(value)] for key, value in values.items()]
    return table(caption, (heading, "value"), rows, texts=range(2))
