"""No verdict rests on what rounding adds, also where later layers magnify it."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from ctbench.graph import freeze, trace
from ctbench.regions import Linf
from ctbench.results import Verdict
from ctbench.verify import FAST_STAGES, InputSplit, certify
from ctbench.verify.rounding import rounding


def magnifier(seed: int, share: float) -> tuple[nn.Module, torch.Tensor, float, Fraction]:
    """The first layer cancels almost all of its terms, and the second magnifies what is left: a network, an input, a
    radius, and the exact margin at the lower corner, -share of the values there."""
    generator = torch.Generator().manual_seed(seed)
    size = 10.0 ** torch.randint(4, 8, (1,), generator=generator).item()
    weight, center = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    weight, center, eps = (1 + weight) * size, 0.25 + center / 2, 1e-9
    first, second, last = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 2)
    with torch.no_grad():
        for layer in (first, second, last):
            layer.double()
        first.weight.fill_(weight)
        first.bias.fill_(-weight * (center - eps) + weight * eps * 0.5)
        second.weight.fill_(size)
        second.bias.fill_(0.0)
        corner = (torch.tensor(center, dtype=torch.float64) - eps).item()
        value = Fraction(size) * (Fraction(weight) * Fraction(corner) + Fraction(first.bias.item()))
        last.weight.copy_(torch.tensor([[1.0], [0.0]]))
        last.bias.copy_(torch.tensor([-float(value) * (1 + share), 0.0]))
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
    return model, torch.tensor([[center]], dtype=torch.float64), eps, value + Fraction(last.bias[0].item())


@pytest.mark.parametrize("share", [1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("seed", range(20))
def test_a_negative_margin_that_rounding_hides_is_not_certified(seed, share):
    model, x, eps, margin = magnifier(seed, share)
    if margin < 0:
        for stages in (FAST_STAGES, (InputSplit(nodes=100),)):
            found = certify(model, x, torch.tensor([0]), eps=eps, stages=stages, timeout=5.0)
            assert found[0].verdict is not Verdict.CERTIFIED


@pytest.mark.parametrize("convolutions", [False, True])
def test_errors_of_values_stay_below_it(convolutions):
    """The error of single precision, against the same with its own unit in the last place."""
    torch.manual_seed(0)
    layers = [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)]
    if convolutions:
        layers = [nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)]
    model = nn.Sequential(*layers).double()
    for parameter in model.parameters():
        parameter.data *= 3
    x = torch.rand(200, 32, dtype=torch.float64)
    graph = freeze(trace(model, (32,)), x)[0].detach()
    spec = torch.eye(5, dtype=torch.float64).expand(200, -1, -1)
    single = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    error = (graph(x) - graph.to(torch.float32)(x.float()).double()).abs().amax(1)
    assert (error < single * rounding(graph, Linf(eps=0.0).region(x), spec)).all()
