"""CTBench on CIFAR-10: the best hyper-parameters of Tables 5 (eps 2/255) and 6 (eps 8/255), schedules of App. B.3.

Attacks have 8 steps at eps 2/255 and 10 at 8/255, except that MTL-IBP has 1 at 8/255 (App. B.4). The weights of MTL-IBP
are averaged (SWA). The first epoch of SWA and the L1 coefficient of standard training are those of the authors'
scripts.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import CIFAR10
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.mtl_ibp import MTLIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.standard import Standard
from ctbench.networks import CNN7
from ctbench.recipes.tables import adversarial, centre_search, certified, search, table_1, taps
from ctbench.regions import Linf
from ctbench.training import SWA, Adam, Recipe, SmoothRamp


def cifar10_2_standard() -> Recipe:
    return Recipe(
        dataset=CIFAR10(),
        network=CNN7(),
        threat=Linf(eps=2 / 255),
        method=Standard(),
        ramp=SmoothRamp(start=1, end=81),
        l1=5e-5,
        optimizer=Adam(lr=5e-4, milestones=(120, 140)),
        epochs=160,
        batch_size=128,
        source="CTBench, Table 5",
        published=table_1("cifar10", 2 / 255, "Standard"),
    )


def cifar10_2_pgd() -> Recipe:
    return adversarial(
        cifar10_2_standard(),
        PGD(attack=search(8)),
        l1=2e-5,
        published=table_1("cifar10", 2 / 255, "PGD"),
    )


def cifar10_2_edac() -> Recipe:
    return adversarial(
        cifar10_2_standard(),
        EDAC(attack=search(8)),
        l1=5e-6,
        published=table_1("cifar10", 2 / 255, "EDAC"),
    )


def cifar10_2_ibp() -> Recipe:
    return certified(
        cifar10_2_standard(),
        IBP(),
        l1=1e-6,
        published=table_1("cifar10", 2 / 255, "IBP"),
    )


def cifar10_2_crown_ibp() -> Recipe:
    return certified(
        cifar10_2_standard(),
        CrownIBP(),
        l1=1e-6,
        published=table_1("cifar10", 2 / 255, "CROWN-IBP"),
    )


def cifar10_2_sabr() -> Recipe:
    return certified(
        cifar10_2_standard(),
        SABR(ratio=0.1, attack=centre_search(8), shrink=0.8),
        train_eps=3 / 255,
        l1=1e-6,
        robust_weight=0.7,
        published=table_1("cifar10", 2 / 255, "SABR"),
    )


def cifar10_2_taps() -> Recipe:
    return certified(
        cifar10_2_standard(),
        taps(8, relus=5, scale=5),
        warmup=IBP(),
        l1=2e-6,
        published=table_1("cifar10", 2 / 255, "TAPS"),
    )


def cifar10_2_staps() -> Recipe:
    sabr = SABR(ratio=0.1, attack=centre_search(8), shrink=0.8)
    return certified(
        cifar10_2_standard(),
        replace(sabr, inner=taps(8, relus=1, scale=5)),
        warmup=sabr,
        train_eps=3 / 255,
        l1=5e-6,
        published=table_1("cifar10", 2 / 255, "STAPS"),
    )


def cifar10_2_mtl_ibp() -> Recipe:
    return certified(
        cifar10_2_standard(),
        MTLIBP(alpha=0.01, attack=search(8), attack_scale=2.0),
        l1=3e-6,
        robust_weight=0.9,
        swa=SWA(start=150),
        published=table_1("cifar10", 2 / 255, "MTL-IBP"),
    )


def cifar10_8_standard() -> Recipe:
    return replace(
        cifar10_2_standard(),
        threat=Linf(eps=8 / 255),
        ramp=SmoothRamp(start=1, end=121),
        optimizer=Adam(lr=5e-4, milestones=(200, 220)),
        epochs=240,
        source="CTBench, Table 6",
    )


def cifar10_8_pgd() -> Recipe:
    return adversarial(
        cifar10_8_standard(),
        PGD(attack=search(10)),
        l1=1e-6,
        published=table_1("cifar10", 8 / 255, "PGD"),
    )


def cifar10_8_edac() -> Recipe:
    return adversarial(
        cifar10_8_standard(),
        EDAC(attack=search(10)),
        l1=1e-6,
        published=table_1("cifar10", 8 / 255, "EDAC"),
    )


def cifar10_8_ibp() -> Recipe:
    return certified(
        cifar10_8_standard(),
        IBP(),
        l1=0.0,
        published=table_1("cifar10", 8 / 255, "IBP"),
    )


def cifar10_8_crown_ibp() -> Recipe:
    return certified(
        cifar10_8_standard(),
        CrownIBP(),
        l1=0.0,
        published=table_1("cifar10", 8 / 255, "CROWN-IBP"),
    )


def cifar10_8_sabr() -> Recipe:
    return certified(
        cifar10_8_standard(),
        SABR(ratio=0.7, attack=centre_search(10)),
        l1=0.0,
        published=table_1("cifar10", 8 / 255, "SABR"),
    )


def cifar10_8_taps() -> Recipe:
    return certified(
        cifar10_8_standard(),
        taps(10, relus=1, scale=2),
        warmup=IBP(),
        l1=0.0,
        published=table_1("cifar10", 8 / 255, "TAPS"),
    )


def cifar10_8_staps() -> Recipe:
    sabr = SABR(ratio=0.9, attack=centre_search(10))
    return certified(
        cifar10_8_standard(),
        replace(sabr, inner=taps(10, relus=1, scale=2)),
        warmup=sabr,
        l1=0.0,
        published=table_1("cifar10", 8 / 255, "STAPS"),
    )


def cifar10_8_mtl_ibp() -> Recipe:
    return certified(
        cifar10_8_standard(),
        MTLIBP(alpha=0.5, attack=search(1)),
        l1=0.0,
        swa=SWA(start=225),
        published=table_1("cifar10", 8 / 255, "MTL-IBP"),
    )
