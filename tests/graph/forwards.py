"""Networks whose forward is a function, for small and for larger inputs; whether a graph computes the same."""

import torch
from torch import Tensor, nn

from ctbench.graph import freeze, trace


class Wrap(nn.Module):
    """A module whose forward is a function of three layers and x, for inputs of shape (2, 3)."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.function = forward
        self.first, self.second, self.relu = nn.Linear(6, 6), nn.Linear(6, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def check(model: nn.Module, *shape: int) -> None:
    """The graph computes what the module computes at test time."""
    model = model.double()
    x = torch.randn(5, *shape, dtype=torch.float64)
    graph, logits = freeze(trace(model, shape), x)
    expected = model.eval()(x.clone())
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(graph(x), expected, rtol=1e-12, atol=1e-12)
    assert graph.input_shape == shape
    assert graph.classes == expected.shape[1]
    assert all(i < at for at, node in enumerate(graph.nodes) for i in node.inputs)


def refusal(model: nn.Module) -> str | None:
    """The message that refuses a network for inputs (2, 3), or None if its graph computes the same."""
    try:
        check(model, 2, 3)
    except ValueError as error:
        return str(error)
    return None


SHAPE = (4, 6, 8)
PARAMETERS = {
    "scale": (4, 1, 1),
    "row": (8,),
    "pair": (2, 6, 8),
    "with_batch": (1, 4, 6, 8),
    "one": (),
    "matrix": (8, 5),
    "weight": (5, 8),
    "bias": (5,),
    "kernel": (2, 4, 3, 3),
    "grouped": (4, 2, 2, 3),
    "shift": (2,),
}


class Reads(nn.Module):
    """A forward as a function of the module and x, for inputs of shape (4, 6, 8), and constants for it."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        for name, shape in PARAMETERS.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        self.register_buffer("mean", torch.rand(4, 1, 1))
        self.register_buffer("std", torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("count", torch.tensor([3]))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.table = nn.ParameterList([nn.Parameter(torch.randn(8))])
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x).flatten(1)


def build(function) -> Reads:
    torch.manual_seed(0)
    return Reads(function).eval()
