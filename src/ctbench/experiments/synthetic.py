"""The common part of the experiments on synthetic data: methods on a network with one hidden layer of 100 ReLUs.

SGD with momentum 0.95 and a learning rate chosen among 0.1, 0.01 and 0.001. The papers do not give a batch size, but
say that each epoch computes adversarial examples and then makes one update: so all training samples are one batch. They
also do not give the initial weights; here they are drawn like in He et al. 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from ctbench.attacks import APGD
from ctbench.datasets.synthetic import Synthetic
from ctbench.experiments.base import Experiment, ExperimentScale, Measures, Trial
from ctbench.methods import Method
from ctbench.methods.coap import COAP
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import MLP
from ctbench.regions import Threat
from ctbench.report import Panel
from ctbench.training import SGD, ConstantRamp, Recipe

ENDS_ALONE = Measures()
RATES = (0.1, 0.01, 0.001)
Setting = Callable[[float, int], tuple[Synthetic, Threat]]  # from a value on the axis and a seed

STANDARD: Mapping[str, Method] = {"ST": Standard()}
IN_BALLS: Mapping[str, Method] = {"AT": PGD(attack=APGD(steps=10)), "COAP": COAP()}
ON_SEGMENTS: Mapping[str, Method] = {"AT": LineSearchTraining(), "COAP": COAP()}

EPS = "perturbation budget eps"
ERRORS = (
    Panel(quantity="standard_error", label="standard error (%)"),
    Panel(quantity="robust_error", label="robust error (%)"),
)


def experiment(
    name: str,
    methods: Mapping[str, Method],
    places: Sequence[float],
    setting: Setting,
    *,
    seeds: int,
    epochs: int = 150,
    momentum: float = 0.95,
    measures: Measures = ENDS_ALONE,
) -> Experiment:
    """An experiment with a trial for each seed, value on the axis, method and learning rate.

    Args:
        name: the name of the experiment, and the prefix of its recipes.
        methods: the methods by the names of their lines.
        places: the values on the axis.
        setting: from a value on the axis and a seed to the data and the threat model.
        seeds: the number of seeds in the paper.
        epochs, momentum: of the training.
        measures: the quantities to measure.
    """

    def recipe(scale: ExperimentScale, seed: int, place: float, series: str, rate: float) -> Recipe:
        data, threat = setting(place, seed)
        return Recipe(
            name=f"{name}_{series}_{place:g}".lower(),
            dataset=replace(data, seed=seed, test_samples=scale.test_samples or data.test_samples),
            network=MLP(hidden=(100,)),
            threat=threat,
            method=methods[series],
            ramp=ConstantRamp(),
            optimizer=SGD(lr=rate, momentum=momentum),
            epochs=scale.epochs or epochs,
            batch_size=data.samples,
            seed=seed,
        )

    def trials(scale: ExperimentScale) -> list[Trial]:
        return [
            Trial(series=series, x=x, candidate=rate, recipe=recipe(scale, seed, x, series, rate), measures=measures)
            for seed, x, series, rate in product(
                range(scale.seeds), scale.places(places), methods, RATES[: scale.candidates]
            )
        ]

    return Experiment(name=name, trials=trials, seeds=seeds)
