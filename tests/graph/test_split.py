"""Cutting a graph in two."""

import pytest
import torch
from torch import Tensor, nn

from ctbench.graph import split, trace


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(x)) + x)


def test_the_back_of_the_front_is_the_graph():
    torch.manual_seed(0)
    graph, x = trace(Residual(), (3,)), torch.rand(4, 3)
    for at in (0, 1, 2, 5, 6, -1):  # input, first, relu, sum, last
        front, back = split(graph, at)
        assert len(front.nodes) + len(back.nodes) == len(graph.nodes) + 1
        assert back.input_shape == front.nodes[-1].shape
        assert torch.equal(back(front(x)), graph(x))


@pytest.mark.parametrize("at", [3, 4])
def test_a_branch_past_the_cut_is_named(at):
    graph = trace(Residual(), (3,))
    with pytest.raises(ValueError, match=f"cannot be cut after '{graph.nodes[at].name}': .* also reads '.*', which"):
        split(graph, at)
