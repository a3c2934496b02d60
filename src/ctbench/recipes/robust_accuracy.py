"""Recipes for the images in De Bartolomeis et al. 2023, "How robust accuracy suffers from certified training with
convex relaxations" (App. A.1 and A.2). "Certified defences can hurt generalisation" (App. D.3) trains in the same way.

- MNIST and CIFAR-10: AT (method "pgd"), COAP, CROWN-IBP, IBP and FAST-IBP at every radius of Tables 4 and 5. The errors
  in these tables become the published accuracies; the adversarial accuracy is that under AA+.
- TinyImageNet: all methods except COAP, at the two radii of Table 1, which is a figure without numbers.
- Segments: AT and COAP (Fig. 2b and 8a). The figures vary the number of segments, `threat.count`; here it is 10.

Radii in names are in units of 1/255, except on MNIST.

l2 balls are cut with the data range for AT alone, like in AutoAttack. The other methods use the whole ball: random
projections do not support a cut ball, and the libraries that the authors trained with do not cut it.

Settings that the papers do not state are those of the code that they name:

- COAP on CIFAR-10 (Wong et al. 2018): momentum 0.9, weight decay 5e-4, gradients clipped at 1.
- CROWN-IBP and IBP (auto_LiRPA): loss fusion, no clean loss, gradients clipped at 8, and a constant learning rate on
  TinyImageNet.
- FAST-IBP (Shi et al. 2021), which is IBP with their initialisation and regulariser: the weight of the regulariser is
  0.5, on TinyImageNet 0.2; the radius grows over 20, 80 and 20 epochs, after one epoch at 0 except on MNIST.

Our choice: AT with SGD has the momentum and weight decay of COAP; crops by up to 4 pixels; on segments, COAP has as
many epochs as AT, and AT searches on grids.

Different here: COAP's radius grows from 0, not from 0.01 or 0.001; and the radius of CROWN-IBP and IBP grows like that
of FAST-IBP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ctbench.attacks import APGD, LineSearch
from ctbench.datasets import CIFAR10, MNIST, Augmentation, TinyImageNet
from ctbench.datasets.tinyimagenet import CROPPED
from ctbench.methods.coap import COAP
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.pgd import PGD
from ctbench.networks import Architecture, ConvLarge, ResNet, WideResNet
from ctbench.recipes.tables import cells
from ctbench.regions import L2, Linf, RandomSegments, Threat
from ctbench.results import Published
from ctbench.training import SGD, Adam, ConstantRamp, LinearRamp, Ramp, Recipe, Schedule, SmoothRamp

PAPER = "De Bartolomeis et al. 2023"
CROPS = CIFAR10(augmentation=Augmentation(flip=True, crop_padding=4))

# robust and standard error
TABLE_4 = """
            AT           COAP         CROWN-IBP    IBP          FAST-IBP
linf-0.1    0.021 0.008  0.026 0.010  0.024 0.010  0.026 0.010  0.017 0.009
linf-0.2    0.045 0.008  0.066 0.026  0.050 0.014  0.060 0.014  0.032 0.010
linf-0.3    0.095 0.008  0.224 0.110  0.075 0.017  0.091 0.021  0.058 0.015
linf-0.4    0.321 0.008  0.806 0.737  0.120 0.025  0.147 0.033  0.104 0.024
l2-0.5      0.020 0.006  0.040 0.014  0.059 0.027  0.068 0.032  0.044 0.022
l2-0.75     0.035 0.006  0.100 0.030  0.125 0.060  0.145 0.070  0.124 0.053
l2-1        0.048 0.006  0.193 0.049  0.355 0.192  0.539 0.432  0.361 0.175
l2-1.25     0.092 0.005  0.302 0.074  0.760 0.696  0.806 0.794  0.724 0.652
"""
TABLE_5 = """
            AT           COAP         CROWN-IBP    IBP          FAST-IBP
