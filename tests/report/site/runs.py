"""Run folders and studies with made-up records, and reports about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctbench.report.site import AnalysisView, SampleImages, StudySubject, Subject, page_names
from ctbench.report.site.subjects import Pixels
from ctbench.results import (
    CorruptionRecord,
    Layout,
    Measurement,
    Open,
    PartRecord,
    RunFolder,
    SampleRecord,
    Study,
    Verdict,
    append_corruptions,
    jsonl,
)
from ctbench.results.radii import Trial

SAMPLES = 10
LETTERS = {
    "c": Verdict.CERTIFIED,
    "f": Verdict.FALSIFIED,
    "u": Verdict.UNKNOWN,
    "t": Verdict.UNKNOWN,
    "m": Verdict.MISCLASSIFIED,
}


def record(index: int, letter: str, **fields: Any) -> SampleRecord:
    """A record with the verdict of a letter, "t" for a sample that ran out of time; even samples have label 1."""
    label, verdict = 1 + index % 2, LETTERS[letter]
    late: dict[str, Any] = {"open": Open.TIME, "reason": "5 seconds were not enough"} if letter == "t" else {}
    point = {"counterexample": np.full((1, 4, 4), 0.6)} if letter == "f" else {}
    return SampleRecord(
        index=index,
        label=label,
        prediction=0 if letter == "m" else label,
        verdict=verdict,
        stage={"m": "clean", "f": "pgd"}.get(letter, "interval"),
        bound=0.5 + index if letter == "c" else None,
        seconds=0.01 * (index + 1),
        digest=f"digest {index}",
        **late,
        **point,
        **fields,
    )


def make_run(
    folder: Path,
    verdicts: str = "ccccccffum",
    *,
    method: str = "ibp",
    seed: int = 0,
    dataset: str = "digits",
    eps: float = 0.1,
    more: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunFolder:
    """A run with two epochs, certified on as many samples as there are letters; none: not certified."""
    run = RunFolder(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    recipe = {"name": "r", "dataset": {"name": dataset}, "network": {"name": "cnn3"}, "method": {"name": method}}
    jsonl.write_json(run.recipe, recipe | {"seed": seed} | (more or {}))
    if not run.metrics.exists():
        epochs = [
            {"epoch": n, "loss": 1 / n, "natural_accuracy": 1 - 0.1 / n, "eps": 0.05 * n, "seconds": 1.5}
            for n in (1, 2)
        ]
        jsonl.append(run.metrics, epochs)
    if verdicts:
        certify(run, verdicts, dataset=dataset, eps=eps, settings=settings)
    return run


def certify(
    run: RunFolder,
    verdicts: str,
    *,
    dataset: str = "digits",
    eps: float = 0.1,
    settings: Mapping[str, Any] | None = None,
    name: str = "",
) -> None:
    files = run.certification(name or f"linf-{eps:g}")
    about = {"norm": "linf", "eps": eps, "threat": f"Linf(eps={eps})", "dataset": dataset, "network": "cnn3"}
    stages = ["Bound(domain=Interval())", "BranchAndBound()"]
    files.start(
        about | {"stages": stages, "timeout": 5.0, "samples": [0, len(verdicts)]} | (settings or {}), resume=False
    )
    files.append([record(index, letter) for index, letter in enumerate(verdicts)], counterexamples=True)


def search(run: RunFolder) -> None:
    """A search for radii of three samples."""
    files = run.radii("linf-0.2")
    files.start(
        {"norm": "linf", "dataset": "digits", "largest": 0.2, "tolerance": 0.05, "samples": [0, 3]}, resume=False
    )
    files.append(
        [Trial(eps, record(index, letter)) for index, eps, letter in ((0, 0.1, "c"), (0, 0.15, "f"), (1, 0.2, "c"))]
    )


def analyse(run: RunFolder, name: str, *points: Measurement, eps: float = 0.1, **settings: Any) -> None:
    """Records of an analysis of four samples."""
    about = {"analysis": name, "options": {}, "run": run.path.name, "dataset": "digits", "method": "ibp"}
    about |= {"train_eps": 0.1, "norm": "linf", "threat": "Linf(eps=0.0)", "network_digest": "d", "seed": 0}
    digest = settings.pop("digest", "same")
    files = run.analysis(name)
    files.start(about | settings)
    files.append(PartRecord(eps=eps, start=0, stop=4, digest=digest, seconds=1.0, points=points))


def corrupt(run: RunFolder, right: Sequence[int], *, severities: Sequence[int] = (1, 5), **settings: Any) -> None:
    """Counts on ten clean images, of which nine are right, and on fog and stripes by severity."""
    path = run.corrupted("ours")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"dataset": "digits", "source": "ours", "seed": 0, "samples": None, "weights": "w"}
    jsonl.write_json(path.with_suffix(".json"), about | settings)
    keys = [("clean", None), *((kind, grade) for kind in ("fog", "stripe") for grade in severities)]
    append_corruptions(
        path,
        [
            CorruptionRecord(corruption=kind, severity=grade, right=count, samples=10)
            for (kind, grade), count in zip(keys, (9, *right), strict=True)
        ],
    )


def make_study(folder: Path, *, protocol: str = "held-out", chosen: Sequence[int] | None = (1,)) -> Study:
    """A study of three trials, one of them pruned, with a final run."""
    final = make_run(folder / "final" / "0001-seed-0", "ccccccccfm", method="mtl-ibp")
    result = {"trial": 1, "seed": 0, "folder": "final/0001-seed-0", "samples": 10}
    accuracies = {"natural_accuracy": 0.9, "adversarial_accuracy": 0.8, "certified_accuracy": 0.8}
    content = {
        "name": "digits_mtl_ibp",
        "recipe": jsonl.read_json(final.recipe) | {"threat": {"name": "linf", "eps": 0.1}},
        "protocol": protocol,
        "compared_on": "validation" if protocol == "held-out" else "test",
        "objective": "certified",
        "space": {"method.alpha": {"low": 0.1, "high": 0.5, "log": True, "whole": False}},
        "settings": {"validation": 0.1, "seed": 0},
        "trials": 3,
        "chosen": None if chosen is None else list(chosen),
        "why": "" if chosen is None else "Trial 1 has the highest certified accuracy.",
        "importance": {"evaluator": "PED-ANOVA", "values": {"method.alpha": 0.75, "l1": 0.25}},
        "results": [] if chosen is None else [result | accuracies],
        "finished": chosen is not None,
    }
    jsonl.write_json(folder / "study.json", content)
    trials: list[dict[str, Any]] = []
    for number, (alpha, state, accuracy) in enumerate(
        ((0.1, "complete", 0.7), (0.3, "complete", 0.85), (0.5, "pruned", None))
    ):
        about = {"trial": number, "folder": f"trials/{number:04d}", "state": state, "protocol": protocol}
        about |= {"parameters": {"method.alpha": alpha}, "natural_accuracy": accuracy, "certified_accuracy": accuracy}
        trials.append(
            about | {"bounds": {}, "pruned_at": 2 if state == "pruned" else None, "error": "", "seconds": 3.0}
        )
    jsonl.append(folder / "trials.jsonl", trials)
    return Study.read(folder)


def find(records: Sequence[SampleRecord]) -> dict[int, Pixels]:
    """A grey image for each record."""
    return {each.index: np.full((1, 4, 4), 0.5) for each in records}


VIEWS = {
    "fragmentation": AnalysisView(
        about="Neurons that switch.",
        layout=Layout(kind="bars", quantities=("sampled",), label="unstable neurons (share)"),
    ),
    "tightness": AnalysisView(layout=Layout(kind="scatter", quantities=("tightness",), label="tightness")),
}


def subjects(runs: Sequence[RunFolder], names: Sequence[str] = ()) -> list[Subject]:
    """The runs as a report takes them."""
    names = names or [run.path.name for run in runs]
    pages = page_names(names, "run")
    images = SampleImages(find=find, classes=("zero", "one", "two"))
    return [
        Subject(folder=run, name=name, page=page, command="ctbench train r", images=images, views=VIEWS)
        for run, name, page in zip(runs, names, pages, strict=True)
    ]


def study_subject(study: Study) -> StudySubject:
    return StudySubject(study=study, name="my-study", page="study-my-study.html", runs={})
