"""A study from its beginning, or from where it stopped, to its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from ctbench.datasets import GivenData
from ctbench.engine import Engine, Here
from ctbench.files import UNFINISHED
from ctbench.networks import Given
from ctbench.results import Study, StudyFolder, jsonl
from ctbench.time_budget import now
from ctbench.training import Recipe, codec
from ctbench.tuning import writing
from ctbench.tuning.ctbench_spaces import read_space
from ctbench.tuning.plan import Objective, Plan, Protocol, Pruner
from ctbench.tuning.space import Space
from ctbench.tuning.trial import Begun, Outcome, Place, Watch

SAID = ("name", "recipe", "protocol", "objective", "space", "settings")  # what makes a study another one


def tune(
    recipe: Recipe,
    space: Sequence[str] | Space,
    *,
    out: str | Path,
    trials: int,
    total: float | None = None,
    objective: Objective = "certified",
    protocol: Protocol = "held-out",
    validation: float | None = None,
    pruner: Pruner | None = None,
    prune_after: int = 5,
    bound: str = "crown-ibp",
    trial_stages: str = "fast",
    stages: str = "complete",
    timeout: float | None = None,
    samples: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    engine: Engine | None = None,
    hindsight: bool = False,
    device: str = "cpu",
    data: str | Path | None = None,
    watch: Watch | None = None,
) -> Study:
    """Try values of a recipe's fields, choose by images that are held out, and test the choice once.

    Each trial trains the recipe with other values, without the images that are held out and without test images, which
    are not there. A bad one is given up early, by a bound of its certified accuracy. Then the chosen values are trained
    on the whole training set, and certified on the test set. The same call continues a study that was interrupted.
    Several processes may work on one study.

    Args:
        recipe: the recipe, of a network and data that have a name.
        space: the values: "PATH=A,B,C", "PATH=LOW:HIGH", "PATH=LOW:HIGH:log", JSON files, or names (`spaces()`).
        out: the folder of the study.
        trials: how many trials there are; no more than the space has combinations.
        total: seconds after which no trial begins; those that have begun end. None for no limit.
        objective, protocol, validation, pruner, prune_after, bound, trial_stages, stages, timeout, samples, seeds,
            seed: see `ctbench.tuning.Plan`.
        hindsight: after the end, also certify all complete trials on the test images, to see what a choice by these
            would have given (`Study.hindsight`). Nothing of the study depends on it.
        engine: where trials run, e.g. `ctbench.engine.Local(workers=4)`; None is this process.
        device: the device of networks.
        data: the folder of the data sets; None is the CTBENCH_DATA variable, else the user's cache.
        watch: called with the name of a run and a `Begun` or an `Outcome`.

    Raises:
        ValueError: an argument is invalid; the folder holds another study; the study has already chosen, and another
            number of trials is wanted; no trial is complete; or Optuna is not installed.
        TasksFailedError: workers died, or could not read or write a file. The same call goes on from there.
    """
    if not isinstance(recipe, Recipe):
        raise ValueError(f"the recipe is {recipe!r}: give a Recipe, e.g. ctbench.recipe(name)")
    if isinstance(recipe.network, Given) or isinstance(recipe.dataset, GivenData):
        raise ValueError("the recipe has a network or data of your own: a study needs those that have a name")
    if trials < 1 or (total is not None and not 0 < total < math.inf):
        raise ValueError(
            f"trials is {trials} and total is {total}: give a number of 1 or more, and seconds > 0 or None"
        )
    plan = Plan(
        recipe=recipe,
        space=space if isinstance(space, Space) else read_space(space, recipe),
        folder=StudyFolder(Path(out).absolute()),
        objective=objective,
        protocol=protocol,
        validation=validation,
        pruner=pruner,
        prune_after=prune_after,
        bound=bound,
        trial_stages=trial_stages,
        stages=stages,
        timeout=timeout,
        samples=samples,
        seeds=seeds,
        seed=seed,
    )
    if hindsight and plan.compared_on == "test":
        raise ValueError(
            "hindsight is for trials that are compared on held-out images: these are compared on test images"
        )
    try:
        from ctbench.tuning.finishing import finish
        from ctbench.tuning.hindsight import look_back
        from ctbench.tuning.searching import Search
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not there ({error}): pip install optuna") from None

    wanted = trials if plan.space.size is None else min(trials, plan.space.size)
    place, engine = Place(device, None if data is None else Path(data).absolute()), engine or Here(device)
    watch = watch or _quiet
    _begin(plan, wanted)
    search = Search(plan, wanted, math.inf if total is None else now() + total, place, watch)
    with engine.staying() as workers:
        search.run(workers)
        finish(plan, workers, place, watch)
        if hindsight:
            look_back(plan, workers, place, watch)
    return Study.read(plan.folder.path)


def _quiet(run: str, message: Begun | Outcome) -> None:
    pass


def _check_own(folder: StudyFolder, others: set[str]) -> None:
    """Raise ValueError if a folder without a study holds other files."""
    if others:
        raise ValueError(f"{folder.path} holds other files ({', '.join(sorted(others)[:3])}): choose another folder")


def _begin(plan: Plan, wanted: int) -> None:
    """Write study.json, or check it.

    Raises:
        ValueError: the folder holds another study, or the study has already chosen among another number of trials.
    """
    folder, content = plan.folder, writing.begun(plan, wanted)
    folder.path.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.path.iterdir()}
    if not names & {folder.lock.name, folder.study.name}:  # no process has begun: nothing is left in another folder
        _check_own(folder, names)
    with FileLock(folder.lock):
        if not folder.study.is_file():
            passing = (folder.lock.name, folder.study.name + UNFINISHED)  # of a process that was killed while it began
            _check_own(folder, {path.name for path in folder.path.iterdir()} - {*passing})
            jsonl.write_json(folder.study, content)
            return
        before = Study.read(folder.path).content
        was, now_said = ({name: each[name] for name in SAID} for each in (before, content))
        if different := codec.differences(was, now_said):
            raise ValueError(
                f"{folder.path} holds another study (it differs in {', '.join(different)}): give the same recipe, "
                f"space and settings, or choose another folder (--out)"
            )
        if before["chosen"] is not None and before["trials"] != wanted:
            raise ValueError(
                f"{folder.path} has chosen among {before['trials']} trials, and its choice has been tested: more "
                f"trials would be made in the knowledge of the test; choose another folder (--out)"
            )
        if before["chosen"] is None:
            jsonl.write_json(folder.study, {**before, "trials": wanted})
