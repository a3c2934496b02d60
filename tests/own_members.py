"""A class of a user for every kind, from methods and data sets to domains and analyses."""

from dataclasses import dataclass
from typing import ClassVar

from ctbench.analyses import Utilisation
from ctbench.attacks import PGD
from ctbench.datasets import Digits
from ctbench.domains import Interval
from ctbench.methods.standard import Standard
from ctbench.networks import MLP
from ctbench.regions import Linf
from ctbench.verify import Findings, Stage


@dataclass(frozen=True, kw_only=True)
class MethodOfTheTest(Standard):
    name: ClassVar[str] = "your-method"


@dataclass(frozen=True, kw_only=True)
class DatasetOfTheTest(Digits):
    name: ClassVar[str] = "your-dataset"


@dataclass(frozen=True, kw_only=True)
class NetworkOfTheTest(MLP):
    name: ClassVar[str] = "your-network"
    hidden: tuple[int, ...] = (20,)


@dataclass(frozen=True, kw_only=True)
class ThreatOfTheTest(Linf):
    name: ClassVar[str] = "your-threat"


@dataclass(frozen=True, kw_only=True)
class AttackOfTheTest(PGD):
    name: ClassVar[str] = "your-attack"


@dataclass(frozen=True, kw_only=True)
class DemandingAttackOfTheTest(PGD):
    name: ClassVar[str] = "your-demanding-attack"
    effort: int


@dataclass(frozen=True, kw_only=True)
class StageOfTheTest(Stage):
    name: ClassVar[str] = "your-stage"
    title = "your-stage"

    def __call__(self, problem, generator):
        return Findings()


@dataclass(frozen=True, kw_only=True)
class DomainOfTheTest(Interval):
    name: ClassVar[str] = "your-domain"
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AnalysisOfTheTest(Utilisation):
    name: ClassVar[str] = "your-analysis"
