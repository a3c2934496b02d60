"""Stages for tests, and a way to make others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ctbench.verify import Bound, Findings, Problem, Stage

BOUNDS = tuple(Bound(domain=name) for name in ("interval", "crown-ibp", "crown"))


@dataclass(frozen=True, kw_only=True)
class Custom(Stage):
    look: Callable[[Problem], Findings] = field(repr=False)
    called: str = "custom"

    @property
    def title(self) -> str:
        return self.called

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        return self.look(problem)


class Proving(Custom):
    """Bounds that are not computed again in double precision."""

    proves: ClassVar[bool] = True


def constant(screening: float, exact: float | None = None) -> Callable[[Problem], Findings]:
    """A stage with one bound in single precision and another one in double precision."""

    def look(problem: Problem) -> Findings:
        value = exact if exact is not None and problem.x.dtype == torch.float64 else screening
        return Findings(bound=problem.x.new_full((len(problem),), value))

    return look


def taking(clock: list[float], seconds: float, bound: float | None = 1.0) -> Callable[[Problem], Findings]:
    """A stage that takes this number of seconds for each sample, and returns this bound."""

    def look(problem: Problem) -> Findings:
        clock[0] += seconds * len(problem)
        return Findings() if bound is None else constant(bound)(problem)

    return look


def raising(problem: Problem) -> Findings:
    raise RuntimeError("out of luck")
