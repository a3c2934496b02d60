"""The files of a study that others read: see `ctbench.results.studies`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ctbench.files import write_whole
from ctbench.results import Study, StudyFolder, TrialRecord, jsonl
from ctbench.results.studies import IMPORTANCE, values_in_words
from ctbench.tuning.plan import Plan

MARKS = {
    "held-out": "Trials were compared on images held out of the training set; the test images were certified once, by "
    "the final runs.",
    "ctbench-test-data": "**Trials were compared on the test images, the protocol of CTBench: the results on these "
    "images are optimistic.**",
}


def begun(plan: Plan, trials: int) -> dict[str, Any]:
    """The content of study.json before there is a choice."""
    return plan.to_json() | {
        "trials": trials,
        "chosen": None,
        "why": "",
        "importance": None,
        "results": [],
        "finished": False,
    }


def write_trials(plan: Plan, records: Sequence[TrialRecord]) -> None:
    """Write trials.jsonl and trials.csv."""
    jsonl.rewrite(plan.folder.trials, (record.to_json() for record in records))
    rows = [record.row() for record in records]
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
    write_whole(plan.folder.table, text.getvalue().encode())


def write_text(study: Study) -> None:
    """Write study.md."""
    write_whole(StudyFolder(study.path).text, text(study).encode())


def text(study: Study) -> str:
    """A study to read, in Markdown."""
    content = study.content
    lines = [
        f"# A study of {content['name']}",
        "",
        f"Protocol: `{study.protocol}`. {MARKS[study.protocol]}",
        "",
        f"Objective: {study.objective}. {len(study.trials)} of {content['trials']} trials: "
        f"{study.trials_by_state or 'none has begun'}.",
        "",
        "## Chosen",
        "",
        f"{content['why'] or 'Nothing yet: trials are still to come.'}",
        "",
        *_table(_results(study)),
        "",
        f"## Trials ({content['compared_on']} images)",
        "",
        *_table([_shown(trial) for trial in study.trials]),
        "",
        *_hindsight(study),
        "## Importance of parameters",
        "",
        *_importance(content["importance"]),
        "",
        "## Settings",
        "",
        *_table([{"parameter": name, "values": values_in_words(values)} for name, values in content["space"].items()]),
        "",
        *_table([_setting(name, value) for name, value in content["settings"].items()]),
    ]
    return "\n".join(lines) + "\n"


def _setting(name: str, value: object) -> dict[str, str]:
    """The row of a setting, in the words of the options of `ctbench tune`."""
    option = "search_seed" if name == "seed" else name
    return {"setting": option, "value": "all" if name == "samples" and value is None else str(value)}


def _results(study: Study) -> list[dict[str, str]]:
    """A row for each final run."""
    rows = []
    for result in study.results:
        row = {"run": result["folder"], "trial": str(result["trial"]), "seed": str(result["seed"])}
        if "error" in result:
            rows.append(row | {"result": result["error"]})
            continue
        accuracies = {
            f"{kind} %": _percent(result[f"{kind}_accuracy"]) for kind in ("natural", "adversarial", "certified")
        }
        rows.append(row | {"test images": str(result["samples"])} | accuracies)
    return rows


def in_hindsight(study: Study) -> str:
    """What a choice by test images would have given, in a sentence. The study has looked back, and chosen one trial."""
    assert study.hindsight is not None, "the study has not looked back"
    (chosen,) = study.chosen
    best, ours = study.hindsight.best, study.hindsight.of_trial(chosen.trial)
    if best.trial == ours.trial:
        return f"By test images, trial {best.trial} would also have been chosen."
    return (
        f"By test images, trial {best.trial} would have been chosen: its certified accuracy on them is "
        f"{_percent(best.certified_accuracy)} %, that of trial {ours.trial} {_percent(ours.certified_accuracy)} %."
    )


def _hindsight(study: Study) -> list[str]:
    """How the trials do on the test images, if the study has looked back."""
    if study.hindsight is None:
        return []
    about = "All complete trials, certified on the test images after the end of the study. Nothing was chosen by this."
    rows = [
        {
            "trial": str(each.trial),
            "test images": str(each.samples),
            "natural %": _percent(each.natural_accuracy),
            "certified %": _percent(each.certified_accuracy),
        }
        for each in study.hindsight.trials
    ]
    sentence = [in_hindsight(study), ""] if len(study.chosen) == 1 else []
    return ["## In hindsight: trials on the test images", "", about, "", *sentence, *_table(rows), ""]


def _shown(trial: TrialRecord) -> dict[str, str]:
    """A row for a trial."""
    bounds = ", ".join(f"{epoch}: {_percent(value)}" for epoch, value in trial.bounds.items())
    return {
        "trial": str(trial.trial),
        **{
            name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in trial.parameters.items()
        },
        "natural %": _percent(trial.natural_accuracy),
        "certified %": _percent(trial.certified_accuracy),
        "bound % after epoch": bounds,
        "end": trial.ending,
        "seconds": f"{trial.seconds:.1f}",
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _importance(content: Mapping[str, Any] | None) -> list[str]:
    if content is None:
        return ["Not yet known."]
    if content["evaluator"] is None:
        return [f"Not computed: {content['reason']}."]
    rows = [{"parameter": name, "share": f"{share:.2f}"} for name, share in content["values"].items()]
    return [IMPORTANCE.format(evaluator=content["evaluator"]), "", *_table(rows)]


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows as a table in Markdown; a row may lack columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ["None."]
    cells = [columns, ["---"] * len(columns), *([row.get(name, "") for name in columns] for row in rows)]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
