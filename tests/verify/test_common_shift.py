"""A log-softmax at the end changes no margin: verdicts and bounds are those of the network before it."""

import torch
from torch import nn

from ctbench.graph import Graph, Node, freeze, trace
from ctbench.graph.ops import AlongAxis, Input, Linear
from ctbench.regions import Linf
from ctbench.verify.common_shift import without_common_shift
from ctbench.verify.problem import Problem


def test_a_log_softmax_is_left_out_of_margins():
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.rand(2, 4, dtype=torch.float64), torch.tensor([0, 2])
    problems = [
        Problem.of_labels(freeze(trace(net, (4,)), x)[0].detach(), x, y, Linf(0.1))
        for net in (before, nn.Sequential(before, nn.LogSoftmax(1)))
    ]
    assert isinstance(problems[1].net.nodes[-1].op, Linear)
    assert torch.equal(problems[0].net(x), problems[1].net(x))


def test_other_ends_are_kept():
    x = torch.rand(2, 3, dtype=torch.float64)

    class Weighted(nn.Module):
        def forward(self, x):
            return x + x[:, [0, 1, 0]]

    for net in (Weighted(), nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)).double()):
        graph = freeze(trace(net, (3,)), x)[0]
        assert without_common_shift(graph) is graph


def test_a_shift_that_is_only_equal_after_rounding_is_kept():
    """1e-20 x_0 and x_1 - x_0 are not x_0 and x_1 less x_0: 1e-20 - 1 is rounded to -1."""
    weight = torch.tensor([[1e-20, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    graph = Graph((Node("input", Input(), (), (2,)), Node("last", AlongAxis(weight, 0), (0,), (2,))))
    assert without_common_shift(graph) is graph
