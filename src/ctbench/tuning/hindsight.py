"""What a choice by test images would have given: after the end of a study, its trials are certified on these."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from filelock import FileLock

from ctbench.engine import Engine
from ctbench.results import Study, TrialRecord, jsonl
from ctbench.results.studies import TestedTrial
from ctbench.tuning import writing
from ctbench.tuning.final_certification import FinalCertification
from ctbench.tuning.plan import Plan
from ctbench.tuning.trial import Place, Watch
from ctbench.verify import timeout_of


def look_back(plan: Plan, engine: Engine, place: Place, watch: Watch) -> None:
    """Certify the complete trials of a finished study on the test images, by the stages that compared them.

    Writes hindsight.json and study.md. What is there already is not done again.
    """
    with FileLock(plan.folder.path / "final.lock"):
        study = Study.read(plan.folder.path)
        if study.hindsight is not None:
            return
        test = FinalCertification(
            plan, plan.trial_stages, timeout_of(plan.trial_stages), {"selected_on": "test"}, engine, place, watch
        )
        trials = [trial for trial in study.trials if trial.state == "complete"]
        tested = [_tested(test, trial, unfinished=len(trials) - number) for number, trial in enumerate(trials)]
        content: dict[str, Any] = {"stages": test.stages, "timeout": test.timeout}
        jsonl.write_json(plan.folder.hindsight, content | {"trials": [asdict(each) for each in tested]})
        writing.write_text(Study.read(plan.folder.path))


def _tested(test: FinalCertification, trial: TrialRecord, *, unfinished: int) -> TestedTrial:
    plan, number = test.plan, trial.trial
    certification = test(
        f"trial {number} in hindsight",
        plan.final(trial.parameters),
        plan.folder.trial(number),
        plan.folder.hindsight_of(number),
        unfinished=unfinished,
    )
    return TestedTrial(
        trial=number,
        samples=len(certification),
        natural_accuracy=certification.natural_accuracy,
        certified_accuracy=certification.certified_accuracy,
    )
