"""Searches for the worst point of a region: one file per attack."""

from ctbench.attacks.base import Attack, Objective
from ctbench.attacks.pgd import PGD

__all__ = ["PGD", "Attack", "Objective"]
