"""What a choice by test images would have given: after the end of a study, its trials are certified on these."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from filelock import FileLock
from torch import Tensor

from ctbench.engine import Engine
from ctbench.results import Study, TrialRecord, jsonl
from ctbench.results.studies import TestedTrial
from ctbench.training import load_run
from ctbench.tuning import writing
from ctbench.tuning.plan import Plan
from ctbench.tuning.trial import Begun, Outcome, Place, Watch
from ctbench.verify import Records, certify, stages_by_name, timeout_of
from ctbench.verify.trained import about


def look_back(plan: Plan, engine: Engine, place: Place, watch: Watch) -> None:
    """Certify the complete trials of a finished study on the test images, by the stages that compared them.

    Writes hindsight.json and study.md. What is there already is not done again.
    """
    with FileLock(plan.folder.path / "final.lock"):
        study = Study.read(plan.folder.path)
        if study.hindsight is not None:
            return
        test = plan.recipe.dataset.load(place.data).test[: plan.samples]
        trials = [trial for trial in study.trials if trial.state == "complete"]
        tested = [
            _tested(plan, trial, test, engine, watch, unfinished=len(trials) - number)
            for number, trial in enumerate(trials)
        ]
        content: dict[str, Any] = {"stages": plan.trial_stages, "timeout": timeout_of(plan.trial_stages)}
        jsonl.write_json(plan.folder.hindsight, content | {"trials": [asdict(each) for each in tested]})
        writing.write_text(Study.read(plan.folder.path))


def _tested(
    plan: Plan, trial: TrialRecord, test: tuple[Tensor, Tensor], engine: Engine, watch: Watch, *, unfinished: int
) -> TestedTrial:
    (x, y), path = test, plan.folder.hindsight_of(trial.trial)
    run, name = load_run(plan.folder.trial(trial.trial).path), f"trial {trial.trial} in hindsight"
    watch(name, Begun("certify", path, len(x), unfinished))
    certification = certify(
        run.model.to(engine.home),
        x,
        y,
        run.recipe.threat,
        stages=stages_by_name(plan.trial_stages),
        timeout=timeout_of(plan.trial_stages),
        records=Records(path, resume=True, about=about(plan.recipe) | {"selected_on": "test"}),
        engine=engine,
    )
    watch(name, Outcome(state="complete", certified_accuracy=certification.certified_accuracy))
    return TestedTrial(
        trial=trial.trial,
        samples=len(certification),
        natural_accuracy=certification.natural_accuracy,
        certified_accuracy=certification.certified_accuracy,
    )
