"""The journal of a study: a file of JSON lines, by Optuna, that several processes may write at the same time.

Every write holds a lock of the operating system, which ends with its process. So a process that is killed blocks
nobody, and a line that it has not finished is removed before the next one is written.
"""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

from ctbench.results import jsonl
from ctbench.tuning.plan import Plan

optuna.logging.set_verbosity(optuna.logging.WARNING)
NAME = "study"


class Lock(JournalFileOpenLock):
    """The lock of a journal."""

    def __init__(self, journal: Path) -> None:
        self.journal, self.lock = journal, FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self.lock.acquire()
        jsonl.mend(self.journal)
        return True

    def release(self) -> None:
        self.lock.release()


def opened(plan: Plan) -> optuna.Study:
    """The study in the journal of a plan's folder; it is created if there is none.

    Raises:
        ValueError: a line of the journal is not JSON.
    """
    path = plan.folder.journal
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=Lock(path)))
    except json.JSONDecodeError:
        jsonl.read(path)  # names the line
        raise
    try:
        return optuna.load_study(study_name=NAME, storage=storage, pruner=pruner(plan))
    except KeyError:
        return optuna.create_study(
            study_name=NAME, storage=storage, directions=directions(plan), pruner=pruner(plan), load_if_exists=True
        )


def trial(study: optuna.Study, number: int) -> optuna.trial.Trial:
    """A trial of a study that goes on, to which values can be reported."""
    return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def directions(plan: Plan) -> list[StudyDirection]:
    """Natural and certified accuracy for a front, else certified accuracy."""
    return [StudyDirection.MAXIMIZE] * (2 if plan.objective == "pareto" else 1)


def pruner(plan: Plan) -> BasePruner:
    """Which trials to give up."""
    if plan.pruned_by == "median":
        return MedianPruner(n_startup_trials=plan.prune_after)
    if plan.pruned_by == "hyperband":
        return HyperbandPruner(min_resource=plan.looks[0], max_resource=plan.recipe.epochs)
    return NopPruner()
