r"""How good is a training method's own estimate of robustness? Its accuracy on test inputs.

    own accuracy = share of the inputs that the method calls right over their region

For TAPS: all adversarial points in the latent box, one for each wrong class, are classified right. Mao et al. 2023,
"Connecting certified and adversarial training", Figures 7 to 9 and Table 9. Each method has such an estimate
(`RobustLoss.correct`): of IBP it is a proof, of SABR one for the small box, of PGD what the attack left.

`ctbench analyse` shows the correlation with certified and adversarial accuracy over the runs that have been certified,
and the differences (Table 9). The matrix of Figures 8 and 9, other splits at test time than in training:

    ctbench analyse RUN... --what own-accuracy --set own-accuracy.method=taps \
        --set own-accuracy.method.classifier_relus=2

    own_accuracy(model, TAPS(classifier_relus=1), x, y, eps=0.1).mean("own accuracy")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, measurement
from ctbench.methods.base import Method
from ctbench.results import Layout, Measurement, Measurements


@dataclass(frozen=True, kw_only=True)
class OwnAccuracy(Analysis):
    """The share of inputs that a training method estimates to be right over their whole region.

    Args:
        method: the training method; None is that of the run, for `ctbench analyse`.

    Raises:
        ValueError: when called, if there is no method.
    """

    name: ClassVar[str] = "own-accuracy"
    layout: ClassVar[Layout] = Layout(kind="scatter", quantities=("own accuracy",), label="own accuracy")
    method: Method | None = None

    def measure(self, part: Part) -> list[Measurement]:
        if not isinstance(self.method, Method):
            raise ValueError(f"method is {self.method!r}: give a training method, e.g. OwnAccuracy(method=TAPS())")
        correct = self.method(part.net, part.batch(part.net)).correct
        right = part.net(part.x).argmax(1) == part.y
        return [measurement({"own accuracy": correct.to(torch.float64), "natural accuracy": right.to(torch.float64)})]


def own_accuracy(model: nn.Module, method: Method, x: Tensor, y: Tensor, **where: Unpack[Where]) -> Measurements:
    """The quantities "own accuracy" and "natural accuracy" of inputs [N, *shape] with labels [N].

    `where` as for `Analysis`. Raises ValueError as `OwnAccuracy` does.
    """
    return OwnAccuracy(method=method)(model, x, y, **where)
