"""Searches for the worst point of a region: one file per attack."""

from ctbench.attacks.pgd import PGD, Attack, Objective

__all__ = ["PGD", "Attack", "Objective"]
