"""Attacks, searches for the worst point of a region: one file per attack."""

from ctbench.attacks.apgd import APGD
from ctbench.attacks.autoattack import AutoAttack
from ctbench.attacks.base import Attack, Objective
from ctbench.attacks.evaluation import Evaluation, Round, adversarial_accuracy
from ctbench.attacks.line_search import LineSearch
from ctbench.attacks.pgd import PGD
from ctbench.members import members

__all__ = [
    "APGD",
    "PGD",
    "Attack",
    "AutoAttack",
    "Evaluation",
    "LineSearch",
    "Objective",
    "Round",
    "adversarial_accuracy",
    "attacks",
]


def attacks() -> dict[str, type[Attack]]:
    """Return all attacks by name: those of this package, and all other subclasses of `Attack` defined so far."""
    return members(Attack)