linf-1/255  0.296 0.150  0.372 0.309  0.425 0.331  0.459 0.356  0.384 0.290
linf-2/255  0.378 0.166  0.427 0.336  0.498 0.363  0.526 0.415  0.476 0.357
linf-4/255  0.506 0.193  0.609 0.502  0.640 0.548  0.614 0.487  0.585 0.449
linf-8/255  0.698 0.239  0.775 0.729  0.673 0.539  0.708 0.606  0.675 0.546
l2-9/255    0.217 0.151  0.233 0.219  0.521 0.491  0.457 0.424  0.661 0.647
l2-18/255   0.246 0.151  0.316 0.287  0.721 0.690  0.566 0.515  0.763 0.753
l2-36/255   0.298 0.152  0.447 0.399  0.780 0.740  0.680 0.622  0.849 0.844
l2-72/255   0.386 0.172  0.630 0.574  0.900 0.900  0.772 0.740  0.900 0.900
"""
TABLE_1 = """
            AT           CROWN-IBP    IBP          FAST-IBP
linf-1/255
l2-5/255
"""
NAMES = {"AT": "pgd", "COAP": "coap", "CROWN-IBP": "crown_ibp", "IBP": "ibp", "FAST-IBP": "fast_ibp"}


def _mnist() -> dict[str, Recipe]:
    """The settings of App. A.1, by column."""
    at = Recipe(
        dataset=MNIST(),
        normalize=False,
        network=ConvLarge(),
        threat=Linf(eps=0.1),
        method=PGD(attack=APGD(steps=10)),
        ramp=ConstantRamp(),
        optimizer=Adam(lr=1e-3, milestones=(40, 80), decay=0.1, clip_norm=None),
        epochs=100,
        batch_size=128,
        source=f"{PAPER}, App. A.1",
    )
    coap = replace(
        at,
        method=COAP(projections=50),
        ramp=LinearRamp(start=0, end=20),
        optimizer=Adam(lr=1e-3, milestones=(30, 40, 50), decay=0.5, clip_norm=None),
        epochs=60,
        batch_size=50,
    )
    optimizer = Adam(lr=5e-4, milestones=(130, 190), decay=0.1, clip_norm=8.0)
    ibp = replace(at, method=IBP(), ramp=SmoothRamp(start=10, end=60), optimizer=optimizer, epochs=200, batch_size=256)
    fast_ibp = replace(
        _fast(at, ConvLarge(batch_norm=True), shi=0.5, ramp=SmoothRamp(start=0, end=20)),
        optimizer=Adam(lr=5e-4, milestones=(50, 60), decay=0.2, clip_norm=10.0),
        epochs=70,
        batch_size=256,
    )
    return {"AT": at, "COAP": coap, "CROWN-IBP": _crown(ibp), "IBP": ibp, "FAST-IBP": fast_ibp}


def _cifar10() -> dict[str, Recipe]:
    """The settings of App. A.1, by column."""
    at = replace(
        _mnist()["AT"],
        dataset=CROPS,
        normalize=True,
        network=ResNet(),
        optimizer=SGD(lr=0.05, milestones=(80, 120), decay=0.1, weight_decay=5e-4),
        epochs=150,
    )
    coap = replace(
        at,
        method=COAP(projections=50),
        ramp=LinearRamp(start=0, end=20),
        optimizer=SGD(lr=0.05, milestones=(30, 40, 50), decay=0.5, clip_norm=1.0, weight_decay=5e-4),
        epochs=60,
        batch_size=50,
    )
    optimizer = Adam(lr=5e-4, milestones=(1400, 1700), decay=0.1, clip_norm=8.0)
    ibp = replace(
        at, method=IBP(), ramp=SmoothRamp(start=100, end=900), optimizer=optimizer, epochs=2000, batch_size=256
    )
    fast_ibp = replace(
        _fast(at, ResNet(batch_norm=True), shi=0.5, ramp=SmoothRamp(start=1, end=81)),
        optimizer=Adam(lr=5e-4, milestones=(120, 140), decay=0.2, clip_norm=10.0),
        epochs=160,
    )
    return {"AT": at, "COAP": coap, "CROWN-IBP": _crown(ibp), "IBP": ibp, "FAST-IBP": fast_ibp}


def _tinyimagenet() -> dict[str, Recipe]:
    """The settings of App. A.1, by column; the network has batch norms for every method."""
    at = replace(
        _mnist()["AT"],
        dataset=TinyImageNet(augmentation=CROPPED),
        normalize=True,
        network=WideResNet(),
        optimizer=SGD(lr=0.1, milestones=(100, 150), decay=0.1, weight_decay=5e-4),
        epochs=200,
        batch_size=512,
    )
    optimizer = Adam(lr=5e-4, clip_norm=8.0)
    ibp = replace(
        at, method=IBP(), ramp=SmoothRamp(start=100, end=500), optimizer=optimizer, epochs=600, batch_size=128
    )
    fast_ibp = replace(
        _fast(at, WideResNet(), shi=0.2, ramp=SmoothRamp(start=1, end=21)),
        optimizer=Adam(lr=5e-4, milestones=(60, 70), decay=0.2, clip_norm=10.0),
        epochs=80,
        batch_size=128,
    )
    return {"AT": at, "CROWN-IBP": _crown(ibp), "IBP": ibp, "FAST-IBP": fast_ibp}


def _crown(ibp: Recipe) -> Recipe:
    """Return a recipe of IBP with CROWN-IBP's bounds, which turn into intervals while the radius grows."""
    to_intervals = Schedule(path="method.beta", start_value=1.0, end_value=0.0, ramp=ibp.ramp)
    return replace(ibp, method=CrownIBP(), schedules=(to_intervals,))


