"""Recipes on the embedded 8x8 digits at eps 0.1: seconds on two cores, the same steps as at full size."""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import Digits
from ctbench.methods.arow import ARoW
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.sam import SAM
from ctbench.methods.smoothing import WeightSmoothing
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3
from ctbench.recipes.columns import adversarial, centre_search, certified, search, taps
from ctbench.regions import Linf
from ctbench.training import Adam, Recipe, Smooth

SEARCH = search(5, restarts=1)


def digits_standard() -> Recipe:
    return Recipe(
        name="digits_standard",
        dataset=Digits(),
        network=CNN3(width=16, batch_norm=True),
        threat=Linf(eps=0.1),
        method=Standard(),
        ramp=Smooth(start=0, end=15),
        optimizer=Adam(lr=2e-3, milestones=(30, 35)),
        epochs=40,
        batch_size=64,
        source="ctbench: chosen to run in seconds",
    )


def digits_pgd() -> Recipe:
    return adversarial(digits_standard(), "digits_pgd", PGD(attack=search(8, restarts=1)))


def digits_edac() -> Recipe:
    return adversarial(digits_standard(), "digits_edac", EDAC(attack=SEARCH))


def digits_mart() -> Recipe:
    return adversarial(digits_standard(), "digits_mart", MART(attack=SEARCH))


def digits_arow() -> Recipe:
    return adversarial(digits_standard(), "digits_arow", ARoW(attack=SEARCH))


def digits_sam() -> Recipe:
    return adversarial(digits_standard(), "digits_sam", SAM(inner=PGD(attack=SEARCH)))


def digits_weight_smoothing() -> Recipe:
    return certified(digits_standard(), "digits_weight_smoothing", WeightSmoothing(inner=CrownIBP()))


def digits_ibp() -> Recipe:
    return certified(digits_standard(), "digits_ibp", IBP())


def digits_crown_ibp() -> Recipe:
    return certified(digits_standard(), "digits_crown_ibp", CrownIBP())


def digits_sabr() -> Recipe:
    return certified(digits_standard(), "digits_sabr", SABR(ratio=0.4, attack=centre_search(5, restarts=1)))


def digits_taps() -> Recipe:
    method = taps(5, relus=1, scale=4, restarts=1)
    return certified(digits_standard(), "digits_taps", method, warmup=IBP())


def digits_staps() -> Recipe:
    sabr, inner = SABR(ratio=0.4, attack=centre_search(5, restarts=1)), taps(5, relus=1, scale=4, restarts=1)
    return certified(digits_standard(), "digits_staps", replace(sabr, inner=inner), warmup=sabr)


def digits_mtl_ibp() -> Recipe:
    return certified(digits_standard(), "digits_mtl_ibp", MTLIBP(alpha=0.1, attack=SEARCH))


def digits_cc_ibp() -> Recipe:
    return certified(digits_standard(), "digits_cc_ibp", CCIBP(alpha=0.1, attack=SEARCH))


def digits_exp_ibp() -> Recipe:
    return certified(digits_standard(), "digits_exp_ibp", ExpIBP(alpha=0.1, attack=SEARCH))
