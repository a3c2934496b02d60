"""A scale that is folded into the convolution before it: the same function, with one pass over the values less."""

import pytest
import torch
from torch import nn

from ctbench.graph import Graph, Node, folded, freeze, trace
from ctbench.graph.ops import Conv2d, Input, Reshape, Scale, ScaledConv2d
from ctbench.networks import Normalize


def spread(model: nn.Module) -> nn.Module:
    """The network in double precision, with batch norms that are not identities."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            norm.weight.data.uniform_(-2, 2)
            for tensor in (norm.bias, norm.running_mean, norm.running_var):
                tensor.data.uniform_(0.5, 2)
    return model.double()


def frozen(model: nn.Module, *shape: int) -> tuple[Graph, torch.Tensor]:
    x = torch.rand(5, *shape, dtype=torch.float64)
    return freeze(trace(spread(model), shape), x)[0], x


def ops(graph: Graph) -> list[type]:
    return [type(node.op) for node in graph.nodes]


@pytest.mark.parametrize(
    ("conv", "channels"),
    [
        (nn.Conv2d(2, 4, 3, 2, 1), 4),
        (nn.Conv2d(2, 4, 3, bias=False), 4),
        (nn.Conv2d(2, 6, 3, groups=2), 6),
        (nn.Conv2d(2, 3, 3), 3),  # as many channels as rows
    ],
    ids=["strided", "without bias", "groups", "channels as rows"],
)
def test_a_batch_norm_is_folded_into_its_convolution(conv, channels):
    graph, x = frozen(nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.Flatten()), 2, 5, 5)
    one = folded(graph, 100)
    assert Scale in ops(graph)
    assert len(one.nodes) == len(graph.nodes) - 1
    assert Scale not in ops(one)
    assert [node.shape for node in one.nodes[1:]] == [node.shape for node in graph.nodes[2:]]
    torch.testing.assert_close(one(x), graph(x), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_both():
    model = spread(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()))
    x, gradients = torch.rand(5, 2, 5, 5, dtype=torch.float64), []
    for change in (lambda graph: graph, lambda graph: folded(graph, 5)):
        net, _ = freeze(trace(model, (2, 5, 5)), x, training=True)
        loss = change(net)(x.flip(0)).square().sum()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for apart, together in zip(*gradients, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)
        assert together.abs().sum() > 0


def test_a_layer_of_more_weights_than_values_stays():
    graph, _ = frozen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), 3, 5, 5)
    values = 4 * 3 * 3  # a sample, and three times as many weights
    assert graph.nodes[1].op.weight.numel() == 3 * values
    assert ops(folded(graph, 3)) == ops(graph)
    assert ops(folded(graph, 4)) == [Input, ScaledConv2d, Reshape]


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.second = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return (self.second(self.norm(x)) + x).flatten(1)


def test_what_others_read_too_stays():
    graph, _ = frozen(TwoReaders(), 1, 4, 4)
    assert ops(folded(graph, 100)) == ops(graph)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.second, self.other = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.norm(self.first(x))
        return torch.relu(self.other(self.second(x)) + x).flatten(1)


def test_inputs_of_what_follows_are_found_again():
    graph, x = frozen(Branches(), 1, 4, 4)
    one = folded(graph, 100)
    assert len(one.nodes) == len(graph.nodes) - 2
    torch.testing.assert_close(one(x), graph(x), rtol=1e-12, atol=1e-12)


def test_the_output_is_the_last_node_whatever_lies_unused():
    conv = Conv2d(torch.ones(1, 1, 1, 1), None, (1, 1), (0, 0), (1, 1), 1, (1, 2, 2))
    scale = Scale(torch.full((1, 1, 1), 3.0), torch.zeros(1, 1, 1))
    shape = (1, 2, 2)
    nodes = (
        Node("x", Input(), (), shape),
        Node("conv", conv, (0,), shape),
        Node("unused", scale, (0,), shape),
        Node("out", scale, (1,), shape),
    )
    x = torch.rand(2, *shape)
    assert torch.equal(folded(Graph(nodes), 100)(x), 3 * x)


def test_a_normalisation_before_a_padded_convolution_stays():
    """The padding's zeros come after it."""
    graph, _ = frozen(nn.Sequential(Normalize([0.4], [0.2]), nn.Conv2d(1, 2, 3, padding=1), nn.Flatten()), 1, 4, 4)
    assert ops(folded(graph, 100)) == ops(graph)


def test_a_scale_of_single_values_stays():
    """Only a scale of whole channels can be part of a convolution's weights."""
    conv = Conv2d(torch.ones(2, 1, 1, 1), None, (1, 1), (0, 0), (1, 1), 1, (1, 2, 2))
    for shape in ((1, 1, 1), (2, 2, 2), (1, 1, 2)):
        scale = Scale(torch.rand(shape), torch.zeros(shape))
        nodes = (
            Node("x", Input(), (), (1, 2, 2)),
            Node("conv", conv, (0,), (2, 2, 2)),
            Node("out", scale, (1,), (2, 2, 2)),
        )
        assert ops(folded(Graph(nodes), 100)) == [Input, Conv2d, Scale]


def test_what_changes_the_tensors_changes_those_that_the_weights_are_made_of():
    graph, x = frozen(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), 2, 5, 5)
    one, seen = folded(graph, 100), []
    same = one.map(lambda tensor: (seen.append(tensor), tensor)[1])
    assert {id(tensor) for tensor in seen} >= {
        id(t) for node in graph.nodes for t in vars(node.op).values() if torch.is_tensor(t)
    }
    assert not any(tensor is one.nodes[1].op.weight for tensor in seen)
    torch.testing.assert_close(same(x), graph(x), rtol=1e-12, atol=1e-12)
    half = one.map(lambda tensor: tensor / 2)
    torch.testing.assert_close(half(x), graph.map(lambda tensor: tensor / 2)(x), rtol=1e-12, atol=1e-12)
    assert not one.detach().nodes[1].op.weight.requires_grad
