"""The end of a study: what is chosen is trained again on the whole training set, and certified on the test set once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from filelock import FileLock

from ctbench.engine import Engine, Task
from ctbench.results import RunFolder, Study, StudyFolder, jsonl
from ctbench.results.runs import region_name
from ctbench.training import Recipe, train
from ctbench.tuning import writing
from ctbench.tuning.final_certification import FinalCertification
from ctbench.tuning.plan import Plan
from ctbench.tuning.trial import Begun, Outcome, Place, Watch, alone

Final = tuple[int, int]  # the number of a trial, and a seed


def finish(plan: Plan, engine: Engine, place: Place, watch: Watch) -> None:
    """Train and certify what a study has chosen, and write the results. What is there already is not done again.

    Raises:
        TasksFailedError: workers died; the finished results are kept.
    """
    with FileLock(plan.folder.path / "final.lock"):  # another process may do the same: then this one finds it done
        study = Study.read(plan.folder.path)
        content = dict(study.content)
        if study.finished:
            return
        finals = {
            (trial.trial, seed): plan.final(trial.parameters, seed)
            for trial in study.chosen
            for seed in range(plan.recipe.seed, plan.recipe.seed + plan.seeds)
        }
        errors = _trained(plan, finals, engine, place, watch)
        test = FinalCertification(plan, plan.stages, plan.seconds, plan.about, engine, place, watch)
        content["results"] = [
            _result(test, final, recipe, errors.get(final, ""), unfinished=len(finals) - number)
            for number, (final, recipe) in enumerate(finals.items())
        ]
        jsonl.write_json(plan.folder.study, content | {"finished": True})
        writing.write_text(Study.read(plan.folder.path))


def _trained(plan: Plan, finals: dict[Final, Recipe], engine: Engine, place: Place, watch: Watch) -> dict[Final, str]:
    """Train the final runs; returns the errors of those that fail."""
    names = {_name(plan, final): final for final in finals}
    tasks = [
        Task(name, train_final, (plan.folder, plan.folder.final(*final), finals[final], place))
        for name, final in names.items()
        if not plan.folder.final(*final).weights.exists()
    ]
    errors: dict[Final, str] = {}
    if tasks:
        with closing(engine.run(tasks, count=len(tasks))) as results:
            for name, message in results:
                if isinstance(message, Begun):
                    watch(name, replace(message, unfinished=len(finals)))
                else:
                    errors[names[name]] = message
    return errors


def _name(plan: Plan, final: Final) -> str:
    return str(plan.folder.final(*final).path.relative_to(plan.folder.path))


def train_final(study: StudyFolder, folder: RunFolder, recipe: Recipe, place: Place) -> Iterator[Begun | str]:
    """The task of a worker: train a final run; yields its error, if it diverges or its values are not valid."""
    with alone(study, folder):
        yield Begun("train", folder.metrics, recipe.epochs)
        try:
            train(recipe, out=folder.path, resume=True, data=place.data, device=place.device, quiet=True)
        except (ValueError, ArithmeticError) as error:
            yield " ".join(f"{type(error).__name__}: {error}".split())


def _result(test: FinalCertification, final: Final, recipe: Recipe, error: str, *, unfinished: int) -> dict[str, Any]:
    """The entry of study.json for a final run: certify its test images."""
    folder, name = test.plan.folder.final(*final), _name(test.plan, final)
    entry: dict[str, Any] = {"trial": final[0], "seed": final[1], "folder": name}
    if error:
        test.watch(name, Outcome(state="failed", error=error))
        return entry | {"error": error}
    files = folder.certification(region_name(recipe.threat.name, recipe.threat.eps))
    certification = test(name, recipe, folder, files.records, unfinished=unfinished)
    return entry | {
        "samples": len(certification),
        "natural_accuracy": certification.natural_accuracy,
        "adversarial_accuracy": certification.adversarial_accuracy,
        "certified_accuracy": certification.certified_accuracy,
    }
