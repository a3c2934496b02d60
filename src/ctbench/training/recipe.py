"""A recipe: everything that determines a training run, as one value.

Nested frozen dataclasses, built by a function in `ctbench.recipes`, printable, comparable, and hashed to name the run.
A variant is `dataclasses.replace(recipe, ...)`, or `--set path=value` on the command line. `StepSettings` is the recipe
at one optimisation step, with the values of all schedules and ramps.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ctbench.datasets import Dataset
from ctbench.methods.base import Method
from ctbench.networks import Architecture, Given
from ctbench.regions import Threat
from ctbench.results import Published, jsonl
from ctbench.training import codec, lengths
from ctbench.training.averaging import SWA
from ctbench.training.optimizers import Adam, Optimizer
from ctbench.training.schedules import Ramp, Schedule, SmoothRamp, with_number

ABOUT = ("name", "source", "published")  # they say nothing of the run itself
SCHEDULED = ("method", "warmup", "robust_weight", "shi", "l1", "optimizer")  # read in every step


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. The loss of a step at radius eps is

        (1 - robust_weight) CE(clean) + robust_weight (the method's loss) + shi (1 - eps/train_eps) R + l1 sum |W|

    Args:
        name: the name; `ctbench.recipes` sets it to the name of the function or entry that makes the recipe.
        dataset, network: the data and the network to train.
        normalize: begin the network with the normalisation of the data set, if it has one. The code of CTBench does so
            for all data; the papers of CTBench (App. B.1) and TAPS (App. D.2) have no normalisation on MNIST. A module
            of your own never gets one.
        threat: the threat model that the network should withstand; its eps is the radius at test time.
        train_eps: the final radius of training; None is the eps of the threat model.
        ramp: the growth of the radius up to `train_eps`.
        method: the training method.
        warmup: the method while the radius grows, up to epoch ramp.end; None is `method`.
        robust_weight: the share of the method's loss, in [0, 1].
        shi: the weight of the regulariser R of Shi et al., which is used while the radius grows.
        l1: the weight of the sum of all |weights|.
        schedules: fields of the method and weights of the loss that change from step to step.
        initialization: "shi" or "kaiming"; "given" for a module of your own, which begins with the weights that it has.
        optimizer: Adam or SGD, and its learning rate.
        epochs, batch_size: the length of the run; the last batch of an epoch may be smaller.
        train_samples: the number of training samples to use, chosen by the seed, to try a recipe out; None: all.
        accumulate: the number of parts of a batch; their losses are computed one after the other, which needs less
            memory. The statistics of batch norms, and the prelude of a method, are still those of the whole batch. So
            the step is the same, with two exceptions: the random starts of attacks, and terms that are not a mean over
            samples and are computed for each part (R, the product in the loss of TAPS, the weights that SAM moves to).
        precision: "float32"; "tf32" for convolutions and products of matrices that a GPU rounds to TF32; or "bfloat16"
            for the forward computations of a step, with weights, statistics and the optimiser in float32. If bfloat16
            does not work, training warns and uses float32.
        swa: average the weights, and end with the average; the statistics of batch norms are then always recomputed.
        precise_bn: recompute the statistics of batch norms over the training set at the end.
        precise_bn_variance: the average of the variances of the batches ("mean"), or the variance of all ("pooled").
        validation: the share of the training set that is held out and evaluated after each epoch.
        select: end with the weights of the "last" epoch, or of the "best" epoch at the full radius, i.e. the one with
            the highest robust accuracy (estimated by the method) on the validation images; the first one of equals.
            "test" is the protocol of CTBench's code: the same on the test images, among the epochs that end at the
            radius of the test or above. Accuracies on these images are then optimistic, and `compare` marks them.
            That code takes the last epoch for MTL-IBP.
        seed: the source of all randomness.
        source: where the hyper-parameters come from.
        published: the accuracies that the source reports for them.
    """

    name: str = "unnamed"
    dataset: Dataset
    network: Architecture
    normalize: bool = True
    threat: Threat
    method: Method
    warmup: Method | None = None
    train_eps: float | None = None
    ramp: Ramp = field(default_factory=SmoothRamp)
    robust_weight: float = 1.0
    shi: float = 0.0
    l1: float = 0.0
    schedules: tuple[Schedule, ...] = ()
    initialization: Literal["shi", "kaiming", "given"] = "kaiming"
    optimizer: Optimizer = field(default_factory=Adam)
    epochs: int
    batch_size: int
    train_samples: int | None = None
    accumulate: int = 1
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    swa: SWA | None = None
    precise_bn: bool = True
    precise_bn_variance: Literal["mean", "pooled"] = "mean"
    validation: float = 0.0
    select: Literal["last", "best", "test"] = "last"
    seed: int = 0
    source: str = ""
    published: Published | None = None

    def __post_init__(self) -> None:
        self._check_parts()
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be >= 1, got {self.epochs} and {self.batch_size}")
        if self.train_samples is not None and self.train_samples < 1:
            raise ValueError(f"train_samples is {self.train_samples}: it must be a number of samples >= 1, or None")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(f"accumulate is {self.accumulate}: it must be from 1 to batch_size, {self.batch_size}")
        if not 0 <= self.robust_weight <= 1:
            raise ValueError(f"robust_weight is {self.robust_weight}: it is a share, in [0, 1]")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}: it is a share of the training set, in [0, 1)")
        for name in ("shi", "l1", "seed"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: it must be >= 0")
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}: it must be below 2^63")
        if self.ramp.end > self.epochs:
            raise ValueError(
                f"ramp.end is {self.ramp.end:g}, after the last of {self.epochs} epochs: the radius would never reach "
                f"its end; also set ramp.end"
            )
        if self.shi and not self.ramp.end:
            raise ValueError(f"shi is {self.shi} but is used only while the radius grows: set ramp.end > 0")
        if self.warmup and not self.ramp.end:
            raise ValueError(
                f"warmup is {self.warmup.name!r} but is used only while the radius grows: set ramp.end > 0"
            )
        if self.warmup and self.ramp.end > self.epochs - 1:
            raise ValueError(
                f"warmup is {self.warmup.name!r} while the radius grows, up to epoch {self.ramp.end:g} of "
                f"{self.epochs}: {self.method.name!r} would never train; set ramp.end or epochs"
            )
        if self.swa and self.swa.start >= self.epochs:
            raise ValueError(f"swa.start is {self.swa.start:g}: the last of {self.epochs} epochs begins before it")
        self._check_train_eps()
        self._check_selection()
        self._check_schedules()

    def _check_parts(self) -> None:
        for name, hint in _hints().items():
            value = getattr(self, name)
            if isinstance(hint, type) and is_dataclass(hint) and not isinstance(value, hint):
                raise ValueError(
                    f"{name} is {value!r}: give a value of a class of {hint.__module__.rpartition('.')[0]}"
                )
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise ValueError(f"{name} is {value!r}: choose from {', '.join(get_args(hint))}")
        if not isinstance(self.threat.eps, Real):
            raise ValueError("threat.eps has a radius for each feature: training takes one number, certify takes both")
        if (self.initialization == "given") != isinstance(self.network, Given):
            raise ValueError(
                f"initialization is {self.initialization!r} for the network {self.network.name!r}: it is 'given' for a "
                f"module of your own (ctbench.train(recipe, model=...)), and only there"
            )
        if not isinstance(self.schedules, tuple):
            raise ValueError(f"schedules is {self.schedules!r}: give a tuple of schedules, e.g. (Schedule(...),)")

    def _check_train_eps(self) -> None:
        if self.train_eps is not None:
            try:
                replace(self.threat, eps=self.train_eps)  # checked like the eps at test time
            except ValueError as error:
                raise ValueError(f"train_eps: {error}") from None

    def _check_selection(self) -> None:
        if self.select == "last":
            return
        if self.select == "best" and not self.validation:
            raise ValueError("select is 'best' but no images are held out for the choice: set validation, e.g. to 0.1")
        if self.select == "test" and self.final_eps < self.threat.eps:
            raise ValueError(
                f"select is 'test', among the epochs at the radius of the test, {self.threat.eps:g}, but training ends "
                f"at {self.final_eps:g}: set train_eps"
            )
        if self.ramp.end > self.epochs - 1:
            raise ValueError(
                f"select is {self.select!r}, among the epochs at the full radius, but the radius grows up to epoch "
                f"{self.ramp.end:g} of {self.epochs}: no whole epoch follows; set ramp.end or epochs"
            )
        if self.swa:
            raise ValueError(
                f"swa ends with the average of many weights, select={self.select!r} with the weights of one epoch: "
                f"drop one"
            )

    def _check_schedules(self) -> None:
        paths = [schedule.path for schedule in self.schedules]
        for schedule in self.schedules:
            if schedule.path.partition(".")[0] not in SCHEDULED:
                raise ValueError(
                    f"schedules: {schedule.path!r} is not read in every step: a schedule is for a number in "
                    f"{', '.join(SCHEDULED)} (the radius has its ramp)"
                )
            if paths.count(schedule.path) > 1:
                raise ValueError(f"schedules: {schedule.path!r} has several schedules: give one")
            if schedule.ramp.end > self.epochs:
                raise ValueError(
                    f"schedules: the ramp of {schedule.path!r} ends at {schedule.ramp.end:g}, after the last of "
                    f"{self.epochs} epochs: it would never reach its end"
                )
        self._scheduled(*(schedule.start_value for schedule in self.schedules))
        self._scheduled(*(schedule.end_value for schedule in self.schedules))

    def _scheduled(self, *values: float) -> Recipe:
        """The recipe with these values in the scheduled fields, without schedules."""
        if not self.schedules:
            return self
        recipe = replace(self, schedules=())
        for schedule, value in zip(self.schedules, values, strict=True):
            try:
                recipe = with_number(recipe, schedule.path, value)
            except ValueError as error:
                raise ValueError(f"schedules: {schedule.path!r} cannot be {value:g}: {error}") from None
        return recipe

    def at(self, epoch: int, number: int, steps_per_epoch: int) -> StepSettings:
        """The settings of step `number` of an epoch; both are counted from 0."""
        step = epoch * steps_per_epoch + number
        values = (schedule.value(step, steps_per_epoch) for schedule in self.schedules)
        eps = self.final_eps * self.ramp.share(step, steps_per_epoch)
        return StepSettings(self._scheduled(*values), epoch, number, eps)

    @property
    def final_method(self) -> Method:
        """The training method with the values that schedules have at their end."""
        return self._scheduled(*(schedule.end_value for schedule in self.schedules)).method

    @property
    def final_eps(self) -> float:
        """The final radius of training."""
        return self.threat.eps if self.train_eps is None else self.train_eps

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits, a hash of all fields except `name`, `source` and `published`.

        Of a module of your own, its source and weights count, not the name under which it was imported.
        """
        content = {key: value for key, value in self.to_json().items() if key not in ABOUT}
        if self.train_samples is None:
            del content["train_samples"]  # as in recipes of before there was this field
        if isinstance(self.network, Given):
            content["network"] = {key: value for key, value in content["network"].items() if key != "module"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, other: Recipe) -> list[str]:
        """The paths of the fields that decide a run and differ from another recipe, e.g. "optimizer.lr"."""
        return [
            path for path in codec.differences(self.to_json(), other.to_json()) if path.partition(".")[0] not in ABOUT
        ]

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, which `from_json` reads."""
        # a float may be written as a whole number: reading it back makes 15 and 15.0 the same recipe
        again = codec.decode(Recipe, codec.encode(self))
        if again != self:
            raise ValueError(f"the recipe {self.name!r} has a part that cannot be read back by its name: {self}")
        encoded = codec.encode(again)
        assert isinstance(encoded, dict)
        return encoded

    @classmethod
    def from_json(cls, content: codec.Json) -> Recipe:
        """The recipe of JSON values. Raises ValueError with the path of the field, its value and the valid values."""
        return codec.decode(cls, content)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe of a JSON file. Raises ValueError like `from_json`, with the name of the file."""
        content = jsonl.read_json(path)
        with jsonl.named(path):
            return cls.from_json(content)

    def with_changes(self, changes: list[str]) -> Recipe:
        """The recipe with changes like those of the command line, "path.to.field=value" each.

        A part such as the method is set by its name, and then has its defaults: "method=ibp". Another number of epochs
        stretches ramps, milestones and the start of SWA, as `with_epochs` does, unless they are also changed. They may
        be shares of the run: "ramp.end=50%", "optimizer.milestones=[75%, 90%]".

        Raises:
            ValueError: a field is unknown or a value is invalid; the message says which are valid.
        """
        values = dict(map(codec.change, changes))
        content, length = self.to_json(), values.get("epochs", "")
        if length.isdecimal() and int(length) > 0:
            content = lengths.stretched(content, int(length))
        epochs = content["epochs"]
        assert isinstance(epochs, int)
        return codec.changed(
            Recipe, content, {path: lengths.in_epochs(path, text, epochs) for path, text in values.items()}
        )

    def with_epochs(self, epochs: int) -> Recipe:
        """The recipe with another number of epochs, and its ramps, milestones and start of SWA in proportion."""
        return self.with_changes([f"epochs={epochs}"])


@cache
def _hints() -> dict[str, Any]:
    """The types of the fields of a recipe."""
    return get_type_hints(Recipe)


@dataclass(frozen=True)
class StepSettings:
    """A recipe at one optimisation step."""

    recipe: Recipe  # with the values of its scheduled fields at this step
    epoch: int
    number: int  # of the step in its epoch
    eps: float

    @property
    def growing(self) -> bool:
        """Whether this is an epoch in which the radius grows."""
        return self.epoch < self.recipe.ramp.end

    @property
    def method(self) -> Method:
        """The method of this step: the warm-up method or the main one."""
        return self.recipe.warmup if self.growing and self.recipe.warmup else self.recipe.method

    @property
    def lr(self) -> float:
        return self.recipe.optimizer.lr_at(self.epoch)
