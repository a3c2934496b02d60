"""CTBench on CIFAR-10: the best hyper-parameters of Tables 5 (eps 2/255) and 6 (eps 8/255), schedules of App. B.3.

8 attack steps at eps 2/255 and 10 at 8/255, where MTL-IBP takes 1 (App. B.4). Its weights are averaged (SWA); from when
on, and the L1 coefficient of standard training, is as in the authors' scripts.
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
from ctbench.recipes.columns import adversarial, centre_search, certified, ctbench, search, taps
from ctbench.regions import Linf
from ctbench.training import SWA, Adam, Recipe, Smooth


def cifar10_2_standard() -> Recipe:
    return Recipe(
        name="cifar10_2_standard",
        dataset=CIFAR10(),
        network=CNN7(),
        threat=Linf(eps=2 / 255),
        method=Standard(),
        ramp=Smooth(start=1, end=81),
        l1=5e-5,
        optimizer=Adam(lr=5e-4, milestones=(120, 140)),
        epochs=160,
        batch_size=128,
        source="CTBench, Table 5",
        published=ctbench(91.27),
    )


def cifar10_2_pgd() -> Recipe:
    method, published = PGD(attack=search(8)), ctbench(88.67, adversarial=72.41)
    return adversarial(cifar10_2_standard(), "cifar10_2_pgd", method, l1=2e-5, published=published)


def cifar10_2_edac() -> Recipe:
    method, published = EDAC(attack=search(8)), ctbench(89.18, adversarial=72.42)
    return adversarial(cifar10_2_standard(), "cifar10_2_edac", method, l1=5e-6, published=published)


def cifar10_2_ibp() -> Recipe:
    return certified(cifar10_2_standard(), "cifar10_2_ibp", IBP(), l1=1e-6, published=ctbench(67.49, 55.99, 56.10))


def cifar10_2_crown_ibp() -> Recipe:
    published = ctbench(67.60, 57.11, 57.28)
    return certified(cifar10_2_standard(), "cifar10_2_crown_ibp", CrownIBP(), l1=1e-6, published=published)


def cifar10_2_sabr() -> Recipe:
    return certified(
        cifar10_2_standard(),
        "cifar10_2_sabr",
        SABR(ratio=0.1, attack=centre_search(8), shrink=0.8),
        train_eps=3 / 255,
        l1=1e-6,
        robust_weight=0.7,
        published=ctbench(77.86, 63.61, 65.56),
    )


def cifar10_2_taps() -> Recipe:
    return certified(
        cifar10_2_standard(),
        "cifar10_2_taps",
        taps(8, relus=5, scale=5),
        warmup=IBP(),
        l1=2e-6,
        published=ctbench(74.44, 61.27, 62.62),
    )


def cifar10_2_staps() -> Recipe:
    sabr = SABR(ratio=0.1, attack=centre_search(8), shrink=0.8)
    return certified(
        cifar10_2_standard(),
        "cifar10_2_staps",
        replace(sabr, inner=taps(8, relus=1, scale=5)),
        warmup=sabr,
        train_eps=3 / 255,
        l1=5e-6,
        published=ctbench(77.05, 64.21, 66.09),
    )


def cifar10_2_mtl_ibp() -> Recipe:
    return certified(
        cifar10_2_standard(),
        "cifar10_2_mtl_ibp",
        MTLIBP(alpha=0.01, attack=search(8), attack_scale=2.0),
        l1=3e-6,
        robust_weight=0.9,
        swa=SWA(start=150),
        published=ctbench(78.82, 64.41, 67.69),
    )


def cifar10_8_standard() -> Recipe:
    return replace(
        cifar10_2_standard(),
        name="cifar10_8_standard",
        threat=Linf(eps=8 / 255),
        ramp=Smooth(start=1, end=121),
        optimizer=Adam(lr=5e-4, milestones=(200, 220)),
        epochs=240,
        source="CTBench, Table 6",
    )


def cifar10_8_pgd() -> Recipe:
    method, published = PGD(attack=search(10)), ctbench(78.71, adversarial=35.93)
    return adversarial(cifar10_8_standard(), "cifar10_8_pgd", method, l1=1e-6, published=published)


def cifar10_8_edac() -> Recipe:
    method, published = EDAC(attack=search(10)), ctbench(78.95, adversarial=42.48)
    return adversarial(cifar10_8_standard(), "cifar10_8_edac", method, l1=1e-6, published=published)


def cifar10_8_ibp() -> Recipe:
    return certified(cifar10_8_standard(), "cifar10_8_ibp", IBP(), l1=0.0, published=ctbench(48.51, 35.28, 35.48))


def cifar10_8_crown_ibp() -> Recipe:
    published = ctbench(48.25, 32.59, 32.77)
    return certified(cifar10_8_standard(), "cifar10_8_crown_ibp", CrownIBP(), l1=0.0, published=published)


def cifar10_8_sabr() -> Recipe:
    method, published = SABR(ratio=0.7, attack=centre_search(10)), ctbench(52.71, 35.34, 36.11)
    return certified(cifar10_8_standard(), "cifar10_8_sabr", method, l1=0.0, published=published)


def cifar10_8_taps() -> Recipe:
    return certified(
        cifar10_8_standard(),
        "cifar10_8_taps",
        taps(10, relus=1, scale=2),
        warmup=IBP(),
        l1=0.0,
        published=ctbench(49.96, 35.25, 35.69),
    )


def cifar10_8_staps() -> Recipe:
    sabr = SABR(ratio=0.9, attack=centre_search(10))
    return certified(
        cifar10_8_standard(),
        "cifar10_8_staps",
        replace(sabr, inner=taps(10, relus=1, scale=2)),
        warmup=sabr,
        l1=0.0,
        published=ctbench(51.49, 35.11, 35.54),
    )


def cifar10_8_mtl_ibp() -> Recipe:
    return certified(
        cifar10_8_standard(),
        "cifar10_8_mtl_ibp",
        MTLIBP(alpha=0.5, attack=search(1)),
        l1=0.0,
        swa=SWA(start=225),
        published=ctbench(54.28, 35.41, 36.02),
    )
