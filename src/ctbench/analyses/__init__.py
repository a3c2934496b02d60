"""Analyses: one question per file.

Those of trained networks have a common base, `Analysis`, and a function each that answers for any `torch.nn.Module`:

    fragmentation(model, x, eps=0.1).mean("sampled")
    Fragmentation(draws=100)(model, x, eps=0.1).mean("sampled")

To add one, write a file in this package, or code of your own, with a dataclass that has a `name` and `measure`.
`ctbench analyse RUN --what NAME` finds it.
"""

from ctbench.analyses.base import Analysis, NetworkOnInputs, Part, Where, analyses, analysis, measurement
from ctbench.analyses.box_growth import BoxGrowth, Centres, box_growth, centres
from ctbench.analyses.fragmentation import Fragmentation, fragmentation
from ctbench.analyses.gradient_alignment import GradientAlignment, gradient_alignment
from ctbench.analyses.loss_errors import LossErrors, loss_errors
from ctbench.analyses.loss_growth import LossGrowth, loss_growth
from ctbench.analyses.neurons import States, Utilisation, states, utilisation
from ctbench.analyses.own_accuracy import OwnAccuracy, own_accuracy
from ctbench.analyses.product_gradients import ProductGradients, product_gradients
from ctbench.analyses.tightness import Tightness, tightness

__all__ = [
    "Analysis",
    "BoxGrowth",
    "Centres",
    "Fragmentation",
    "GradientAlignment",
    "LossErrors",
    "LossGrowth",
    "NetworkOnInputs",
    "OwnAccuracy",
    "Part",
    "ProductGradients",
    "States",
    "Tightness",
    "Utilisation",
    "Where",
    "analyses",
    "analysis",
    "box_growth",
    "centres",
    "fragmentation",
    "gradient_alignment",
    "loss_errors",
    "loss_growth",
    "measurement",
    "own_accuracy",
    "product_gradients",
    "states",
    "tightness",
    "utilisation",
]
