"""Recipes on the embedded 8x8 digits: seconds on two cores, the same steps as at full size."""

from __future__ import annotations

from dataclasses import replace

from ctbench import attacks
from ctbench.datasets import Digits
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3
from ctbench.regions import Linf
from ctbench.training import Adam, Recipe, Smooth

SOURCE = "ctbench: chosen to run in seconds, no published figures"


def digits_standard() -> Recipe:
    return Recipe(
        name="digits_standard",
        dataset=Digits(),
        network=CNN3(width=16, batch_norm=True),
        threat=Linf(eps=0.1),
        method=Standard(),
        optimizer=Adam(lr=2e-3, milestones=(30, 35)),
        epochs=40,
        batch_size=64,
        source=SOURCE,
    )


def digits_pgd() -> Recipe:
    return replace(
        digits_standard(),
        name="digits_pgd",
        method=PGD(attack=attacks.PGD(steps=8)),
        ramp=Smooth(start=0, end=15),
    )


def digits_ibp() -> Recipe:
    return replace(digits_pgd(), name="digits_ibp", method=IBP(), initialization="shi", shi=0.5)
