"""Recipes on the embedded 8x8 digits at eps 0.1 (segments: 2): seconds on two cores, the same steps as at full size."""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import Digits
from ctbench.methods.arow import ARoW
from ctbench.methods.coap import COAP
from ctbench.methods.colt import COLT
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.ibp_r import IBPR
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.sam import SAM
from ctbench.methods.smoothing import WeightSmoothing
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3, MLP, LayerNormMLP, ViT
from ctbench.recipes.tables import adversarial, centre_search, certified, search, taps
from ctbench.regions import Linf, RandomSegments
from ctbench.training import Adam, LinearRamp, Recipe, Schedule, SmoothRamp

SEARCH = search(5, restarts=1)


def digits_standard() -> Recipe:
    return Recipe(
        dataset=Digits(),
        network=CNN3(width=16, batch_norm=True),
        threat=Linf(eps=0.1),
        method=Standard(),
        ramp=SmoothRamp(start=0, end=15),
        optimizer=Adam(lr=2e-3, milestones=(30, 35)),
        epochs=40,
        batch_size=64,
        source="ctbench: chosen to run in seconds",
    )


def digits_pgd() -> Recipe:
    return adversarial(digits_standard(), PGD(attack=search(8, restarts=1)))


def digits_edac() -> Recipe:
    return adversarial(digits_standard(), EDAC(attack=SEARCH))


def digits_mart() -> Recipe:
    return adversarial(digits_standard(), MART(attack=SEARCH))


def digits_arow() -> Recipe:
    return adversarial(digits_standard(), ARoW(attack=SEARCH))


def digits_line_search() -> Recipe:
    setting = replace(digits_standard(), network=MLP(hidden=(100,)), threat=RandomSegments(eps=2.0, count=4))
    return adversarial(setting, LineSearchTraining())


def digits_sam() -> Recipe:
    return adversarial(digits_standard(), SAM(inner=PGD(attack=SEARCH)))


def digits_weight_smoothing() -> Recipe:
    return certified(digits_standard(), WeightSmoothing(inner=CrownIBP()))


def digits_ibp() -> Recipe:
    return certified(digits_standard(), IBP())


def digits_crown_ibp() -> Recipe:
    return certified(digits_standard(), CrownIBP())


def digits_sabr() -> Recipe:
    return certified(digits_standard(), SABR(ratio=0.4, attack=centre_search(5, restarts=1)))


def digits_taps() -> Recipe:
    method = taps(5, relus=1, scale=4, restarts=1)
    return certified(digits_standard(), method, warmup=IBP())


def digits_staps() -> Recipe:
    sabr, inner = SABR(ratio=0.4, attack=centre_search(5, restarts=1)), taps(5, relus=1, scale=4, restarts=1)
    return certified(digits_standard(), replace(sabr, inner=inner), warmup=sabr)


def digits_mtl_ibp() -> Recipe:
    return certified(digits_standard(), MTLIBP(alpha=0.1, attack=SEARCH))


def digits_cc_ibp() -> Recipe:
    return certified(digits_standard(), CCIBP(alpha=0.1, attack=SEARCH))


def digits_exp_ibp() -> Recipe:
    return certified(digits_standard(), ExpIBP(alpha=0.1, attack=SEARCH))


def digits_coap() -> Recipe:
    return adversarial(digits_standard(), COAP(projections=10))


def digits_ibp_r() -> Recipe:
    return certified(digits_standard(), IBPR(attack=SEARCH))


def digits_colt() -> Recipe:
    """Adversarial training, then stages after the first and after the second ReLU; a third of the epochs each."""
    stages = Schedule(path="method.progress", start_value=0.0, end_value=3.0, ramp=LinearRamp(end=40))
    method, network = COLT(attack=SEARCH), CNN3(width=16, batch_norm=False)
    return adversarial(digits_standard(), method, network=network, schedules=(stages,))


def digits_layernorm_ibp() -> Recipe:
    """IBP of dense layers with layer norm."""
    network = LayerNormMLP(hidden=(64,))
    return adversarial(
        digits_standard(), IBP(), network=network, threat=Linf(eps=0.05), ramp=SmoothRamp(start=2, end=25)
    )


def digits_layernorm_sabr() -> Recipe:
    return replace(digits_layernorm_ibp(), method=SABR(ratio=0.4, attack=centre_search(5, restarts=1)))


def digits_vit_ibp() -> Recipe:
    """IBP of a transformer with 4 patches, at a small radius: intervals lose more in products than in layers."""
    optimizer = Adam(lr=1e-2, milestones=(30, 35))
    return replace(digits_layernorm_ibp(), network=ViT(), threat=Linf(eps=0.02), optimizer=optimizer)


def digits_vit_sabr() -> Recipe:
    return replace(digits_vit_ibp(), method=SABR(ratio=0.7, attack=centre_search(5, restarts=1)))
