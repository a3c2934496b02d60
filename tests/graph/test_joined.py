"""What is one op with the op before it: same function, fewer ops."""

import pytest
import torch
from torch import nn

from ctbench.graph import freeze, joined, trace
from ctbench.graph.ops import Scale
from ctbench.networks import Normalize


def normed(layer: nn.Module, norm: nn.Module) -> nn.Sequential:
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 2)
    return nn.Sequential(layer, norm, nn.ReLU(), nn.Flatten()).double()


def frozen(model: nn.Module, *shape: int):
    x = torch.rand(5, *shape, dtype=torch.float64)
    return freeze(trace(model, shape), x)[0], x


LAYERS = {
    "conv": (lambda: normed(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4)), (2, 5, 5)),
    "conv without bias": (lambda: normed(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 5, 5)),
    "groups": (lambda: normed(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (4, 5, 5)),
    "as many channels as rows": (lambda: normed(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), (2, 5, 5)),
    "linear": (lambda: normed(nn.Linear(6, 3), nn.BatchNorm1d(3)), (6,)),
    "linear without bias": (lambda: normed(nn.Linear(6, 3, bias=False), nn.BatchNorm1d(3)), (6,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_norm_joins_the_layer_before_it(name):
    make, shape = LAYERS[name]
    graph, x = frozen(make(), *shape)
    one = joined(graph)
    assert len(one.nodes) == len(graph.nodes) - 1
    assert not any(isinstance(node.op, Scale) for node in one.nodes)
    torch.testing.assert_close(one(x), graph(x), rtol=1e-12, atol=1e-12)


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.second = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return (self.second(self.norm(x)) + x).flatten(1)


def test_what_others_read_too_stays():
    model = TwoReaders().double()
    model.norm.running_var.fill_(0.25)
    graph, _ = frozen(model, 1, 4, 4)
    assert [type(node.op) for node in joined(graph).nodes] == [type(node.op) for node in graph.nodes]


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.second, self.other = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.norm(self.first(x))
        return torch.relu(self.other(self.second(x)) + x).flatten(1)


def test_inputs_of_what_follows_are_found_again():
    model = Branches().double()
    for norm in (model.norm, model.other):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data.uniform_(0.5, 2)
    graph, x = frozen(model, 1, 4, 4)
    one = joined(graph)
    assert len(one.nodes) == len(graph.nodes) - 2
    torch.testing.assert_close(one(x), graph(x), rtol=1e-12, atol=1e-12)


def test_a_normalisation_before_a_padded_convolution_stays():
    """The padding's zeros come behind it."""
    graph, _ = frozen(
        nn.Sequential(Normalize([0.4], [0.2]), nn.Conv2d(1, 2, 3, padding=1), nn.Flatten()).double(), 1, 4, 4
    )
    assert len(joined(graph).nodes) == len(graph.nodes)
