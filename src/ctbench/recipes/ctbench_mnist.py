"""CTBench on MNIST: the best hyper-parameters of Tables 3 (eps 0.1) and 4 (eps 0.3), schedules of App. B.3.

Attacks have 10 steps at eps 0.1 and 5 at 0.3, except that MTL-IBP has 1 (App. B.4). The weights of MTL-IBP are averaged
(SWA). The first epoch of SWA and the L1 coefficient of standard training are those of the authors' scripts.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import MNIST
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

AVERAGED = SWA(start=65)


def mnist_01_standard() -> Recipe:
    return Recipe(
        dataset=MNIST(),
        network=CNN7(),
        threat=Linf(eps=0.1),
        train_eps=0.2,
        method=Standard(),
        ramp=SmoothRamp(start=0, end=20),
        l1=1e-5,
        optimizer=Adam(lr=5e-4, milestones=(50, 60)),
        epochs=70,
        batch_size=256,
        source="CTBench, Table 3",
        published=table_1("mnist", 0.1, "Standard"),
    )


def mnist_01_pgd() -> Recipe:
    method = PGD(attack=search(10))
    return adversarial(
        mnist_01_standard(),
        method,
        published=table_1("mnist", 0.1, "PGD"),
    )


def mnist_01_edac() -> Recipe:
    method = EDAC(attack=search(10))
    return adversarial(
        mnist_01_standard(),
        method,
        published=table_1("mnist", 0.1, "EDAC"),
    )


def mnist_01_ibp() -> Recipe:
    return certified(
        mnist_01_standard(),
        IBP(),
        l1=2e-6,
        published=table_1("mnist", 0.1, "IBP"),
    )


def mnist_01_crown_ibp() -> Recipe:
    return certified(
        mnist_01_standard(),
        CrownIBP(),
        l1=2e-6,
        published=table_1("mnist", 0.1, "CROWN-IBP"),
    )


def mnist_01_sabr() -> Recipe:
    return certified(
        mnist_01_standard(),
        SABR(ratio=0.4, attack=centre_search(10)),
        l1=1e-6,
        robust_weight=0.7,
        published=table_1("mnist", 0.1, "SABR"),
    )


def mnist_01_taps() -> Recipe:
    return certified(
        mnist_01_standard(),
        taps(10, relus=3, scale=4),
        warmup=IBP(),
        l1=1e-6,
        robust_weight=0.7,
        published=table_1("mnist", 0.1, "TAPS"),
    )


def mnist_01_staps() -> Recipe:
    sabr = SABR(ratio=0.4, attack=centre_search(10))
    return certified(
        mnist_01_standard(),
        replace(sabr, inner=taps(10, relus=1, scale=4)),
        warmup=sabr,
        l1=1e-6,
        robust_weight=0.7,
        published=table_1("mnist", 0.1, "STAPS"),
    )


def mnist_01_mtl_ibp() -> Recipe:
    return certified(
        mnist_01_standard(),
        MTLIBP(alpha=0.02, attack=search(1)),
        l1=1e-5,
        robust_weight=0.7,
        swa=AVERAGED,
        published=table_1("mnist", 0.1, "MTL-IBP"),
    )


def mnist_03_standard() -> Recipe:
    return replace(
        mnist_01_standard(),
        threat=Linf(eps=0.3),
        train_eps=None,
        source="CTBench, Table 4",
    )


def mnist_03_pgd() -> Recipe:
    return adversarial(
        mnist_03_standard(),
        PGD(attack=search(5)),
        l1=5e-6,
        published=table_1("mnist", 0.3, "PGD"),
    )


def mnist_03_edac() -> Recipe:
    return adversarial(
        mnist_03_standard(),
        EDAC(attack=search(5)),
        l1=5e-6,
        published=table_1("mnist", 0.3, "EDAC"),
    )


def mnist_03_ibp() -> Recipe:
    return certified(
        mnist_03_standard(),
        IBP(),
        l1=1e-6,
        published=table_1("mnist", 0.3, "IBP"),
    )


def mnist_03_crown_ibp() -> Recipe:
    return certified(
        mnist_03_standard(),
        CrownIBP(),
        l1=1e-6,
        published=table_1("mnist", 0.3, "CROWN-IBP"),
    )


def mnist_03_sabr() -> Recipe:
    return certified(
        mnist_03_standard(),
        SABR(ratio=0.8, attack=centre_search(5)),
        l1=2e-6,
        published=table_1("mnist", 0.3, "SABR"),
    )


def mnist_03_taps() -> Recipe:
    return certified(
        mnist_03_standard(),
        taps(5, relus=1, scale=3),
        warmup=IBP(),
        l1=2e-6,
        published=table_1("mnist", 0.3, "TAPS"),
    )


def mnist_03_staps() -> Recipe:
    sabr = SABR(ratio=0.8, attack=centre_search(5))
    return certified(
        mnist_03_standard(),
        replace(sabr, inner=taps(5, relus=1, scale=1)),
        warmup=sabr,
        l1=2e-6,
        published=table_1("mnist", 0.3, "STAPS"),
    )


def mnist_03_mtl_ibp() -> Recipe:
    return certified(
        mnist_03_standard(),
        MTLIBP(alpha=0.5, attack=search(1)),
        l1=1e-6,
        swa=AVERAGED,
        published=table_1("mnist", 0.3, "MTL-IBP"),
    )
