"""How the training radius grows: a share of the final eps at every optimisation step.

Smooth (Shi et al. 2021, as in CTBench) between the steps a and b, with m = a + floor((b - a) / 4):

    share(t) = alpha (t - a)^4                         up to m,  alpha = 1 / (4 (b - m) (m - a)^3 + (m - a)^4)
    share(t) = share(m) + linearly to 1                from m to b; the slope is continuous at m
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Ramp(ABC):
    """A share of the final radius: 0 up to the start of epoch `start`, 1 from the start of epoch `end` on."""

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
class Smooth(Ramp):
    name: ClassVar[str] = "smooth"

    def between(self, step: int, width: int) -> float:
        middle = width // 4
        alpha = 1 / (4 * (width - middle) * middle**3 + middle**4) if middle else 0.0
        if step <= middle:
            return alpha * step**4
        at_middle = alpha * middle**4
        return at_middle + (1 - at_middle) * (step - middle) / (width - middle)


@dataclass(frozen=True, kw_only=True)
class Linear(Ramp):
    name: ClassVar[str] = "linear"

    def between(self, step: int, width: int) -> float:
        return step / width


@dataclass(frozen=True, kw_only=True)
class Constant(Ramp):
    """The full radius from the start on, or nothing up to epoch `end`."""

    name: ClassVar[str] = "constant"

    def between(self, step: int, width: int) -> float:
        return 0.0
