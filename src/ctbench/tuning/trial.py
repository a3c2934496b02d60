"""A trial: train its recipe, look at it now and then, and compare it. A worker does this, in the trial's run folder.

An interrupted trial goes on from its files: its last epoch, the bounds in the journal, the records that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock
from torch import Tensor, nn

from ctbench.results import RunFolder, StudyFolder, jsonl
from ctbench.results.runs import region_name
from ctbench.training import Recipe, checkpoints, train
from ctbench.training.blueprint import Blueprint
from ctbench.tuning.plan import Plan
from ctbench.verify import Records, certify, stages_by_name, timeout_of
from ctbench.verify.trained import about

if TYPE_CHECKING:
    from optuna.trial import Trial

PATIENCE = 60.0  # seconds for a worker to end whose driver was killed


@dataclass(frozen=True)
class Begun:
    """A step of a run has begun.

    Args:
        step: "train" or "certify".
        records: the file that grows by a line for each epoch or sample.
        total: how many lines there are in the end.
        unfinished: how many runs of the study have not ended, with this one, as far as is known.
    """

    step: Literal["train", "certify"]
    records: Path
    total: int
    unfinished: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended; the fields are those of `ctbench.results.TrialRecord`."""

    state: Literal["complete", "pruned", "failed"]
    natural_accuracy: float | None = None
    certified_accuracy: float | None = None
    pruned_at: int | None = None
    error: str = ""
    seconds: float = 0.0


Watch = Callable[[str, Begun | Outcome], None]  # called with the name of a run, and what happens to it


class PrunedError(Exception):
    """The trial is given up after an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


@dataclass(frozen=True)
class Place:
    """Where a worker works.

    Args:
        device: the device of networks.
        data: the folder of the data sets; None is the usual one.
    """

    device: str = "cpu"
    data: Path | None = None


@contextmanager
def alone(study: StudyFolder, run: RunFolder) -> Iterator[None]:
    """A context in which no other worker works on a run: one whose driver was killed may still be ending."""
    lock = study.lock_of(run, "worker")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=PATIENCE):
        yield


@dataclass(frozen=True)
class Look:
    """Looks at the network of a trial after some epochs."""

    work: Work

    def __call__(self, metrics: Mapping[str, float], model: nn.Module) -> None:
        self.at(int(metrics["epoch"]), model)

    def at(self, epoch: int, model: nn.Module) -> None:
        """Bound the network after an epoch. Raises PrunedError if it is worse than those of other trials were then."""
        if epoch not in self.work.plan.looks:
            return
        trial = self.work.reported
        if epoch not in self.work.bounds:
            x, y = self.work.compared
            stages = stages_by_name(self.work.plan.bound)
            trial.report(certify(model, x, y, self.work.recipe.threat, stages=stages).certified_accuracy, epoch)
        if trial.should_prune():
            raise PrunedError(epoch)


@dataclass(frozen=True)
class Work:
    """What a worker needs to know of a trial."""

    plan: Plan
    number: int
    recipe: Recipe
    place: Place = field(default_factory=Place)

    @property
    def folder(self) -> RunFolder:
        return self.plan.folder.trial(self.number)

    @cached_property
    def reported(self) -> Trial:
        """The trial in the journal."""
        from ctbench.tuning.journal import opened, trial

        return trial(opened(self.plan), self.number)

    @property
    def bounds(self) -> dict[int, float]:
        """The bounds so far, by epoch."""
        return self.reported.study.get_trials(deepcopy=False)[self.number].intermediate_values

    @cached_property
    def compared(self) -> tuple[Tensor, Tensor]:
        """The images on which trials are compared, and their labels."""
        return self.plan.compared(self.place.data)[:]

    def network_so_far(self) -> tuple[int, nn.Module] | None:
        """The epochs that are done, and the network after them; None if the training is complete or has not begun."""
        if self.folder.weights.exists() or not self.folder.state.exists():
            return None
        state, data = checkpoints.load_state(self.folder.state), self.recipe.dataset.load(self.place.data)
        model = Blueprint.of(self.recipe.network, data, normalize=self.recipe.normalize).build()
        model.load_state_dict(state.model)
        return state.epochs_done, model.to(self.place.device).eval()


def perform(work: Work) -> Iterator[Begun | Outcome]:
    """The task of a worker. An error that is not the trial's own, such as a full disk, is raised: it is not its end."""
    with alone(work.plan.folder, work.folder):
        try:
            yield from _course(work)
        except OSError:
            raise
        except PrunedError as pruned:
            yield Outcome(state="pruned", pruned_at=pruned.epoch, seconds=_trained(work.folder))
        except Exception as error:  # whatever values of the space do to a training or to a certification
            message = " ".join(f"{type(error).__name__}: {error}".split())
            yield Outcome(state="failed", error=message, seconds=_trained(work.folder))


def _course(work: Work) -> Iterator[Begun | Outcome]:
    plan, recipe, folder, look = work.plan, work.recipe, work.folder, Look(work)
    yield Begun("train", folder.metrics, recipe.epochs)
    if so_far := work.network_so_far():  # a kill may have come between an epoch and the look at it
        look.at(*so_far)
    place = work.place
    run = train(recipe, out=folder.path, resume=True, data=place.data, device=place.device, quiet=True, on_epoch=look)
    files = folder.certification(f"{plan.compared_on}-{region_name(recipe.threat.name, recipe.threat.eps)}")
    x, y = work.compared
    yield Begun("certify", files.records, len(x))
    records = Records(files.records, resume=True, about=about(recipe) | plan.about)
    stages, seconds = stages_by_name(plan.trial_stages), timeout_of(plan.trial_stages)
    certification = certify(run.model, x, y, recipe.threat, stages=stages, timeout=seconds, records=records)
    yield Outcome(
        state="complete",
        natural_accuracy=certification.natural_accuracy,
        certified_accuracy=certification.certified_accuracy,
        seconds=_trained(folder) + certification.seconds,
    )


def _trained(folder: RunFolder) -> float:
    """The seconds of all epochs so far."""
    return float(sum(record["seconds"] for record in jsonl.read(folder.metrics)))
