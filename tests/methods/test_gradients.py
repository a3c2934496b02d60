"""Gradients of losses against finite differences, in double precision, with attacks whose point does not depend on the
network: a random one (no steps), at a fixed share of the box that it lies in."""

import pytest
import torch

from ctbench import attacks
from ctbench.methods.arow import ARoW
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.sabr import SABR
from ctbench.methods.taps import TAPS

FIXED = attacks.PGD(steps=0)
EXACT = {"connector": 1.0, "attack": FIXED, "product": False}  # the linear connector keeps a point's share of the box

METHODS = {
    "crown-ibp fused": CrownIBP(),
    "crown-ibp": CrownIBP(fused=False, beta=0.7),
    "sabr": SABR(attack=FIXED),
    "sabr shrunk": SABR(attack=FIXED, shrink=0.6),
    "sabr crown-ibp": SABR(attack=FIXED, inner=CrownIBP()),
    "taps": TAPS(**EXACT),
    "taps single": TAPS(**EXACT, multi_estimator=False),
    "taps two": TAPS(**EXACT, classifier_relus=2),
    "taps product": TAPS(**(EXACT | {"product": True}), scale=1.0),
    "staps": SABR(attack=FIXED, inner=TAPS(**EXACT)),
    "mtl-ibp": MTLIBP(attack=FIXED),
    "cc-ibp": CCIBP(attack=FIXED),
    "exp-ibp": ExpIBP(attack=FIXED),
    "edac": EDAC(attack=FIXED),
    "mart": MART(attack=FIXED),
    "arow": ARoW(attack=FIXED),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_gradients_equal_finite_differences(setting, method):
    gradient = setting.gradient(method)
    for seed in (4, 5):
        torch.manual_seed(seed)
        direction = torch.randn_like(gradient)
        slope = (gradient * direction).sum().item()
        assert abs(slope) > 1e-3
        assert slope == pytest.approx(setting.slope(method, direction), rel=1e-5, abs=1e-7)


def test_the_gradient_of_the_certainty_is_exact(setting):
    method, parameters = EDAC(size=0.7, attack=FIXED), list(setting.model.parameters())

    def first() -> torch.Tensor:
        net, logits = setting.frozen()
        return method.prelude(net, setting.batch(logits))

    gradients = torch.autograd.grad(first(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            values.append(first().item())
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7)
