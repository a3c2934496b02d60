"""Images in De Bartolomeis et al. 2023, "How robust accuracy suffers from certified training with convex relaxations"
(App. A.1 and A.2), which in "Certified defences can hurt generalisation" (App. D.3) are trained in the same way.

AT (method "pgd"), COAP, CROWN-IBP, IBP and FAST-IBP, at every budget of Tables 4 (MNIST) and 5 (CIFAR-10) with the
errors found there, as accuracies: the adversarial one is what AA+ left. On TinyImageNet, without COAP, the two budgets
of Table 1, which is a figure without numbers. Last, AT and COAP on segments (Fig. 2b and 8a; they go along the number
of segments, threat.count, which is 10 here). Radii in names are in units of 1/255, but on MNIST.

l2 balls are cut with the data range for AT alone, as in AutoAttack. The other methods take the whole ball: random
projections know no other, and the libraries that the authors trained with do not cut it either.

What the papers leave open is as in the code that they say they used. COAP on CIFAR-10 (Wong et al. 2018): momentum 0.9,
weight decay 5e-4, gradients clipped at 1. CROWN-IBP and IBP (auto_LiRPA): loss fusion, no clean loss beside it,
gradients clipped at 8, on TinyImageNet a learning rate that stays. FAST-IBP (Shi et al. 2021), which is IBP with their
initialisation and regulariser: that one's weight, 0.5 or on TinyImageNet 0.2, and growth of the radius in 20, 80 and 20
epochs, after one at 0 but on MNIST.

Our choice: for AT with SGD, momentum and weight decay as for COAP; crops by up to 4 pixels; on segments, as many epochs
of COAP as of AT, and a search on grids for AT.

Different here: COAP's radius grows from 0, not from 0.01 or 0.001; networks for MNIST begin with a normalisation; and
the radius of CROWN-IBP and IBP grows as in FAST-IBP.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.attacks import APGD, LineSearch
from ctbench.datasets import CIFAR10, MNIST, Augmentation, TinyImageNet
from ctbench.datasets.tinyimagenet import CROPPED
from ctbench.methods.coap import COAP
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.pgd import PGD
from ctbench.networks import ConvLarge, ResNet, WideResNet
from ctbench.regions import L2, Linf, RandomSegments, Threat
from ctbench.results import Published
from ctbench.training import SGD, Adam, Constant, Linear, Ramp, Recipe, Schedule, Smooth

PAPER = "De Bartolomeis et al. 2023"
MNIST_TABLE, CIFAR10_TABLE = f"{PAPER}, Table 4", f"{PAPER}, Table 5"
AT = PGD(attack=APGD(steps=10))
CROPS = Augmentation(flip=True, crop_padding=4)


def _errors(standard: float, robust: float, table: str) -> Published:
    """What a table says, as accuracies in percent."""
    natural, adversarial = (round(100 * (1 - error), 1) for error in (standard, robust))
    return Published(natural=natural, adversarial=adversarial, source=table)


def _at(threat: Threat, first: Recipe, name: str, standard: float, robust: float) -> Recipe:
    """A recipe of the first budget in a table, at another one."""
    assert first.published
    return replace(first, name=name, threat=threat, published=_errors(standard, robust, first.published.source))


def _mixed(ramp: Ramp) -> tuple[Schedule]:
    """From CROWN-IBP's bounds to intervals' while the radius grows."""
    return (Schedule(path="method.beta", start_value=1.0, end_value=0.0, ramp=ramp),)


def mnist_linf_01_pgd() -> Recipe:
    return Recipe(
        name="mnist_linf_01_pgd",
        dataset=MNIST(),
        network=ConvLarge(),
        threat=Linf(eps=0.1),
        method=AT,
        ramp=Constant(),
        optimizer=Adam(lr=1e-3, milestones=(40, 80), decay=0.1, clip_norm=None),
        epochs=100,
        batch_size=128,
        source=f"{PAPER}, App. A.1",
        published=_errors(standard=0.008, robust=0.021, table=MNIST_TABLE),
    )


def mnist_linf_01_coap() -> Recipe:
    return replace(
        mnist_linf_01_pgd(),
        name="mnist_linf_01_coap",
        method=COAP(projections=50),
        ramp=Linear(start=0, end=20),
        optimizer=Adam(lr=1e-3, milestones=(30, 40, 50), decay=0.5, clip_norm=None),
        epochs=60,
        batch_size=50,
        published=_errors(standard=0.010, robust=0.026, table=MNIST_TABLE),
    )


def mnist_linf_01_crown_ibp() -> Recipe:
    return replace(
        mnist_linf_01_pgd(),
        name="mnist_linf_01_crown_ibp",
        method=CrownIBP(),
        ramp=Smooth(start=10, end=60),
        schedules=_mixed(Smooth(start=10, end=60)),
        optimizer=Adam(lr=5e-4, milestones=(130, 190), decay=0.1, clip_norm=8.0),
        epochs=200,
        batch_size=256,
        published=_errors(standard=0.010, robust=0.024, table=MNIST_TABLE),
    )


def mnist_linf_01_ibp() -> Recipe:
    setting, published = mnist_linf_01_crown_ibp(), _errors(standard=0.010, robust=0.026, table=MNIST_TABLE)
    return replace(setting, name="mnist_linf_01_ibp", method=IBP(), schedules=(), published=published)


def mnist_linf_01_fast_ibp() -> Recipe:
    return replace(
        mnist_linf_01_pgd(),
        name="mnist_linf_01_fast_ibp",
        network=ConvLarge(batch_norm=True),
        method=IBP(),
        ramp=Smooth(start=0, end=20),
        shi=0.5,
        initialization="shi",
        optimizer=Adam(lr=5e-4, milestones=(50, 60), decay=0.2, clip_norm=10.0),
        epochs=70,
        batch_size=256,
        published=_errors(standard=0.009, robust=0.017, table=MNIST_TABLE),
    )


def mnist_linf_02_pgd() -> Recipe:
    return _at(Linf(eps=0.2), mnist_linf_01_pgd(), "mnist_linf_02_pgd", 0.008, 0.045)


def mnist_linf_02_coap() -> Recipe:
    return _at(Linf(eps=0.2), mnist_linf_01_coap(), "mnist_linf_02_coap", 0.026, 0.066)


def mnist_linf_02_crown_ibp() -> Recipe:
    return _at(Linf(eps=0.2), mnist_linf_01_crown_ibp(), "mnist_linf_02_crown_ibp", 0.014, 0.050)


def mnist_linf_02_ibp() -> Recipe:
    return _at(Linf(eps=0.2), mnist_linf_01_ibp(), "mnist_linf_02_ibp", 0.014, 0.060)


def mnist_linf_02_fast_ibp() -> Recipe:
    return _at(Linf(eps=0.2), mnist_linf_01_fast_ibp(), "mnist_linf_02_fast_ibp", 0.010, 0.032)


def mnist_linf_03_pgd() -> Recipe:
    return _at(Linf(eps=0.3), mnist_linf_01_pgd(), "mnist_linf_03_pgd", 0.008, 0.095)


def mnist_linf_03_coap() -> Recipe:
    return _at(Linf(eps=0.3), mnist_linf_01_coap(), "mnist_linf_03_coap", 0.110, 0.224)


def mnist_linf_03_crown_ibp() -> Recipe:
    return _at(Linf(eps=0.3), mnist_linf_01_crown_ibp(), "mnist_linf_03_crown_ibp", 0.017, 0.075)


def mnist_linf_03_ibp() -> Recipe:
    return _at(Linf(eps=0.3), mnist_linf_01_ibp(), "mnist_linf_03_ibp", 0.021, 0.091)


def mnist_linf_03_fast_ibp() -> Recipe:
    return _at(Linf(eps=0.3), mnist_linf_01_fast_ibp(), "mnist_linf_03_fast_ibp", 0.015, 0.058)


def mnist_linf_04_pgd() -> Recipe:
    return _at(Linf(eps=0.4), mnist_linf_01_pgd(), "mnist_linf_04_pgd", 0.008, 0.321)


def mnist_linf_04_coap() -> Recipe:
    return _at(Linf(eps=0.4), mnist_linf_01_coap(), "mnist_linf_04_coap", 0.737, 0.806)


def mnist_linf_04_crown_ibp() -> Recipe:
    return _at(Linf(eps=0.4), mnist_linf_01_crown_ibp(), "mnist_linf_04_crown_ibp", 0.025, 0.120)


def mnist_linf_04_ibp() -> Recipe:
    return _at(Linf(eps=0.4), mnist_linf_01_ibp(), "mnist_linf_04_ibp", 0.033, 0.147)


def mnist_linf_04_fast_ibp() -> Recipe:
    return _at(Linf(eps=0.4), mnist_linf_01_fast_ibp(), "mnist_linf_04_fast_ibp", 0.024, 0.104)


def mnist_l2_05_pgd() -> Recipe:
    return _at(L2(eps=0.5), mnist_linf_01_pgd(), "mnist_l2_05_pgd", 0.006, 0.020)


def mnist_l2_05_coap() -> Recipe:
    return _at(L2(eps=0.5, clip=None), mnist_linf_01_coap(), "mnist_l2_05_coap", 0.014, 0.040)


def mnist_l2_05_crown_ibp() -> Recipe:
    return _at(L2(eps=0.5, clip=None), mnist_linf_01_crown_ibp(), "mnist_l2_05_crown_ibp", 0.027, 0.059)


def mnist_l2_05_ibp() -> Recipe:
    return _at(L2(eps=0.5, clip=None), mnist_linf_01_ibp(), "mnist_l2_05_ibp", 0.032, 0.068)


def mnist_l2_05_fast_ibp() -> Recipe:
    return _at(L2(eps=0.5, clip=None), mnist_linf_01_fast_ibp(), "mnist_l2_05_fast_ibp", 0.022, 0.044)


def mnist_l2_075_pgd() -> Recipe:
    return _at(L2(eps=0.75), mnist_linf_01_pgd(), "mnist_l2_075_pgd", 0.006, 0.035)


def mnist_l2_075_coap() -> Recipe:
    return _at(L2(eps=0.75, clip=None), mnist_linf_01_coap(), "mnist_l2_075_coap", 0.030, 0.100)


def mnist_l2_075_crown_ibp() -> Recipe:
    return _at(L2(eps=0.75, clip=None), mnist_linf_01_crown_ibp(), "mnist_l2_075_crown_ibp", 0.060, 0.125)


def mnist_l2_075_ibp() -> Recipe:
    return _at(L2(eps=0.75, clip=None), mnist_linf_01_ibp(), "mnist_l2_075_ibp", 0.070, 0.145)


def mnist_l2_075_fast_ibp() -> Recipe:
    return _at(L2(eps=0.75, clip=None), mnist_linf_01_fast_ibp(), "mnist_l2_075_fast_ibp", 0.053, 0.124)


def mnist_l2_1_pgd() -> Recipe:
    return _at(L2(eps=1.0), mnist_linf_01_pgd(), "mnist_l2_1_pgd", 0.006, 0.048)


def mnist_l2_1_coap() -> Recipe:
    return _at(L2(eps=1.0, clip=None), mnist_linf_01_coap(), "mnist_l2_1_coap", 0.049, 0.193)


def mnist_l2_1_crown_ibp() -> Recipe:
    return _at(L2(eps=1.0, clip=None), mnist_linf_01_crown_ibp(), "mnist_l2_1_crown_ibp", 0.192, 0.355)


def mnist_l2_1_ibp() -> Recipe:
    return _at(L2(eps=1.0, clip=None), mnist_linf_01_ibp(), "mnist_l2_1_ibp", 0.432, 0.539)


def mnist_l2_1_fast_ibp() -> Recipe:
    return _at(L2(eps=1.0, clip=None), mnist_linf_01_fast_ibp(), "mnist_l2_1_fast_ibp", 0.175, 0.361)


def mnist_l2_125_pgd() -> Recipe:
    return _at(L2(eps=1.25), mnist_linf_01_pgd(), "mnist_l2_125_pgd", 0.005, 0.092)


def mnist_l2_125_coap() -> Recipe:
    return _at(L2(eps=1.25, clip=None), mnist_linf_01_coap(), "mnist_l2_125_coap", 0.074, 0.302)


def mnist_l2_125_crown_ibp() -> Recipe:
    return _at(L2(eps=1.25, clip=None), mnist_linf_01_crown_ibp(), "mnist_l2_125_crown_ibp", 0.696, 0.760)


def mnist_l2_125_ibp() -> Recipe:
    return _at(L2(eps=1.25, clip=None), mnist_linf_01_ibp(), "mnist_l2_125_ibp", 0.794, 0.806)


def mnist_l2_125_fast_ibp() -> Recipe:
    return _at(L2(eps=1.25, clip=None), mnist_linf_01_fast_ibp(), "mnist_l2_125_fast_ibp", 0.652, 0.724)


def cifar10_linf_1_pgd() -> Recipe:
    return replace(
        mnist_linf_01_pgd(),
        name="cifar10_linf_1_pgd",
        dataset=CIFAR10(augmentation=CROPS),
        network=ResNet(),
        threat=Linf(eps=1 / 255),
        optimizer=SGD(lr=0.05, milestones=(80, 120), decay=0.1, weight_decay=5e-4),
        epochs=150,
        published=_errors(standard=0.150, robust=0.296, table=CIFAR10_TABLE),
    )


def cifar10_linf_1_coap() -> Recipe:
    return replace(
        cifar10_linf_1_pgd(),
        name="cifar10_linf_1_coap",
        method=COAP(projections=50),
        ramp=Linear(start=0, end=20),
        optimizer=SGD(lr=0.05, milestones=(30, 40, 50), decay=0.5, clip_norm=1.0, weight_decay=5e-4),
        epochs=60,
        batch_size=50,
        published=_errors(standard=0.309, robust=0.372, table=CIFAR10_TABLE),
    )


def cifar10_linf_1_crown_ibp() -> Recipe:
    return replace(
        cifar10_linf_1_pgd(),
        name="cifar10_linf_1_crown_ibp",
        method=CrownIBP(),
        ramp=Smooth(start=100, end=900),
        schedules=_mixed(Smooth(start=100, end=900)),
        optimizer=Adam(lr=5e-4, milestones=(1400, 1700), decay=0.1, clip_norm=8.0),
        epochs=2000,
        batch_size=256,
        published=_errors(standard=0.331, robust=0.425, table=CIFAR10_TABLE),
    )


def cifar10_linf_1_ibp() -> Recipe:
    setting, published = cifar10_linf_1_crown_ibp(), _errors(standard=0.356, robust=0.459, table=CIFAR10_TABLE)
    return replace(setting, name="cifar10_linf_1_ibp", method=IBP(), schedules=(), published=published)


def cifar10_linf_1_fast_ibp() -> Recipe:
    return replace(
        cifar10_linf_1_pgd(),
        name="cifar10_linf_1_fast_ibp",
        network=ResNet(batch_norm=True),
        method=IBP(),
        ramp=Smooth(start=1, end=81),
        shi=0.5,
        initialization="shi",
        optimizer=Adam(lr=5e-4, milestones=(120, 140), decay=0.2, clip_norm=10.0),
        epochs=160,
        batch_size=128,
        published=_errors(standard=0.290, robust=0.384, table=CIFAR10_TABLE),
    )


def cifar10_linf_2_pgd() -> Recipe:
    return _at(Linf(eps=2 / 255), cifar10_linf_1_pgd(), "cifar10_linf_2_pgd", 0.166, 0.378)


def cifar10_linf_2_coap() -> Recipe:
    return _at(Linf(eps=2 / 255), cifar10_linf_1_coap(), "cifar10_linf_2_coap", 0.336, 0.427)


def cifar10_linf_2_crown_ibp() -> Recipe:
    return _at(Linf(eps=2 / 255), cifar10_linf_1_crown_ibp(), "cifar10_linf_2_crown_ibp", 0.363, 0.498)


def cifar10_linf_2_ibp() -> Recipe:
    return _at(Linf(eps=2 / 255), cifar10_linf_1_ibp(), "cifar10_linf_2_ibp", 0.415, 0.526)


def cifar10_linf_2_fast_ibp() -> Recipe:
    return _at(Linf(eps=2 / 255), cifar10_linf_1_fast_ibp(), "cifar10_linf_2_fast_ibp", 0.357, 0.476)


def cifar10_linf_4_pgd() -> Recipe:
    return _at(Linf(eps=4 / 255), cifar10_linf_1_pgd(), "cifar10_linf_4_pgd", 0.193, 0.506)


def cifar10_linf_4_coap() -> Recipe:
    return _at(Linf(eps=4 / 255), cifar10_linf_1_coap(), "cifar10_linf_4_coap", 0.502, 0.609)


def cifar10_linf_4_crown_ibp() -> Recipe:
    return _at(Linf(eps=4 / 255), cifar10_linf_1_crown_ibp(), "cifar10_linf_4_crown_ibp", 0.548, 0.640)


def cifar10_linf_4_ibp() -> Recipe:
    return _at(Linf(eps=4 / 255), cifar10_linf_1_ibp(), "cifar10_linf_4_ibp", 0.487, 0.614)


def cifar10_linf_4_fast_ibp() -> Recipe:
    return _at(Linf(eps=4 / 255), cifar10_linf_1_fast_ibp(), "cifar10_linf_4_fast_ibp", 0.449, 0.585)


def cifar10_linf_8_pgd() -> Recipe:
    return _at(Linf(eps=8 / 255), cifar10_linf_1_pgd(), "cifar10_linf_8_pgd", 0.239, 0.698)


def cifar10_linf_8_coap() -> Recipe:
    return _at(Linf(eps=8 / 255), cifar10_linf_1_coap(), "cifar10_linf_8_coap", 0.729, 0.775)


def cifar10_linf_8_crown_ibp() -> Recipe:
    return _at(Linf(eps=8 / 255), cifar10_linf_1_crown_ibp(), "cifar10_linf_8_crown_ibp", 0.539, 0.673)


def cifar10_linf_8_ibp() -> Recipe:
    return _at(Linf(eps=8 / 255), cifar10_linf_1_ibp(), "cifar10_linf_8_ibp", 0.606, 0.708)


def cifar10_linf_8_fast_ibp() -> Recipe:
    return _at(Linf(eps=8 / 255), cifar10_linf_1_fast_ibp(), "cifar10_linf_8_fast_ibp", 0.546, 0.675)


def cifar10_l2_9_pgd() -> Recipe:
    return _at(L2(eps=9 / 255), cifar10_linf_1_pgd(), "cifar10_l2_9_pgd", 0.151, 0.217)


def cifar10_l2_9_coap() -> Recipe:
    return _at(L2(eps=9 / 255, clip=None), cifar10_linf_1_coap(), "cifar10_l2_9_coap", 0.219, 0.233)


def cifar10_l2_9_crown_ibp() -> Recipe:
    return _at(L2(eps=9 / 255, clip=None), cifar10_linf_1_crown_ibp(), "cifar10_l2_9_crown_ibp", 0.491, 0.521)


def cifar10_l2_9_ibp() -> Recipe:
    return _at(L2(eps=9 / 255, clip=None), cifar10_linf_1_ibp(), "cifar10_l2_9_ibp", 0.424, 0.457)


def cifar10_l2_9_fast_ibp() -> Recipe:
    return _at(L2(eps=9 / 255, clip=None), cifar10_linf_1_fast_ibp(), "cifar10_l2_9_fast_ibp", 0.647, 0.661)


def cifar10_l2_18_pgd() -> Recipe:
    return _at(L2(eps=18 / 255), cifar10_linf_1_pgd(), "cifar10_l2_18_pgd", 0.151, 0.246)


def cifar10_l2_18_coap() -> Recipe:
    return _at(L2(eps=18 / 255, clip=None), cifar10_linf_1_coap(), "cifar10_l2_18_coap", 0.287, 0.316)


def cifar10_l2_18_crown_ibp() -> Recipe:
    return _at(L2(eps=18 / 255, clip=None), cifar10_linf_1_crown_ibp(), "cifar10_l2_18_crown_ibp", 0.690, 0.721)


def cifar10_l2_18_ibp() -> Recipe:
    return _at(L2(eps=18 / 255, clip=None), cifar10_linf_1_ibp(), "cifar10_l2_18_ibp", 0.515, 0.566)


def cifar10_l2_18_fast_ibp() -> Recipe:
    return _at(L2(eps=18 / 255, clip=None), cifar10_linf_1_fast_ibp(), "cifar10_l2_18_fast_ibp", 0.753, 0.763)


def cifar10_l2_36_pgd() -> Recipe:
    return _at(L2(eps=36 / 255), cifar10_linf_1_pgd(), "cifar10_l2_36_pgd", 0.152, 0.298)


def cifar10_l2_36_coap() -> Recipe:
    return _at(L2(eps=36 / 255, clip=None), cifar10_linf_1_coap(), "cifar10_l2_36_coap", 0.399, 0.447)


def cifar10_l2_36_crown_ibp() -> Recipe:
    return _at(L2(eps=36 / 255, clip=None), cifar10_linf_1_crown_ibp(), "cifar10_l2_36_crown_ibp", 0.740, 0.780)


def cifar10_l2_36_ibp() -> Recipe:
    return _at(L2(eps=36 / 255, clip=None), cifar10_linf_1_ibp(), "cifar10_l2_36_ibp", 0.622, 0.680)


def cifar10_l2_36_fast_ibp() -> Recipe:
    return _at(L2(eps=36 / 255, clip=None), cifar10_linf_1_fast_ibp(), "cifar10_l2_36_fast_ibp", 0.844, 0.849)


def cifar10_l2_72_pgd() -> Recipe:
    return _at(L2(eps=72 / 255), cifar10_linf_1_pgd(), "cifar10_l2_72_pgd", 0.172, 0.386)


def cifar10_l2_72_coap() -> Recipe:
    return _at(L2(eps=72 / 255, clip=None), cifar10_linf_1_coap(), "cifar10_l2_72_coap", 0.574, 0.630)


def cifar10_l2_72_crown_ibp() -> Recipe:
    return _at(L2(eps=72 / 255, clip=None), cifar10_linf_1_crown_ibp(), "cifar10_l2_72_crown_ibp", 0.900, 0.900)


def cifar10_l2_72_ibp() -> Recipe:
    return _at(L2(eps=72 / 255, clip=None), cifar10_linf_1_ibp(), "cifar10_l2_72_ibp", 0.740, 0.772)


def cifar10_l2_72_fast_ibp() -> Recipe:
    return _at(L2(eps=72 / 255, clip=None), cifar10_linf_1_fast_ibp(), "cifar10_l2_72_fast_ibp", 0.900, 0.900)


def tinyimagenet_linf_1_pgd() -> Recipe:
    return replace(
        mnist_linf_01_pgd(),
        name="tinyimagenet_linf_1_pgd",
        dataset=TinyImageNet(augmentation=CROPPED),
        network=WideResNet(),
        threat=Linf(eps=1 / 255),
        optimizer=SGD(lr=0.1, milestones=(100, 150), decay=0.1, weight_decay=5e-4),
        epochs=200,
        batch_size=512,
        published=None,
    )


def tinyimagenet_linf_1_crown_ibp() -> Recipe:
    return replace(
        tinyimagenet_linf_1_pgd(),
        name="tinyimagenet_linf_1_crown_ibp",
        method=CrownIBP(),
        ramp=Smooth(start=100, end=500),
        schedules=_mixed(Smooth(start=100, end=500)),
        optimizer=Adam(lr=5e-4, clip_norm=8.0),
        epochs=600,
        batch_size=128,
    )


def tinyimagenet_linf_1_ibp() -> Recipe:
    return replace(tinyimagenet_linf_1_crown_ibp(), name="tinyimagenet_linf_1_ibp", method=IBP(), schedules=())


def tinyimagenet_linf_1_fast_ibp() -> Recipe:
    return replace(
        tinyimagenet_linf_1_pgd(),
        name="tinyimagenet_linf_1_fast_ibp",
        method=IBP(),
        ramp=Smooth(start=1, end=21),
        shi=0.2,
        initialization="shi",
        optimizer=Adam(lr=5e-4, milestones=(60, 70), decay=0.2, clip_norm=10.0),
        epochs=80,
        batch_size=128,
    )


def tinyimagenet_l2_5_pgd() -> Recipe:
    return replace(tinyimagenet_linf_1_pgd(), name="tinyimagenet_l2_5_pgd", threat=L2(eps=5 / 255))


def tinyimagenet_l2_5_crown_ibp() -> Recipe:
    threat = L2(eps=5 / 255, clip=None)
    return replace(tinyimagenet_linf_1_crown_ibp(), name="tinyimagenet_l2_5_crown_ibp", threat=threat)


def tinyimagenet_l2_5_ibp() -> Recipe:
    return replace(tinyimagenet_linf_1_ibp(), name="tinyimagenet_l2_5_ibp", threat=L2(eps=5 / 255, clip=None))


def tinyimagenet_l2_5_fast_ibp() -> Recipe:
    threat = L2(eps=5 / 255, clip=None)
    return replace(tinyimagenet_linf_1_fast_ibp(), name="tinyimagenet_l2_5_fast_ibp", threat=threat)


def mnist_segments_line_search() -> Recipe:
    return replace(
        mnist_linf_01_pgd(),
        name="mnist_segments_line_search",
        threat=RandomSegments(eps=20.0, count=10),
        method=LineSearchTraining(attack=LineSearch()),
        optimizer=Adam(lr=1e-3, milestones=(10,), decay=0.1, clip_norm=None),
        epochs=20,
        batch_size=64,
        source=f"{PAPER}, App. A.2",
        published=None,
    )


def mnist_segments_coap() -> Recipe:
    return replace(
        mnist_segments_line_search(),
        name="mnist_segments_coap",
        method=COAP(),
        ramp=Linear(start=0, end=3),
        optimizer=Adam(lr=1e-3, milestones=(13,), decay=0.5, clip_norm=None),
        accumulate=16,  # each of the 4 samples at a time takes 2 GB on MNIST, 4 GB on CIFAR-10
    )


def cifar10_segments_line_search() -> Recipe:
    setting, threat = mnist_segments_line_search(), RandomSegments(eps=2.5, count=10)
    return replace(setting, name="cifar10_segments_line_search", dataset=CIFAR10(augmentation=CROPS), threat=threat)


def cifar10_segments_coap() -> Recipe:
    setting, threat = mnist_segments_coap(), RandomSegments(eps=2.5, count=10)
    return replace(setting, name="cifar10_segments_coap", dataset=CIFAR10(augmentation=CROPS), threat=threat)
