"""Recipes on MNIST with cnn3, at eps 0.1 and (03) at 0.3: minutes on two cores, one schedule for all.

SABR's ratio, TAPS's scale and MTL-IBP's alpha are those of CTBench's Tables 3 (eps 0.1) and 4 (eps 0.3). These values
are not: w_rob is 1 (0.7 in Table 3 for SABR, TAPS, STAPS and MTL-IBP), eps in training is that of the test (0.2 in
Table 3), there is no L1 term (1e-6 to 1e-5), TAPS has one ReLU in the classifier (3 in Table 3), attacks have 5 steps
(10 for eps 0.1) and 1 restart (3), and MTL-IBP has no SWA.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import MNIST
from ctbench.methods.arow import ARoW
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.sam import SAM
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3
from ctbench.recipes.tables import adversarial, centre_search, certified, search, taps
from ctbench.regions import Linf
from ctbench.training import Adam, Recipe, SmoothRamp

SEARCH, CENTRE_SEARCH, ONE_STEP = search(5, restarts=1), centre_search(5, restarts=1), search(1, restarts=1)


def mnist_small_standard() -> Recipe:
    return Recipe(
        dataset=MNIST(),
        network=CNN3(width=16, batch_norm=True),
        threat=Linf(eps=0.1),
        method=Standard(),
        ramp=SmoothRamp(start=0, end=6),
        optimizer=Adam(lr=2e-3, milestones=(9, 11)),
        epochs=12,
        batch_size=256,
        source="ctbench: a short schedule for two cores",
    )


def mnist_small_pgd() -> Recipe:
    return adversarial(mnist_small_standard(), PGD(attack=SEARCH))


def mnist_small_edac() -> Recipe:
    return adversarial(mnist_small_standard(), EDAC(attack=SEARCH))


def mnist_small_mart() -> Recipe:
    return adversarial(mnist_small_standard(), MART(attack=SEARCH))


def mnist_small_arow() -> Recipe:
    return adversarial(mnist_small_standard(), ARoW(attack=SEARCH))


def mnist_small_sam() -> Recipe:
    return adversarial(mnist_small_standard(), SAM(inner=PGD(attack=SEARCH)))


def mnist_small_ibp() -> Recipe:
    return certified(mnist_small_standard(), IBP())


def mnist_small_crown_ibp() -> Recipe:
    return certified(mnist_small_standard(), CrownIBP())


def mnist_small_sabr() -> Recipe:
    return certified(mnist_small_standard(), SABR(ratio=0.4, attack=CENTRE_SEARCH))


def mnist_small_taps() -> Recipe:
    method = taps(5, relus=1, scale=4, restarts=1)
    return certified(mnist_small_standard(), method, warmup=IBP())


def mnist_small_staps() -> Recipe:
    sabr, inner = SABR(ratio=0.4, attack=CENTRE_SEARCH), taps(5, relus=1, scale=4, restarts=1)
    return certified(mnist_small_standard(), replace(sabr, inner=inner), warmup=sabr)


def mnist_small_mtl_ibp() -> Recipe:
    return certified(mnist_small_standard(), MTLIBP(alpha=0.02, attack=ONE_STEP))


def mnist_small_cc_ibp() -> Recipe:
    return certified(mnist_small_standard(), CCIBP(alpha=0.02, attack=ONE_STEP))


def mnist_small_exp_ibp() -> Recipe:
    return certified(mnist_small_standard(), ExpIBP(alpha=0.02, attack=ONE_STEP))


def mnist_small_03_standard() -> Recipe:
    return replace(mnist_small_standard(), threat=Linf(eps=0.3))


def mnist_small_03_pgd() -> Recipe:
    return adversarial(mnist_small_03_standard(), PGD(attack=SEARCH))


def mnist_small_03_edac() -> Recipe:
    return adversarial(mnist_small_03_standard(), EDAC(attack=SEARCH))


def mnist_small_03_ibp() -> Recipe:
    return certified(mnist_small_03_standard(), IBP())


def mnist_small_03_crown_ibp() -> Recipe:
    return certified(mnist_small_03_standard(), CrownIBP())


def mnist_small_03_sabr() -> Recipe:
    return certified(mnist_small_03_standard(), SABR(ratio=0.8, attack=CENTRE_SEARCH))


def mnist_small_03_taps() -> Recipe:
    method = taps(5, relus=1, scale=3, restarts=1)
    return certified(mnist_small_03_standard(), method, warmup=IBP())


def mnist_small_03_staps() -> Recipe:
    sabr, inner = SABR(ratio=0.8, attack=CENTRE_SEARCH), taps(5, relus=1, scale=1, restarts=1)
    return certified(mnist_small_03_standard(), replace(sabr, inner=inner), warmup=sabr)


def mnist_small_03_mtl_ibp() -> Recipe:
    return certified(mnist_small_03_standard(), MTLIBP(alpha=0.5, attack=ONE_STEP))
