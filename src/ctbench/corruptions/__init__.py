"""Corruptions of images: fifteen kinds in five severities, with the names of MNIST-C and formulas of our own.

corruption("fog", severity=3)(x, seed=0)      images [B, C, H, W] in [0, 1] to the same
corrupted(MNIST(), "fog", severity=3).load()  of ctbench.datasets: a data set whose test images are corrupted
"""

from __future__ import annotations

from ctbench.corruptions.base import SEVERITIES, Corruption
from ctbench.members import members

__all__ = ["SEVERITIES", "Corruption", "corruption", "corruptions"]


def corruptions() -> dict[str, type[Corruption]]:
    """Return all corruptions by name: those of this package, and all other subclasses of `Corruption` so far."""
    return members(Corruption)


def corruption(name: str, severity: int = 3) -> Corruption:
    """The corruption of this name.

    Raises:
        ValueError: there is no such corruption, or the severity is not from 1 to 5.
    """
    kinds = corruptions()
    if name not in kinds:
        raise ValueError(f"no corruption is called {name!r}; there are {', '.join(kinds)}")
    return kinds[name](severity=severity)
