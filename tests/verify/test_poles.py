"""A network with a pole, or without a value, in a region: its verdict is unknown, whatever follows the pole."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ctbench
from ctbench.domains import AlphaCrown
from ctbench.verify import DEFAULT_STAGES, Bound

DOMAINS = ("interval", "zonotope", "crown-ibp", "crown", AlphaCrown(steps=2))
BOUNDS = [Bound(domain=domain) for domain in DOMAINS]


def at_pole(x: Tensor) -> Tensor:
    """0 at an input of 1/2."""
    return x[:, :1] - 0.5


FORWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "reciprocal": lambda x: 1 / at_pole(x),
    "clamped": lambda x: (1 / at_pole(x)).clamp(-1, 1),
    "sigmoid": lambda x: (1 / at_pole(x)).sigmoid(),
    "atan": lambda x: (1 / at_pole(x)).atan(),
    "sign": lambda x: (1 / at_pole(x)).sign(),
    "hard sigmoid": lambda x: nn.functional.hardsigmoid(1 / at_pole(x)),
    "times zero": lambda x: 0 * (1 / at_pole(x)),
    "tangent": lambda x: (math.pi * x[:, :1]).tan().tanh(),
    "negative power": lambda x: (at_pole(x) ** -2).tanh(),
    "quotient by itself": lambda x: at_pole(x) / at_pole(x),
    "maximum": lambda x: torch.minimum(torch.maximum(1 / at_pole(x), x[:, 1:]), x[:, 1:]),
    "softmax": lambda x: torch.cat([1 / at_pole(x), x], 1).softmax(1)[:, :1],
    "layer norm": lambda x: nn.functional.layer_norm(torch.cat([1 / at_pole(x), x], 1), (3,))[:, :1],
    "unit vector": lambda x: nn.functional.normalize(torch.cat([1 / at_pole(x), x], 1))[:, :1],
    "attention": lambda x: ((1 / (x - 0.5)).unsqueeze(2) * x.unsqueeze(1)).softmax(-1) @ x.unsqueeze(2),
    "logarithm": lambda x: at_pole(x).log().sigmoid(),
    "cut logarithm": lambda x: at_pole(x).log().relu(),
    "root": lambda x: at_pole(x).sqrt().sigmoid(),
    "power": lambda x: (at_pole(x) ** 1.5).tanh(),
}


class Network(nn.Module):
    """The label 0 wins by 20, whatever the number is that the function makes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.first, self.function = nn.Linear(2, 2, bias=False), FORWARDS[name]
        nn.init.eye_(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        value = self.function(self.first(x)).flatten(1)[:, :1]
        return torch.cat([value + 10, value - 10], dim=1)


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.filterwarnings("ignore:.*NaN")
def test_a_pole_in_the_region_is_unknown(name):
    """For the bounds of all domains and, for some networks, also for the searches."""
    dtype = torch.float64 if len(name) % 2 else torch.float32
    x = torch.tensor([[0.55, 0.3], [0.51, 0.6]], dtype=dtype)
    stages = DEFAULT_STAGES if name in ("clamped", "tangent", "softmax") else BOUNDS
    result = ctbench.certify(Network(name).to(dtype), x, torch.tensor([0, 0]), eps=0.1, stages=stages, timeout=60.0)
    assert [str(record.verdict) for record in result] == ["unknown", "unknown"]
    assert all("NaN" in record.reason for record in result)


@pytest.mark.parametrize("name", ["clamped", "tangent", "softmax", "root"])
def test_a_region_without_the_pole_is_certified(name):
    x = torch.tensor([[0.8, 0.3]], dtype=torch.float64)
    result = ctbench.certify(Network(name).double(), x, torch.tensor([0]), eps=0.05, stages=BOUNDS, timeout=60.0)
    assert [str(record.verdict) for record in result] == ["certified"]
