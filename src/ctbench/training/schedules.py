"""Values that change from step to step: the radius grows by a `Ramp`, and other numbers follow a `Schedule`.

A ramp has a share at every optimisation step. The radius is this share of the final eps, and a scheduled field is

    value(t) = (1 - share(t)) start_value + share(t) end_value

The smooth ramp (Shi et al. 2021, CTBench) between the steps a and b, with m = a + floor((b - a) / 4):

    share(t) = alpha (t - a)^4                         up to m,  alpha = 1 / (4 (b - m) (m - a)^3 + (m - a)^4)
    share(t) = share(m) + linearly to 1                from m to b; the slope is continuous at m
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, ClassVar, TypeVar

from ctbench.training import codec

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ramp(ABC):
    """A share of the way: 0 up to the start of epoch `start`, and 1 from the start of epoch `end`.

    Args:
        start, end: in epochs, which may be fractions.
    """

    name: ClassVar[str]
    start: float = 0
    end: float = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a ramp needs 0 <= start <= end (in epochs), got {self.start} and {self.end}")

    def share(self, step: int, steps_per_epoch: int) -> float:
        """The share at an optimisation step, counted from 0 over the whole run."""
        a, b = round(self.start * steps_per_epoch), round(self.end * steps_per_epoch)
        if step >= b:
            return 1.0
        return 0.0 if step <= a else self.between(step - a, b - a)

    @abstractmethod
    def between(self, step: int, width: int) -> float:
        """The share after 0 < step < width steps."""


@dataclass(frozen=True, kw_only=True)
class SmoothRamp(Ramp):
    """Grows slowly at first, then linearly; the formula is above."""

    name: ClassVar[str] = "smooth"

    def between(self, step: int, width: int) -> float:
        middle = width // 4
        alpha = 1 / (4 * (width - middle) * middle**3 + middle**4) if middle else 0.0
        if step <= middle:
            return alpha * step**4
        at_middle = alpha * middle**4
        return at_middle + (1 - at_middle) * (step - middle) / (width - middle)


@dataclass(frozen=True, kw_only=True)
class LinearRamp(Ramp):
    """Grows linearly."""

    name: ClassVar[str] = "linear"

    def between(self, step: int, width: int) -> float:
        return step / width


@dataclass(frozen=True, kw_only=True)
class ConstantRamp(Ramp):
    """1 from the start of epoch `end`, and 0 before."""

    name: ClassVar[str] = "constant"

    def between(self, step: int, width: int) -> float:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A field of a recipe that changes from one value to another.

    Args:
        path: the field, a number, e.g. "robust_weight" or "method.attack.step_size".
        start_value, end_value: its values at the shares 0 and 1 of the ramp.
        ramp: the course from one value to the other.
    """

    path: str
    start_value: float
    end_value: float
    ramp: Ramp = field(default_factory=LinearRamp)

    def value(self, step: int, steps_per_epoch: int) -> float:
        """The value at an optimisation step, counted from 0 over the whole run."""
        share = self.ramp.share(step, steps_per_epoch)
        return (1 - share) * self.start_value + share * self.end_value  # exact at both ends


def with_number(value: T, path: str, number: float) -> T:
    """A dataclass with another value in the float field at a path.

    Raises:
        ValueError: there is no such field, it is not a float, or the number is not valid for it.
    """
    kind: type = type(value)
    name, _, rest = path.partition(".")
    kinds = codec.field_types(kind)
    if name not in kinds:
        raise ValueError(f"{codec.titled(kind)} has no field {name!r}; its fields are {', '.join(kinds)}")
    changed: Any = number
    if rest:
        part = getattr(value, name)
        if not is_dataclass(part):
            raise ValueError(f"{name!r} is {part!r}, it has no field {rest.partition('.')[0]!r}")
        changed = with_number(part, rest, number)
    elif float not in codec.kinds_of(kinds[name]):
        raise ValueError(f"{name!r} of {codec.titled(kind)} is not a real number: only real numbers can be scheduled")
    return replace(value, **{name: changed})  # type: ignore[type-var]
