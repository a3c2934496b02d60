"""What the experiments on synthetic data share: methods side by side on a network of one hidden layer of 100 ReLUs.

SGD with momentum 0.95 and a learning rate chosen among 0.1, 0.01 and 0.001. The papers do not tell a batch size, but
say that each epoch makes adversarial examples and then an update: all training samples are one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from ctbench.attacks import APGD
from ctbench.datasets.synthetic import Synthetic
from ctbench.experiments.base import Measures, Scale, Trial
from ctbench.methods import Method
from ctbench.methods.coap import COAP
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import MLP
from ctbench.regions import Threat
from ctbench.training import SGD, Constant, Recipe

ALL_MEASURES = Measures()
RATES = (0.1, 0.01, 0.001)
Setting = tuple[Synthetic, Threat]

AT_BALL = PGD(attack=APGD(steps=10))
AT_SEGMENTS = LineSearchTraining()
CERTIFIED = {"COAP": COAP()}
IN_BALLS: Mapping[str, Method] = {"AT": AT_BALL, **CERTIFIED}
ON_SEGMENTS: Mapping[str, Method] = {"AT": AT_SEGMENTS, **CERTIFIED}
STANDARD: Mapping[str, Method] = {"ST": Standard()}


def trials(
    scale: Scale,
    name: str,
    methods: Mapping[str, Method],
    places: Sequence[float],
    setting: Callable[[float, int], Setting],
    *,
    epochs: int = 150,
    momentum: float = 0.95,
    measures: Measures = ALL_MEASURES,
) -> list[Trial]:
    """The trials of an experiment, seed by seed.

    Args:
        scale: how much of it.
        name: of the recipes.
        methods: by the name of their line.
        places: on the axis.
        setting: from a place and a seed to the data and the threat model.
        epochs, momentum: of the training.
        measures: what is measured.
    """

    def recipe(series: str, place: float, rate: float, seed: int) -> Recipe:
        data, threat = setting(place, seed)
        return Recipe(
            name=f"{name}_{series}_{place:g}".lower(),
            dataset=replace(data, seed=seed, test_samples=scale.test_samples or data.test_samples),
            network=MLP(hidden=(100,)),
            threat=threat,
            method=methods[series],
            ramp=Constant(),
            optimizer=SGD(lr=rate, momentum=momentum),
            epochs=scale.epochs or epochs,
            batch_size=data.samples,
            seed=seed,
        )

    return [
        Trial(series=series, x=x, candidate=rate, recipe=recipe(series, x, rate, seed), measures=measures)
        for seed, x, series, rate in product(
            range(scale.seeds), scale.places(places), methods, RATES[: scale.candidates]
        )
    ]
