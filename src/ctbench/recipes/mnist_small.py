"""Recipes on MNIST at eps 0.1 with the small network of Wong & Kolter: minutes on two cores."""

from __future__ import annotations

from dataclasses import replace

from ctbench import attacks
from ctbench.datasets import MNIST
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import ConvSmall
from ctbench.regions import Linf
from ctbench.training import Adam, Recipe, Smooth

SOURCE = "ctbench: a short schedule for two cores, no published figures"


def mnist_small_standard() -> Recipe:
    return Recipe(
        name="mnist_small_standard",
        dataset=MNIST(),
        network=ConvSmall(),
        threat=Linf(eps=0.1),
        method=Standard(),
        optimizer=Adam(lr=1e-3, milestones=(15, 18)),
        epochs=20,
        batch_size=256,
        source=SOURCE,
    )


def mnist_small_pgd() -> Recipe:
    return replace(
        mnist_small_standard(),
        name="mnist_small_pgd",
        method=PGD(attack=attacks.PGD(steps=5)),
        ramp=Smooth(start=0, end=8),
    )


def mnist_small_ibp() -> Recipe:
    return replace(mnist_small_pgd(), name="mnist_small_ibp", method=IBP(), initialization="shi", shi=0.5)
