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
from itertools import product

from ctbench.attacks import APGD, LineSearch
from ctbench.datasets import CIFAR10, MNIST, Augmentation, TinyImageNet
from ctbench.datasets.tinyimagenet import CROPPED
from ctbench.methods.coap import COAP
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.pgd import PGD
from ctbench.networks import Architecture, ConvLarge, ResNet, WideResNet
from ctbench.regions import L2, Linf, RandomSegments, Threat
from ctbench.results import published_result
from ctbench.training import SGD, Adam, ConstantRamp, LinearRamp, Ramp, Recipe, Schedule, SmoothRamp

PAPER = "De Bartolomeis et al. 2023"
CROPS = CIFAR10(augmentation=Augmentation(flip=True, crop_padding=4))

BUDGETS = {
    "mnist": ("linf-0.1", "linf-0.2", "linf-0.3", "linf-0.4", "l2-0.5", "l2-0.75", "l2-1", "l2-1.25"),
    "cifar10": (
        *("linf-1/255", "linf-2/255", "linf-4/255", "linf-8/255"),
        *("l2-9/255", "l2-18/255", "l2-36/255", "l2-72/255"),
    ),
    "tinyimagenet": ("linf-1/255", "l2-5/255"),
}
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


def prefix(dataset: str, budget: str) -> str:
    """How the names of the recipes at a budget begin, e.g. "robustacc_cifar10_l2_36" at "l2-36/255"."""
    norm, _, radius = budget.partition("-")
    return f"robustacc_{dataset}_{norm}_{radius.removesuffix('/255').replace('.', '')}"


def _recipes(dataset: str, settings: dict[str, Recipe]) -> dict[str, Callable[[], Recipe]]:
    """Return a recipe for each budget and column of the tables, by name."""
    entries: dict[str, Callable[[], Recipe]] = {}
    for budget, (column, setting) in product(BUDGETS[dataset], settings.items()):
        norm, _, radius = budget.partition("-")
        name = f"{prefix(dataset, budget)}_{NAMES[column]}"
        threat = _threat(norm, radius, column)
        # Table 1, with TinyImageNet, is a figure without numbers
        table = None if dataset == "tinyimagenet" else published_result(dataset, norm, threat.eps, column, paper=PAPER)
        entries[name] = partial(replace, setting, threat=threat, published=table and table.accuracies)
    return entries


def _threat(norm: str, radius: str, column: str) -> Threat:
    above, _, below = radius.partition("/")
    eps = float(above) / float(below or 1)
    if norm == "linf":
        return Linf(eps=eps)
    return L2(eps=eps) if column == "AT" else L2(eps=eps, clip=None)


RECIPES = {
    **_recipes("mnist", _mnist()),
    **_recipes("cifar10", _cifar10()),
    **_recipes("tinyimagenet", _tinyimagenet()),
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