def _fast(at: Recipe, network: Architecture, *, shi: float, ramp: Ramp) -> Recipe:
    """Return a recipe of IBP with the initialisation and the regulariser of Shi et al."""
    return replace(at, network=network, method=IBP(), ramp=ramp, shi=shi, initialization="shi")


def _recipes(table: str, text: str, dataset: str, settings: dict[str, Recipe]) -> dict[str, Callable[[], Recipe]]:
    """Return a recipe for each cell of a table of robust and standard errors, by name."""
    entries: dict[str, Callable[[], Recipe]] = {}
    for (budget, column), errors in cells(text).items():
        norm, _, radius = budget.partition("-")
        name = f"robustacc_{dataset}_{norm}_{radius.removesuffix('/255').replace('.', '')}_{NAMES[column]}"
        threat, published = _threat(norm, radius, column), _accuracies(*errors, table=table) if errors else None
        entries[name] = partial(replace, settings[column], threat=threat, published=published)
    return entries


def _threat(norm: str, radius: str, column: str) -> Threat:
    above, _, below = radius.partition("/")
    eps = float(above) / float(below or 1)
    if norm == "linf":
        return Linf(eps=eps)
    return L2(eps=eps) if column == "AT" else L2(eps=eps, clip=None)


def _accuracies(robust: float, standard: float, *, table: str) -> Published:
    natural, adversarial = (round(100 * (1 - error), 1) for error in (standard, robust))
    return Published(natural=natural, adversarial=adversarial, source=f"{PAPER}, {table}")


RECIPES = {
    **_recipes("Table 4", TABLE_4, "mnist", _mnist()),
    **_recipes("Table 5", TABLE_5, "cifar10", _cifar10()),
    **_recipes("Table 1", TABLE_1, "tinyimagenet", _tinyimagenet()),
}


def robustacc_mnist_segments_line_search() -> Recipe:
    return replace(
        _mnist()["AT"],
        threat=RandomSegments(eps=20.0, count=10),
        method=LineSearchTraining(attack=LineSearch()),
        optimizer=Adam(lr=1e-3, milestones=(10,), decay=0.1, clip_norm=None),
        epochs=20,
        batch_size=64,
        source=f"{PAPER}, App. A.2",
    )


def robustacc_mnist_segments_coap() -> Recipe:
    return replace(
        robustacc_mnist_segments_line_search(),
        method=COAP(),
        ramp=LinearRamp(start=0, end=3),
        optimizer=Adam(lr=1e-3, milestones=(13,), decay=0.5, clip_norm=None),
        accumulate=16,  # 4 samples at a time, because each takes gigabytes (docs/benchmarks.md)
    )


def robustacc_cifar10_segments_line_search() -> Recipe:
    at = robustacc_mnist_segments_line_search()
    return replace(at, dataset=CROPS, normalize=True, threat=RandomSegments(eps=2.5, count=10))


def robustacc_cifar10_segments_coap() -> Recipe:
    coap = robustacc_mnist_segments_coap()
    return replace(coap, dataset=CROPS, normalize=True, threat=RandomSegments(eps=2.5, count=10))
