"""The search of a study: trials are made, given to workers, and told of in the journal, until all have ended.

Several processes may search in one folder. Whoever has a trial in hand holds its lock, which ends with the process; a
trial that is running and that nobody holds was interrupted, and goes on before a new one begins.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest

import optuna
from filelock import FileLock, Timeout

from ctbench.engine import Engine, Task
from ctbench.results import StudyFolder, TrialRecord, jsonl
from ctbench.time_budget import now
from ctbench.tuning import choosing, writing
from ctbench.tuning.journal import opened, trial
from ctbench.tuning.plan import Plan
from ctbench.tuning.proposing import distributions, proposal
from ctbench.tuning.space import Value
from ctbench.tuning.trial import Outcome, Place, Watch, Work, perform

State = optuna.trial.TrialState
STATES = {"complete": State.COMPLETE, "pruned": State.PRUNED, "failed": State.FAIL}
POLL = 1.0  # seconds between two looks at trials that other processes have in hand
TITLE = "trial "  # of the names of trials, before their numbers


@dataclass(eq=False)
class Search:
    """A process that searches.

    Args:
        plan: the study.
        wanted: how many trials there are to be.
        deadline: no trial begins after it, by `ctbench.time_budget.now`.
        place: where workers work.
        watch: hears what happens.
    """

    plan: Plan
    wanted: int
    deadline: float = math.inf
    place: Place = field(default_factory=Place)
    watch: Watch = lambda *_: None
    claims: dict[int, FileLock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.study = opened(self.plan)

    def run(self, engine: Engine) -> None:
        """Search until no trial is running and none is to begin, and choose.

        Raises:
            ValueError: no trial is complete.
            TasksFailedError: workers died, or could not read or write a file; these trials go on the next time.
        """
        try:
            while self._unfinished() or not self._choose():
                tasks = self._tasks()
                if (first := next(tasks, None)) is None:  # other processes have the rest in hand
                    time.sleep(POLL)
                    continue
                with closing(engine.run(chain([first], tasks), count=self._unfinished())) as results:
                    for name, message in results:
                        if isinstance(message, Outcome):
                            self._end(int(name.removeprefix(TITLE)), message)
                        else:
                            self.watch(name, replace(message, unfinished=self._unfinished() + self.plan.seeds))
        finally:
            for claim in self.claims.values():
                claim.release()

    @property
    def closed(self) -> bool:
        """Whether the study has chosen, so that no trial begins any more."""
        return jsonl.read_json(self.plan.folder.study)["chosen"] is not None

    def _open(self) -> bool:
        """Whether a trial may begin."""
        return now() < self.deadline and not self.closed

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _unfinished(self) -> int:
        """How many trials are running, here or elsewhere, or are to begin."""
        trials = self._trials()
        more = max(0, self.wanted - len(trials)) if self._open() else 0
        return sum(each.state is State.RUNNING for each in trials) + more

    def _tasks(self) -> Iterator[Task]:
        """A task for each trial that nobody has in hand, each made when a worker is free."""
        while (next_one := self._claimed()) is not None:
            number, values = next_one
            try:
                work = Work(self.plan, number, self.plan.trial(values), self.place)
            except ValueError as error:  # values that do not fit together
                self._end(number, Outcome(state="failed", error=str(error)))
                continue
            yield Task(f"{TITLE}{number}", perform, (work,))

    def _claimed(self) -> tuple[int, dict[str, Value]] | None:
        """The number and the values of a trial that this process has in hand from now on."""
        with FileLock(self.plan.folder.lock):
            trials = self._trials()
            for each in trials:
                if each.state is State.RUNNING and self._claim(each.number):
                    return each.number, each.params
            if len(trials) >= self.wanted or not self._open() or not self._claim(len(trials)):
                return None
            values = proposal(self.plan, trials, wanted=self.wanted)
            self.study.add_trial(
                optuna.trial.create_trial(state=State.RUNNING, params=values, distributions=distributions(self.plan))
            )
            return len(trials), values

    def _claim(self, number: int) -> bool:
        """Take a trial in hand, unless this or another process already has."""
        if number in self.claims:
            return False
        path = self.plan.folder.lock_of(self.plan.folder.trial(number), "driver")
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = FileLock(path, timeout=0)
        try:
            claim.acquire()
        except Timeout:
            return False
        self.claims[number] = claim
        return True

    def _end(self, number: int, outcome: Outcome) -> None:
        """Tell the journal of the end of a trial, and let go of it."""
        told = trial(self.study, number)
        for name in OUTCOME:
            told.set_user_attr(name, getattr(outcome, name))
        both = outcome.natural_accuracy, outcome.certified_accuracy
        values = [value for value in both if value is not None][-len(self.study.directions) :]
        self.study.tell(number, values or None, STATES[outcome.state])
        with FileLock(self.plan.folder.lock):
            writing.write_trials(self.plan, self.records())
        self.claims.pop(number).release()
        self.watch(f"{TITLE}{number}", outcome)

    def records(self) -> list[TrialRecord]:
        """The records of all trials."""
        return [record(self.plan, each) for each in self._trials()]

    def _choose(self) -> bool:
        """Write what the study chooses; returns whether it could. Not while another process has a trial in hand.

        Raises:
            ValueError: no trial is complete; or the study has chosen, and its trials are not those of its journal.
        """
        with FileLock(self.plan.folder.lock):
            records = self.records()
            if self.closed:
                check_trials(self.plan.folder, records)
                return True
            writing.write_trials(self.plan, records)
            if all(each.state != "running" for each in records):
                chosen, why = choosing.choice(self.plan, records)
                content = jsonl.read_json(self.plan.folder.study)
                content |= {"chosen": chosen, "why": why, "importance": choosing.importance(self.plan, records)}
                jsonl.write_json(self.plan.folder.study, content)
            return self.closed


def check_trials(folder: StudyFolder, records: Sequence[TrialRecord]) -> None:
    """Raise ValueError unless the file of a study's trials holds the records of its journal."""
    there = [line for _, line in jsonl.lines(folder.trials)]
    wanted = [json.loads(json.dumps(record.to_json())) for record in records]
    pairs = enumerate(zip_longest(there, wanted), start=1)
    line = next((number for number, (found, right) in pairs if json.dumps(found) != json.dumps(right)), None)
    if line is not None or jsonl.torn(folder.trials):
        raise ValueError(
            f"{folder.trials}, line {line or len(there) + 1}: not as the study left it, by {folder.journal.name}; "
            f"neither file was changed: restore the one that is damaged from a copy"
        )


OUTCOME = ("natural_accuracy", "certified_accuracy", "pruned_at", "error", "seconds")


def record(plan: Plan, told: optuna.trial.FrozenTrial) -> TrialRecord:
    """The record of a trial in the journal."""
    names = {state: name for name, state in STATES.items()} | {State.RUNNING: "running"}
    ended = told.user_attrs if told.state is not State.RUNNING else {}
    return TrialRecord.from_json(
        {
            "trial": told.number,
            "folder": str(plan.folder.trial(told.number).path.relative_to(plan.folder.path)),
            "state": names[told.state],
            "protocol": plan.protocol,
            "parameters": told.params,
            "natural_accuracy": None,
            "certified_accuracy": None,
            "bounds": {str(epoch): value for epoch, value in sorted(told.intermediate_values.items())},
            "pruned_at": None,
            "error": "",
            "seconds": 0.0,
            **ended,
        }
    )
