"""The figures of "Certified defences can hurt generalisation" (De Bartolomeis et al. 2022): standard, adversarial and
certified training on separable points (d = 1000, gamma = 6) and concentric spheres (d = 100, radii 1 and 12), n = 50,
15 seeds; and on images in l2 balls.

The paper does not give the standard deviation of the noise, which is 1 here (`sigma` shows its effect), or the radius
of Fig. 5, which is 3 here. In l2 balls there are 10^3 test samples instead of 10^5, because Auto-PGD is slow in 100 or
1000 dimensions. Over the epochs of Fig. 5 there are 500, attacked by PGD. SGD along the signal (Fig. 6) has no momentum
here, because the paper mentions no momentum.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import Separable, Spheres
from ctbench.datasets.synthetic import Synthetic
from ctbench.experiments import synthetic
from ctbench.experiments.base import Experiment, Figure, Measures
from ctbench.experiments.budgets import keys
from ctbench.experiments.claims import All, Less, Widens
from ctbench.experiments.images import AT, at_budgets, curves
from ctbench.experiments.network_figures import NetworkFigure
from ctbench.experiments.quantities import Each, RobustErrors
from ctbench.experiments.synthetic import EPS, ERRORS, IN_BALLS, ON_SEGMENTS, STANDARD
from ctbench.regions import FirstCoordinate, threat
from ctbench.report import Panel, Plot

TITLE = "Certified defences can hurt generalisation"
SEEDS = 15
SEPARABLE = Separable(dimension=1000, samples=50, test_samples=1000, margin=6.0, sigma=1.0)
SPHERES = Spheres(dimension=100, samples=50, test_samples=1000, inner_radius=1.0, margin=11.0)
RADII = (1, 2, 3, 4, 5)
SIGMAS = (0.25, 0.5, 1, 2)
FOLLOWED_AT = 3.0


def _budget(data: Synthetic) -> Experiment:
    """L2 balls of growing radius."""
    return synthetic.experiment(
        f"budget_{data.name}",
        {**STANDARD, **IN_BALLS},
        RADII,
        lambda eps, _: (data, threat("l2", eps, clip=None)),
        seeds=SEEDS,
    )


def _course() -> Experiment:
    """One radius, over the epochs."""
    return synthetic.experiment(
        "course",
        IN_BALLS,
        [FOLLOWED_AT],
        lambda eps, _: (SPHERES, threat("l2", eps, clip=None)),
        seeds=SEEDS,
        measures=Measures(followed=500),
    )


def _signal(samples: int) -> Experiment:
    """Perturbations along the signal."""
    data = replace(SEPARABLE, samples=samples, test_samples=100_000)
    return synthetic.experiment(
        f"signal_{samples}",
        {**STANDARD, **ON_SEGMENTS},
        RADII,
        lambda eps, _: (data, FirstCoordinate(eps=eps)),
        seeds=SEEDS,
        epochs=100,
        momentum=0.0,
    )


def _sigma() -> Experiment:
    """Noise with other standard deviations."""
    return synthetic.experiment(
        "sigma",
        {**STANDARD, **ON_SEGMENTS},
        SIGMAS,
        lambda sigma, _: (replace(SEPARABLE, test_samples=10_000, sigma=sigma), FirstCoordinate(eps=5.0)),
        seeds=SEEDS,
        epochs=100,
        momentum=0.0,
    )


def _plot(number: str, x_label: str, *panels: Panel, series: tuple[str, ...] = (), epochs: bool = False) -> Plot:
    return Plot(
        title=f"Fig. {number}",
        x_label=x_label,
        panels=panels,
        fitting=True,
        series=series,
        spread="standard deviation",
        epochs=epochs,
    )


STANDARD_ERROR, ROBUST_ERROR = ERRORS
UNSTABLE = Panel(quantity="unstable", label="relaxed neurons (%)")
COSINE = Panel(quantity="cosine", label="cosine to the signal", percent=False)
LINEAR, ROUND, COURSE, SMALL, LARGE = _budget(SEPARABLE), _budget(SPHERES), _course(), _signal(50), _signal(10_000)
APART = (
    "COAP's standard and robust errors exceed those of adversarial training once perturbations align with the signal"
)
L2 = {dataset: keys(dataset, "l2", more=True) for dataset in ("mnist", "cifar10", "tinyimagenet")}
CERTIFIED = {"method": ("COAP", "CROWN-IBP")}
WORSE = "COAP's error grows above that of adversarial training as eps grows"


def _images(number: str, datasets: tuple[str, ...], values: tuple[str, ...], claim: str, test: All) -> NetworkFigure:
    """Quantities of images over the radius of l2 balls."""
    return NetworkFigure(
        number=number,
        networks=at_budgets(*(L2[dataset] for dataset in datasets), of=("AT", *CERTIFIED["method"])),
        table=Each(RobustErrors()),
        drawing=curves("eps", values, panel="data"),
        claim=claim,
        test=test,
    )


def _larger(*quantities: str) -> All:
    """Each quantity is larger for certified training than for adversarial training, on each data set."""
    return All(*(Less(name, AT, CERTIFIED, by=("data",)) for name in quantities))


FIGURES = (
    _images(
        "1",
        ("cifar10",),
        ("standard error", "robust error", "discrepancy"),
        "certified defences are less accurate, less robust and less fair than adversarial training",
        _larger("standard error", "robust error", "discrepancy"),
    ),
    _images(
        "2",
        tuple(L2),
        ("standard error", "robust error"),
        "the standard and robust errors of certified defences exceed those of adversarial training, more with eps",
        All(*(Widens(error, "eps", CERTIFIED, AT, by=("data",)) for error in ("standard error", "robust error"))),
    ),
    _images(
        "3",
        tuple(L2),
        ("discrepancy", "robust discrepancy"),
        "certified defences are less fair than adversarial training, in standard and in robust accuracy",
        _larger("discrepancy", "robust discrepancy"),
    ),
    Figure(
        number="4a",
        experiment=LINEAR,
        plot=_plot("4a", EPS, ROBUST_ERROR),
        claim="on separable points COAP's robust error is not far from that of the others",
    ),
    Figure(
        number="4b",
        experiment=ROUND,
        plot=_plot("4b", EPS, ROBUST_ERROR),
        claim="on spheres COAP's robust error is much higher than the others', more so with eps",
    ),
    Figure(
        number="4c-separable",
        experiment=LINEAR,
        plot=_plot("4c, separable points", EPS, UNSTABLE, series=("COAP",)),
        claim="COAP relaxes few neurons on separable points",
    ),
    Figure(
        number="4c-spheres",
        experiment=ROUND,
        plot=_plot("4c, spheres", EPS, UNSTABLE, series=("COAP",)),
        claim="COAP relaxes more neurons on spheres than on separable points, more so with eps",
    ),
    Figure(number="5b", experiment=COURSE, plot=_plot("5b", "epoch", COSINE, epochs=True), claim=APART),
    Figure(
        number="5cd",
        experiment=COURSE,
        plot=_plot("5c-d", "epoch", STANDARD_ERROR, ROBUST_ERROR, epochs=True),
        claim=APART,
    ),
    Figure(number="6ab", experiment=SMALL, plot=_plot("6a-b (n = 50)", EPS, *ERRORS), claim=WORSE),
    Figure(
        number="6cd", experiment=LARGE, plot=_plot("6c-d (n = 10,000)", EPS, *ERRORS), claim=f"{WORSE}, and n is large"
    ),
    Figure(
        number="sigma",
        experiment=_sigma(),
        plot=_plot("6 at other sigma (n = 50, eps = 5)", "sigma", *ERRORS),
        claim="not in the paper: its choice of sigma",
    ),
)
