"""The figures of "How robust accuracy suffers from certified training with convex relaxations" (De Bartolomeis et al.
2023): certified against adversarial training, on concentric spheres (n = 500, d = 10, 5 seeds) and on images.

The paper does not give the radius of the inner sphere. It is 10 here; `inner-radius` shows its effect on Fig. 3a, and
`inner-radius-segments` its effect on Fig. 2a. The sets of segments are random and nested, and differ between seeds. In
Fig. 6b and 7b eps is 1. Figure 1 and Table 1 show networks of Tables 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ctbench.datasets import Spheres
from ctbench.experiments import synthetic
from ctbench.experiments.base import Experiment, Figure
from ctbench.experiments.budgets import keys
from ctbench.experiments.claims import All, Less, Lowest
from ctbench.experiments.images import AT, CERTIFIED, at_budgets, gap, on_segments, unstable
from ctbench.experiments.network_figures import NetworkFigure
from ctbench.experiments.quantities import Each, OnlyBest, Published, RobustErrors
from ctbench.experiments.synthetic import EPS, ERRORS, IN_BALLS, ON_SEGMENTS
from ctbench.methods import Method
from ctbench.recipes.robust_accuracy import PAPER
from ctbench.regions import RandomSegments, Threat, threat
from ctbench.report import Panel, Plot
from ctbench.report.drawings import Bars

TITLE = "How robust accuracy suffers from certified training with convex relaxations"
SEEDS = 5
SPHERES = Spheres(dimension=10, samples=500, test_samples=10_000, inner_radius=10.0, margin=20.0)
COUNTS = (1, 2, 4, 6, 8, 10)
RADII = {"l2": (1, 2, 3, 4, 5, 6, 7, 8), "linf": (0.5, 1, 1.5, 2, 2.5, 3)}
INVERSE_MARGINS = (0.04, 0.05, 0.06, 0.07, 0.08, 0.09)
INNER_RADII = (1, 5, 10, 20, 40)


def _components(eps: float) -> Experiment:
    """Segments along k directions."""
    return synthetic.experiment(
        f"segments_{eps:g}",
        ON_SEGMENTS,
        COUNTS,
        lambda count, seed: (SPHERES, RandomSegments(eps=eps, count=int(count), seed=seed)),
        seeds=SEEDS,
    )


def _budget(norm: str) -> Experiment:
    """Balls of growing radius."""
    return synthetic.experiment(
        f"budget_{norm}",
        IN_BALLS,
        RADII[norm],
        lambda eps, _: (SPHERES, threat(norm, eps, clip=None)),
        seeds=SEEDS,
    )


def _margin(norm: str, eps: float) -> Experiment:
    """Spheres with a shrinking margin."""
    return synthetic.experiment(
        f"margin_{norm}_{eps:g}",
        IN_BALLS,
        INVERSE_MARGINS,
        lambda inverse, _: (replace(SPHERES, margin=1 / inverse), threat(norm, eps, clip=None)),
        seeds=SEEDS,
    )


def _inner_radius(name: str, methods: Mapping[str, Method], threat_of: Callable[[int], Threat]) -> Experiment:
    """Spheres of other sizes; `threat_of` gives the threat model of a seed."""
    return synthetic.experiment(
        name,
        methods,
        INNER_RADII,
        lambda radius, seed: (replace(SPHERES, inner_radius=radius), threat_of(seed)),
        seeds=SEEDS,
    )


UNSTABLE = (
    Panel(quantity="unstable_sum", label="unstable neurons, summed over epochs", percent=False),
    Panel(quantity="unstable", label="unstable neurons after training (%)"),
)
K, GAMMA = "number of components k", "inverse margin"
SEGMENTS_5, SEGMENTS_3, L2, LINF = _components(5.0), _components(3.0), _budget("l2"), _budget("linf")
MARGIN_4, MARGIN_5, MARGIN_LINF = _margin("l2", 4.0), _margin("l2", 5.0), _margin("linf", 1.0)
RADIUS_L2 = _inner_radius("inner_radius", IN_BALLS, lambda _: threat("l2", 5.0, clip=None))
RADIUS_SEGMENTS = _inner_radius(
    "inner_radius_segments", ON_SEGMENTS, lambda seed: RandomSegments(eps=5.0, count=10, seed=seed)
)
GAP = "the standard and the robust error of COAP exceed those of adversarial training, increasingly with"
MORE = "the number of unstable neurons in COAP's training grows with"


def _sensitivity(number: str, experiment: Experiment, title: str) -> Figure:
    """A figure that shows the effect of the radius that the paper does not give."""
    return Figure(
        number=number,
        experiment=experiment,
        plot=Plot(title=title, x_label="radius of the inner sphere", panels=ERRORS),
        claim="not in the paper: its choice of the radius",
    )


def _figure(number: str, experiment: Experiment, x_label: str, panels: tuple[Panel, ...], claim: str) -> Figure:
    series = ("COAP",) if panels is UNSTABLE else ()
    return Figure(
        number=number,
        experiment=experiment,
        plot=Plot(title=f"Fig. {number}", x_label=x_label, panels=panels, series=series),
        claim=claim,
    )


MNIST_L2, CIFAR_L2 = keys("mnist", "l2"), keys("cifar10", "l2")
HERE = {"by": "here"}
BARS = Bars(group="method", values=("standard error", "robust error"))
RELAXED = {"method": CERTIFIED}
WORSE = "certified training has a larger standard and robust error than adversarial training"


def _table(number: str, dataset: str, claim: str, test: All) -> NetworkFigure:
    """All methods at all radii, and what the paper has there."""
    return NetworkFigure(
        number=number,
        networks=at_budgets(keys(dataset, "linf"), keys(dataset, "l2")),
        table=Published(Each(RobustErrors()), (PAPER,)),
        claim=claim,
        test=test,
    )


FIGURES = (
    _figure("2a", SEGMENTS_5, K, ERRORS, f"{GAP} the alignment of the perturbations, here k"),
    _figure("3a", L2, EPS, ERRORS, f"{GAP} eps"),
    _figure("4a", MARGIN_4, GAMMA, ERRORS, f"{GAP} the inverse margin"),
    _figure("5b", SEGMENTS_3, K, UNSTABLE, f"{MORE} k"),
    _figure("5d", L2, EPS, UNSTABLE, f"{MORE} eps"),
    _figure("5f", MARGIN_5, GAMMA, UNSTABLE, f"{MORE} the inverse margin"),
    _figure("6a", LINF, EPS, ERRORS, f"{GAP} eps, also in l-infinity balls"),
    _figure("6b", MARGIN_LINF, GAMMA, ERRORS, f"{GAP} the inverse margin, also in l-infinity balls"),
    _figure("7a", LINF, EPS, UNSTABLE, f"{MORE} eps, also in l-infinity balls"),
    _figure("7b", MARGIN_LINF, GAMMA, UNSTABLE, f"{MORE} the inverse margin, also in l-infinity balls"),
    _sensitivity("inner-radius", RADIUS_L2, "Fig. 3a at other radii (eps = 5)"),
    _sensitivity("inner-radius-segments", RADIUS_SEGMENTS, "Fig. 2a at other radii (k = 10)"),
    NetworkFigure(
        number="1",
        networks=at_budgets(["cifar10-linf-1/255", "cifar10-l2-36/255"]),
        table=OnlyBest(Each(RobustErrors()), CERTIFIED, "robust error"),
        drawing=BARS,
        claim=f"even the best {WORSE}",
        test=All(*(Less(error, AT, RELAXED) for error in BARS.values)),
    ),
    gap("2b", on_segments("cifar10", "AT", "COAP"), "k", f"{GAP} the alignment of the perturbations, here k"),
    gap("3b", at_budgets(CIFAR_L2, of=("AT", "COAP")), "eps", f"{GAP} eps"),
    unstable("5c", on_segments("cifar10", "COAP"), "k", f"{MORE} k"),
    unstable("5e", at_budgets(CIFAR_L2, of=("COAP",)), "eps", f"{MORE} eps"),
    gap("8a", on_segments("mnist", "AT", "COAP"), "k", f"{GAP} the alignment of the perturbations, here k"),
    gap("8b", at_budgets(MNIST_L2, of=("AT", "COAP")), "eps", f"{GAP} eps"),
    unstable("9a", on_segments("mnist", "COAP"), "k", f"{MORE} k"),
    unstable("9b", at_budgets(MNIST_L2, of=("COAP",)), "eps", f"{MORE} eps"),
    NetworkFigure(
        number="table-1",
        networks=at_budgets(
            ["mnist-linf-0.1", "mnist-l2-0.75"],
            ["cifar10-linf-2/255", "cifar10-l2-36/255"],
            ["tinyimagenet-linf-1/255", "tinyimagenet-l2-5/255"],
        ),
        table=Each(RobustErrors()),
        drawing=BARS,
        claim=f"{WORSE}, except that the robust error of some is smaller on MNIST in l-infinity balls",
        test=All(
            Less("standard error", AT, RELAXED),
            Less("robust error", AT, RELAXED, where={"norm": "l2"}),
            Less("robust error", AT, RELAXED, where={"norm": "linf", "data": ("cifar10", "tinyimagenet", "digits")}),
        ),
    ),
    _table(
        "table-4",
        "mnist",
        "adversarial training has the smallest standard error and, in l2 balls, the smallest robust error; in "
        "l-infinity balls that is FAST-IBP's",
        All(
            Lowest("standard error", "AT", where=HERE),
            Lowest("robust error", "AT", where={**HERE, "norm": "l2"}),
            Lowest("robust error", "FAST-IBP", where={**HERE, "norm": "linf"}),
        ),
    ),
    _table(
        "table-5",
        "cifar10",
        "adversarial training has the smallest standard and robust error, except the robust error at linf 8/255",
        All(
            Lowest("standard error", "AT", where=HERE),
            Lowest("robust error", "AT", where=HERE, but={"data": "cifar10", "norm": "linf", "eps": 8 / 255}),
        ),
    ),
)
