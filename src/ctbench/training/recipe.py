"""A recipe: everything that decides a training run, as one value.

Nested frozen dataclasses, built by a function in `ctbench.recipes`, printable, comparable, and hashed to name the run.
A variant is `dataclasses.replace(recipe, ...)`, or `--set path=value` on the command line.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from ctbench.datasets import Dataset
from ctbench.methods.base import Method
from ctbench.networks import Architecture
from ctbench.regions import Threat
from ctbench.training import codec
from ctbench.training.schedules import Ramp, Smooth


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam with a step-wise learning rate.

    Args:
        lr: the learning rate, times `decay` from the start of each epoch in `milestones` on.
        clip_norm: the most that the l2 norm of the whole gradient may be; longer ones are scaled down.
    """

    lr: float = 5e-4
    milestones: tuple[int, ...] = ()
    decay: float = 0.2
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        _positive("decay", self.decay)
        _positive("clip_norm", self.clip_norm)
        if any(a >= b for a, b in pairwise((-1, *self.milestones))):
            raise ValueError(f"milestones are {list(self.milestones)}: give epochs in ascending order, from 0 on")

    def lr_at(self, epoch: int) -> float:
        return self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. The loss of a step at radius eps is

        (1 - robust_weight) CE(clean) + robust_weight (the method's loss) + shi (1 - eps/train_eps) R + l1 sum |W|

    Args:
        name: what to call it.
        dataset, network: what is trained, and on what.
        threat: the threat model that the network shall withstand; its eps is the one at test.
        train_eps: the radius that training ends at; None is the threat's.
        ramp: how the radius grows to it.
        method: the training method.
        robust_weight: the share of the method's loss, in [0, 1].
        shi: weight of Shi et al.'s regulariser R, in force while the radius grows.
        l1: weight of the sum of all |weights|.
        initialization: "shi" or "kaiming".
        optimizer: Adam and its learning rate.
        epochs, batch_size: the length of the run; the last batch of an epoch may be smaller.
        precise_bn: compute the statistics of batch norms anew over the training set at the end.
        validation: the share of the training set held out and reported on after each epoch.
        seed: the source of all randomness.
        source: where the hyper-parameters come from.
    """

    name: str
    dataset: Dataset
    network: Architecture
    threat: Threat
    method: Method
    train_eps: float | None = None
    ramp: Ramp = field(default_factory=Smooth)
    robust_weight: float = 1.0
    shi: float = 0.0
    l1: float = 0.0
    initialization: Literal["shi", "kaiming"] = "kaiming"
    optimizer: Adam = field(default_factory=Adam)
    epochs: int
    batch_size: int
    precise_bn: bool = True
    validation: float = 0.0
    seed: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be >= 1, got {self.epochs} and {self.batch_size}")
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
                f"its end; set ramp.end, too"
            )
        if self.shi and not self.ramp.end:
            raise ValueError(f"shi is {self.shi} but is in force only while the radius grows: set ramp.end > 0")
        if self.train_eps is not None:
            try:
                replace(self.threat, eps=self.train_eps)  # meets the same checks as the eps at test
            except ValueError as error:
                raise ValueError(f"train_eps: {error}") from None

    @property
    def final_eps(self) -> float:
        """The radius that training ends at."""
        return self.threat.eps if self.train_eps is None else self.train_eps

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that stand for all fields but the name and the source."""
        content = {key: value for key, value in self.to_json().items() if key not in ("name", "source")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, codec.Json]:
        """The recipe as JSON values; `from_json` makes it again."""
        # a float may have been given as a whole number: reading it back makes 15 and 15.0 the same recipe
        again = codec.decode(Recipe, codec.encode(self))
        if again != self:
            raise ValueError(f"the recipe {self.name!r} holds a part that cannot be read back by its name: {self}")
        encoded = codec.encode(again)
        assert isinstance(encoded, dict)
        return encoded

    @classmethod
    def from_json(cls, content: codec.Json) -> Recipe:
        """The recipe of JSON values. Raises ValueError that names the field, what it holds and what is valid."""
        return codec.decode(cls, content)

    def with_changes(self, changes: list[str]) -> Recipe:
        """The recipe with fields changed as on the command line, "path.to.field=value" each.

        A part such as the method is changed by its name, which gives it that member's defaults: "method=ibp".

        Raises:
            ValueError: an unknown field or an unfit value; says which are valid.
        """
        return codec.with_changes(self, changes)


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}: it must be > 0")
