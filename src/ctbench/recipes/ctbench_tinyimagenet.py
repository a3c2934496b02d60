"""CTBench on TinyImageNet: the best hyper-parameters of Table 7 (eps 1/255), schedules of App. B.3.

All attacks have one step. From the table come the L1 coefficients of the adversarial methods and of IBP. All other L1
coefficients, EDAC's size and the averages of the weights (SWA, here also for fused CROWN-IBP) are those of the authors'
scripts.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import TinyImageNet
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.mtl_ibp import MTLIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.standard import Standard
from ctbench.networks import CNN7TinyImageNet
from ctbench.recipes.tables import adversarial, centre_search, certified, search, table_1, taps
from ctbench.regions import Linf
from ctbench.training import SWA, Adam, Recipe, SmoothRamp

AVERAGED = SWA(start=150)
SHI = 0.2


def tinyimagenet_standard() -> Recipe:
    return Recipe(
        dataset=TinyImageNet(),
        network=CNN7TinyImageNet(),
        threat=Linf(eps=1 / 255),
        method=Standard(),
        ramp=SmoothRamp(start=1, end=81),
        l1=1e-4,
        optimizer=Adam(lr=5e-4, milestones=(120, 140)),
        epochs=160,
        batch_size=128,
        source="CTBench, Table 7",
        published=table_1("tinyimagenet", 1 / 255, "Standard"),
    )


def tinyimagenet_pgd() -> Recipe:
    return adversarial(
        tinyimagenet_standard(),
        PGD(attack=search(1)),
        l1=5e-5,
        published=table_1("tinyimagenet", 1 / 255, "PGD"),
    )


def tinyimagenet_edac() -> Recipe:
    return adversarial(
        tinyimagenet_standard(),
        EDAC(size=0.1, attack=search(1)),
        l1=1e-5,
        published=table_1("tinyimagenet", 1 / 255, "EDAC"),
    )


def tinyimagenet_ibp() -> Recipe:
    return certified(
        tinyimagenet_standard(),
        IBP(),
        shi=SHI,
        l1=5e-5,
        published=table_1("tinyimagenet", 1 / 255, "IBP"),
    )


def tinyimagenet_crown_ibp() -> Recipe:
    return certified(
        tinyimagenet_standard(),
        CrownIBP(),
        shi=SHI,
        l1=2e-5,
        swa=AVERAGED,
        published=table_1("tinyimagenet", 1 / 255, "CROWN-IBP"),
    )


def tinyimagenet_sabr() -> Recipe:
    return certified(
        tinyimagenet_standard(),
        SABR(ratio=0.4, attack=centre_search(1)),
        shi=SHI,
        l1=5e-5,
        published=table_1("tinyimagenet", 1 / 255, "SABR"),
    )


def tinyimagenet_taps() -> Recipe:
    return certified(
        tinyimagenet_standard(),
        taps(1, relus=1, scale=8),
        warmup=IBP(),
        shi=SHI,
        l1=5e-5,
        published=table_1("tinyimagenet", 1 / 255, "TAPS"),
    )


def tinyimagenet_staps() -> Recipe:
    sabr = SABR(ratio=0.6, attack=centre_search(1))
    return certified(
        tinyimagenet_standard(),
        replace(sabr, inner=taps(1, relus=1, scale=4)),
        warmup=sabr,
        shi=SHI,
        l1=5e-5,
        published=table_1("tinyimagenet", 1 / 255, "STAPS"),
    )


def tinyimagenet_mtl_ibp() -> Recipe:
    return certified(
        tinyimagenet_standard(),
        MTLIBP(alpha=0.05, attack=search(1)),
        shi=SHI,
        l1=5e-5,
        robust_weight=0.7,
        swa=AVERAGED,
        published=table_1("tinyimagenet", 1 / 255, "MTL-IBP"),
    )
