"""What a study is: its recipe and its space, how trials are compared, and which recipes its runs have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ctbench.datasets import Examples, HeldOut
from ctbench.results import StudyFolder
from ctbench.training import Recipe
from ctbench.tuning.space import Space, Value, changed
from ctbench.verify import stages_by_name, timeout_of

Protocol = Literal["held-out", "ctbench-test-data"]
Objective = Literal["certified", "pareto"]
Pruner = Literal["median", "hyperband", "none"]
SHARE = 0.1  # of the training set that is held out, if the recipe does not say it
LOOKS = 4  # looks at a trial before its end


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study.

    Args:
        recipe: the recipe whose fields vary.
        space: their values.
        folder: the folder of the study.
        objective: "certified": choose the highest certified accuracy (of equal ones the highest natural accuracy);
            "pareto": choose all trials that no other one beats in natural and certified accuracy.
        protocol: "held-out": compare trials on images that are held out of the training set; "ctbench-test-data": on
            the test images, as CTBench did, so that the results on them are optimistic.
        validation: the share of the training set that is held out, in (0, 1); None is that of the recipe, or 0.1.
        pruner: how bad trials are found early: "median", "hyperband" or "none"; None is "median", but "none" for the
            objective "pareto", because the front needs all trials.
        prune_after: the complete trials that the median pruner waits for.
        bound: the stages that pruning looks at, e.g. "crown-ibp".
        trial_stages: the stages that compare trials.
        stages, timeout, samples: those of the certification of the final runs on the test set; None is the usual
            timeout, and all test images.
        seeds: the number of final runs of each chosen recipe.
        seed: of the search, and of the choice of the images that are held out.

    Raises:
        ValueError: a setting, or a value of the space, is not valid.
    """

    recipe: Recipe
    space: Space
    folder: StudyFolder
    objective: Objective = "certified"
    protocol: Protocol = "held-out"
    validation: float | None = None
    pruner: Pruner | None = None
    prune_after: int = 5
    bound: str = "crown-ibp"
    trial_stages: str = "fast"
    stages: str = "complete"
    timeout: float | None = None
    samples: int | None = None
    seeds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = [("objective", Objective), ("protocol", Protocol)]
        kinds += [("pruner", Pruner)] if self.pruner is not None else []
        for name, kind in kinds:
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(get_args(kind))}")
        for name in ("seeds", "prune_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number of 1 or more")
        if not 0 < self.share < 1:
            raise ValueError(f"validation is {self.share}: it is a share of the training set, in (0, 1), e.g. 0.1")
        if self.recipe.select == "test" and self.protocol == "held-out":
            raise ValueError("the recipe selects an epoch by test images, which a study must not see: set select=last")
        for text in (self.bound, self.trial_stages, self.stages):
            stages_by_name(text)
        object.__setattr__(self, "space", self.space.checked(self.recipe))
        self._check_pruner()

    def _check_pruner(self) -> None:
        """Raise ValueError if a pruner was asked for that this study cannot use."""
        if self.pruner in (None, "none"):
            return
        if self.objective == "pareto":
            raise ValueError(
                f"pruner is {self.pruner!r}, but the objective 'pareto' needs all trials: leave the pruner out, or "
                f"give 'none'"
            )
        if not self.looks:
            raise ValueError(
                f"pruner is {self.pruner!r}, but the radius is not full before the last epoch, {self.recipe.epochs}: "
                f"there is no epoch after which trials can be compared; leave the pruner out, or give 'none'"
            )

    @property
    def pruned_by(self) -> Pruner:
        """The pruner, also if none was asked for."""
        return self.pruner or ("none" if self.objective == "pareto" else "median")

    @property
    def share(self) -> float:
        """The share of the training set that is held out."""
        return self.validation if self.validation is not None else self.recipe.validation or SHARE

    @property
    def compared_on(self) -> Literal["validation", "test"]:
        """The images on which trials are compared."""
        return "validation" if self.protocol == "held-out" else "test"

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """The epochs after which trials are looked at: from the end of the growth of the radius on, evenly."""
        if self.pruned_by == "none":
            return ()
        first, last = max(1, math.ceil(self.recipe.ramp.end)), self.recipe.epochs
        return tuple(sorted({first + (last - first) * look // LOOKS for look in range(LOOKS)} - {last}))

    def trial(self, values: Mapping[str, Value]) -> Recipe:
        """The recipe of a trial. Raises ValueError if values do not fit together."""
        recipe = self.final(values)
        if self.protocol == "held-out":
            recipe = replace(recipe, dataset=HeldOut(base=recipe.dataset, share=self.share, seed=self.seed))
        return recipe

    def final(self, values: Mapping[str, Value], seed: int | None = None) -> Recipe:
        """The recipe of a final run: on the whole training set, except what the choice of an epoch needs."""
        recipe = changed(self.recipe, values)
        validation = recipe.validation if recipe.select == "best" else 0.0
        seed = recipe.seed if seed is None else seed
        source = f"tuned, protocol {self.protocol}" + (f"; from {recipe.source}" if recipe.source else "")
        return replace(recipe, validation=validation, seed=seed, source=source, published=None)

    def compared(self, root: Path | None) -> Examples:
        """The images on which trials are compared."""
        dataset = self.trial({}).dataset
        return dataset.validation(root) if isinstance(dataset, HeldOut) else dataset.load(root).test

    @property
    def about(self) -> dict[str, str]:
        """What settings of records say of networks that were chosen by their accuracy on test images."""
        return {"selected_on": "test"} if self.compared_on == "test" else {}

    @property
    def seconds(self) -> float:
        """Seconds for each sample of the final certification."""
        return self.timeout or timeout_of(self.stages)

    def to_json(self) -> dict[str, Any]:
        """The entries of study.json that say what the study is."""
        settings = {
            name: getattr(self, name)
            for name in ("prune_after", "bound", "trial_stages", "stages", "samples", "seeds", "seed")
        }
        held_out = {"validation": self.share if self.protocol == "held-out" else None, "pruner": self.pruned_by}
        return {
            "name": self.recipe.name,
            "recipe": self.recipe.to_json(),
            "protocol": self.protocol,
            "compared_on": self.compared_on,
            "objective": self.objective,
            "space": self.space.to_json(),
            "settings": held_out | settings | {"looks": list(self.looks), "timeout": self.seconds},
        }
