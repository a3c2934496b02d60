"""The figures of "Connecting certified and adversarial training" (Mao et al. 2023), which proposes TAPS and STAPS.

w = infinity of Table 7 is the gradient of L_TAPS alone, weighted by L_IBP. Figure 1 is in two parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ctbench.analyses import ProductGradients
from ctbench.experiments.claims import All, Below, BestOnDiagonal, Correlates, Less, PeaksInside, Rises, Under, Where
from ctbench.experiments.network_figures import Choice, NetworkFigure, called, methods, splits, varied
from ctbench.experiments.networks import NetworkOf
from ctbench.experiments.quantities import (
    Accuracies,
    Analysed,
    Each,
    Errors,
    Estimated,
    OwnAccuracies,
    Published,
    Spread,
)
from ctbench.experiments.scales import SETTINGS, NetworkScale
from ctbench.report.drawings import Curves, HeatMap, Histogram, Scatter

TITLE = "Connecting certified and adversarial training"
MNIST, CIFAR = ("mnist_01", "mnist_03"), ("cifar10_2", "cifar10_8")
IBP, SABR, TAPS, HERE = called("ibp"), called("sabr"), called("taps"), {"by": "here"}
WEIGHTS = (0, 1, 5, 10, 15, 20)
INFINITE = ("method.scale=2", "method.ibp_gradient=false")  # w = infinity
ALONE = "method.product=false"
SMALL = {"radius": "small"}


def _exact(*of: str) -> Choice:
    """Small networks, for exact programs."""
    return lambda scale: [NetworkOf("mnist_01", method, changes=scale.shallow) for method in of]


def _weights(setting: str, values: Sequence[float]) -> Choice:
    """IBP, TAPS with the weights w of its gradient and with w = infinity, and TAPS without L_IBP."""

    def choice(scale: NetworkScale) -> list[NetworkOf]:
        weighted = varied(setting, method="taps_original", field="method.scale", name="w", values=values)(scale)
        infinite = NetworkOf(setting, "taps_original", changes=(*scale.sweep, *INFINITE), about={"w": math.inf})
        ibp = NetworkOf(setting, "ibp", changes=scale.sweep, about={"w": "IBP"})
        alone = NetworkOf(setting, "taps_original", changes=(*scale.sweep, ALONE), about={"w": "TAPS alone"})
        return [ibp, *weighted, infinite, alone]

    return choice


def _inner_splits(scale: NetworkScale) -> list[NetworkOf]:
    """TAPS and STAPS with one and two ReLUs in the classifier."""
    fields = {"taps_original": "method", "staps_original": "method.inner"}
    return [
        NetworkOf(
            "tinyimagenet",
            method,
            changes=(*scale.sweep, *scale.deep, f"{path}.classifier_relus={split}"),
            about={"split": split},
        )
        for method, path in fields.items()
        for split in (1, 2)
    ]


def _seeds(scale: NetworkScale) -> list[NetworkOf]:
    return [
        NetworkOf(setting, "taps_original", changes=(*scale.sweep, f"seed={seed}"), about={"seed": seed})
        for setting in scale.distinct(*MNIST)
        for seed in range(scale.seeds)
    ]


def _times(number: str, method: str) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=methods(*SETTINGS, of=("ibp", f"{method}_original")),
        table=Each(Accuracies()),
        claim=f"{method.upper()} takes longer to train than IBP",
        test=Less("training s", IBP, called(method)),
    )


def _split_table(number: str, settings: tuple[str, ...]) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=splits(*settings),
        table=Each(Accuracies()),
        drawing=Curves(x="split", values=("natural", "adversarial", "certified", "deeppoly", "box")),
        claim="with more ReLUs in the classifier, natural accuracy rises, and the share that boxes certify falls",
        test=All(Rises("natural", "split"), Rises("box", "split", falls=True)),
    )


def _own_matrix(number: str, settings: tuple[str, ...], where: Where | None = None) -> NetworkFigure:
    at = " at the small radius" if where else ""
    return NetworkFigure(
        number=number,
        networks=splits(*settings),
        table=Each(OwnAccuracies(splits=True)),
        drawing=HeatMap(down=("test split",), across="split", value="own"),
        claim=f"for each split at test time, the network that was trained with it has the highest TAPS accuracy{at}",
        test=BestOnDiagonal("own", "split", "test split", where=where),
    )


PRECISE = All(
    *(
        Less("|error|", {"estimate": "taps"}, {"estimate": other}, by=("setting", "method"))
        for other in ("interval", "sabr", "pgd")
    )
)

FIGURES = (
    NetworkFigure(
        number="table-1",
        networks=methods(*SETTINGS, of=("ibp", "sabr_original", "taps_original", "staps_original")),
        table=Published(Each(Accuracies())),
        drawing=Scatter(x="natural", y="certified"),
        claim="TAPS is better than IBP in natural and certified accuracy",
        test=All(*(Less(kind, IBP, TAPS, where=HERE) for kind in ("natural", "certified"))),
    ),
    _times("table-4", "taps"),
    _times("table-6", "staps"),
    NetworkFigure(
        number="table-7",
        networks=_weights("mnist_03", WEIGHTS),
        table=Each(Accuracies()),
        claim="with the weight w of TAPS's gradient, natural accuracy rises, and certified accuracy peaks inside",
        test=All(Rises("natural", "w"), PeaksInside("certified", "w")),
    ),
    NetworkFigure(
        number="table-8",
        networks=splits(
            "mnist_03",
            changes={"multi": (), "single": ("method.multi_estimator=false",)},
        ),
        table=Each(Accuracies()),
        claim="an attack for each class (multi) gives a higher certified accuracy than one for all (single)",
        test=Less("certified", {"variant": "single"}, {"variant": "multi"}),
    ),
    NetworkFigure(
        number="table-9",
        networks=lambda scale: [*splits(*MNIST, *CIFAR)(scale), *_weights("mnist_03", WEIGHTS)(scale)[1:]],
        table=Estimated(Each(Accuracies(), OwnAccuracies()), "own", ("certified", "adversarial")),
        drawing=Scatter(panel=None, x="own", y="certified", label="split"),
        claim="TAPS accuracy is highly correlated with certified and with adversarial accuracy",
        test=All(*(Correlates("own", kind, least=0.9, by=("data",)) for kind in ("certified", "adversarial"))),
    ),
    _split_table("table-10", MNIST),
    _split_table("table-11", CIFAR),
    NetworkFigure(
        number="table-12",
        networks=_weights("tinyimagenet", (1, 5, 10, 20)),
        table=Each(Accuracies()),
        claim="TAPS's natural and certified accuracy exceed those of IBP",
        test=All(*(Less(kind, {"w": "IBP"}, TAPS) for kind in ("natural", "certified"))),
    ),
    NetworkFigure(
        number="table-13",
        networks=_inner_splits,
        table=Each(Accuracies()),
        claim="STAPS has a higher certified accuracy than TAPS, with one and with two ReLUs in the classifier",
        test=Less("certified", TAPS, called("staps"), by=("setting", "split")),
    ),
    NetworkFigure(
        number="table-14",
        networks=_seeds,
        table=Spread(Each(Accuracies())),
        claim="accuracies differ little from seed to seed, by less than a point",
        test=All(*(Under(f"{kind}, deviation", 1.0) for kind in ("natural", "adversarial", "certified"))),
    ),
    NetworkFigure(
        number="figure-1-left",
        networks=_exact("ibp", "sabr_original", "taps_original"),
        table=Each(Errors(own=True)),
        drawing=Histogram(value="error", series=("method",)),
        claim="TAPS's estimate of the worst-case loss has the smallest error, each method on its own network",
        test=All(*(Less("|error|", TAPS, other) for other in (IBP, SABR))),
    ),
    NetworkFigure(
        number="figure-1-right",
        networks=_exact("ibp", "sabr_original", "taps_original"),
        table=Each(Accuracies()),
        drawing=Scatter(x="natural", y="certified"),
        claim="TAPS has the highest certified accuracy of small networks",
        test=All(*(Less("certified", other, TAPS) for other in (IBP, SABR))),
    ),
    _split_table("figure-5", CIFAR),
    NetworkFigure(
        number="figure-6",
        networks=_exact("ibp", "sabr_original", "taps_original"),
        table=Each(Errors()),
        drawing=Histogram(panel="method", value="error", series=("estimate",)),
        claim="TAPS's estimate of the worst-case loss is the most precise, whatever the network was trained with",
        test=PRECISE,
    ),
    NetworkFigure(
        number="figure-7",
        networks=varied(
            "mnist_01",
            method="taps_original",
            field="method.connector",
            name="connector",
            values=(0, 0.25, 0.5, 0.75, 1),
        ),
        table=Each(Accuracies(), OwnAccuracies()),
        drawing=Curves(x="connector", values=("own", "natural")),
        claim="TAPS accuracy is highest for a connector inside of [0, 1]",
        test=PeaksInside("own", "connector"),
    ),
    _own_matrix("figure-8", CIFAR, SMALL),
    _own_matrix("figure-9", MNIST),
    NetworkFigure(
        number="theorem-1",
        networks=methods(*MNIST, of=("ibp", "taps_original")),
        table=Each(Analysed(ProductGradients())),
        claim="the gradient of the product of mean losses varies less than that of the mean of products",
        test=Below("variance, product of means", "variance, mean of products", by=("setting", "method")),
    ),
)
