"""The stages of a certification: each looks at the samples that are still open, in batches.

Bound(domain="crown")               is the lower bound of the least margin positive?       then certified
Bound(domain=AlphaCrown(steps=8))   the same, with slopes optimised for that
Falsify(attack=PGD(...))            is there a point of the region with a negative margin?  then falsified
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ctbench import attacks, memory_budget, time_budget
from ctbench.domains import Domain
from ctbench.domains import domain as find_domain
from ctbench.verify.problem import Findings, Problem


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A way to decide problems.

    Args:
        batch_size: samples that it takes at once on a CPU; another device takes more according to its memory.
        memory: the share of another device's free memory that counts for that (see `ctbench.memory_budget`). Findings
            do not depend on it, except for rounding and random starts.
    """

    name: ClassVar[str]  # on the command line
    proves: ClassVar[bool] = False  # whether its bounds are proofs: computed in double precision, and rounded outward
    batch_size: int = 256
    memory: float = field(default=memory_budget.SHARE, repr=False)

    @property
    @abstractmethod
    def title(self) -> str:
        """The name of the stage in records."""

    def applies(self, problem: Problem) -> bool:
        """Whether the stage can decide problems with such a network and regions."""
        return True

    @abstractmethod
    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        """Look at all samples of a problem.

        May raise OutOfTime; bounds do that when the samples have used up their time.
        """


@dataclass(frozen=True, kw_only=True)
class Bound(Stage):
    """A lower bound of every margin over the region.

    Args:
        domain: a sound `ctbench.domains.Domain`, e.g. Zonotope(fold=200), or the name of one, e.g. "crown"; the field
            is then the domain itself. A search for bounds (AlphaCrown) stops once all margins of a sample are positive.

    Raises:
        ValueError: no domain is called that, or the domain is not sound.
    """

    name: ClassVar[str] = "bound"
    domain: Domain | str

    def __post_init__(self) -> None:
        domain = find_domain(self.domain)
        if not domain.sound:
            raise ValueError(
                f"{domain!r} estimates bounds, and an estimate proves nothing: give a sound domain, e.g. 'crown', or "
                f"COAP() without projections"
            )
        object.__setattr__(self, "domain", domain)

    @property
    def title(self) -> str:
        return find_domain(self.domain).name

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        domain = find_domain(self.domain).for_signs()
        memory = memory_budget.of(problem.x.device, self.memory)
        margins = domain.lower_bounds(problem.net, problem.region, problem.spec, memory=memory)
        return Findings(bound=margins.amin(1))


@dataclass(frozen=True, kw_only=True)
class Falsify(Stage):
    """An attack on the least margin. Rounds follow one another, each on the samples that withstood the one before.

    Args:
        attack: the search.
        rounds: how often the attack is made.
    """

    name: ClassVar[str] = "falsify"
    attack: attacks.Attack = field(default_factory=lambda: attacks.PGD(steps=40, step_size=0.25))
    rounds: int = 3

    @property
    def title(self) -> str:
        return self.attack.name

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        witness, late = problem.x.clone(), torch.zeros(len(problem), dtype=torch.bool, device=problem.x.device)
        standing = torch.arange(len(problem), device=problem.x.device)
        highest = torch.full_like(problem.spec[:, 0, 0], -torch.inf)  # a violation of 0 may be a counterexample
        for _ in range(self.rounds):
            if not len(standing):
                break
            if time_budget.is_over():
                late[standing] = True
                break
            rest = problem.select(standing)
            points = self.attack(rest.violation, rest.region, rest.x, generator)
            violation = rest.violation(points.unsqueeze(0))[0]
            better = violation > highest[standing]
            highest[standing[better]], witness[standing[better]] = violation[better], points[better]
            standing = standing[violation <= 0]
        return Findings(witness=witness, late=late)
