"""Intervals: what is computed together for many samples, and the first layer behind an l2 ball."""

import pytest
import torch
from torch import nn

from ctbench.domains import interval
from ctbench.graph import freeze, trace
from ctbench.graph.ops import Linear, Select
from ctbench.networks import CNN3, Normalize
from ctbench.regions import L2, Linf
from ctbench.specification import margin_rows, robust_cross_entropy


@pytest.mark.parametrize("labels", [[2, 0, 2, 1, 0, 2, 2, 1, 0, 0, 2, 1], [1] * 12, [0, 1, 2] * 4], ids=str)
def test_bounds_and_gradients_are_those_of_one_sample_after_the_other(monkeypatch, labels):
    torch.manual_seed(0)
    model = CNN3(width=2).build((1, 6, 6), 3).double()
    x, y = torch.rand(len(labels), 1, 6, 6, dtype=torch.float64), torch.tensor(labels)
    found = []
    for large in (0, 2**62):
        monkeypatch.setattr(interval, "MIN_MERGED", large)
        model.zero_grad()
        net, _ = freeze(trace(model, (1, 6, 6)), x, training=True)
        bounds = interval.lower_bounds(net, Linf(eps=0.05).region(x), margin_rows(y, 3, torch.float64))
        robust_cross_entropy(bounds).sum().backward()
        found.append([bounds.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-11)


def test_they_are_merged_once_a_kind(monkeypatch):
    merged = []
    whole = interval.merge_last_layer
    monkeypatch.setattr(interval, "merge_last_layer", lambda *given: merged.append(given) or whole(*given))
    monkeypatch.setattr(interval, "MIN_MERGED", 0)
    net, _ = freeze(trace(CNN3(width=2).build((1, 6, 6), 3).eval(), (1, 6, 6)), torch.zeros(1, 1, 6, 6))
    x, y = torch.rand(12, 1, 6, 6), torch.tensor([0, 1, 2] * 4)
    interval.lower_bounds(net, Linf(eps=0.05).region(x), margin_rows(y, 3))
    assert [len(form.coefficients) for _, form, _ in merged] == [1, 1, 1]


def test_no_forms_have_no_bounds():
    net, _ = freeze(trace(CNN3(width=2).build((1, 6, 6), 3).eval(), (1, 6, 6)), torch.zeros(1, 1, 6, 6))
    region = Linf(eps=0.05).region(torch.rand(2, 1, 6, 6))
    assert interval.lower_bounds(net, region, torch.zeros(2, 0, 3)).shape == (2, 0)


def layers() -> nn.Sequential:
    """Up to number 2 coordinates are scaled, moved and mixed."""
    torch.manual_seed(0)
    scaled = Normalize((0.1, 0.2), (0.3, 0.5))
    net = nn.Sequential(scaled, nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    return net.double()


def test_behind_the_first_layer_the_box_is_that_of_the_l2_ball_itself():
    net, x = layers(), torch.rand(2, 2, 4, 4, dtype=torch.float64)
    graph, _ = freeze(trace(net, (2, 4, 4)), x)
    rows = torch.autograd.functional.jacobian(lambda z: net[:2](z).flatten(), x[:1]).flatten(1)
    box = interval.boxes(graph, L2(eps=0.3, clip=None).region(x))[2]
    torch.testing.assert_close(box.radius.flatten(1), 0.3 * rows.norm(dim=1).expand(2, -1))
    torch.testing.assert_close(box.center, net[:2](x))


class Centred(nn.Module):
    """Also what a forward function does before the first layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 5).double()

    def forward(self, x):
        return self.first(torch.flatten((x - 0.5) / 0.25, 1)).relu()


def test_the_ball_goes_through_reshapes_shifts_and_scales_to_a_linear_layer():
    torch.manual_seed(0)
    net, x = Centred(), torch.rand(2, 2, 2, 2, dtype=torch.float64)
    graph, _ = freeze(trace(net, (2, 2, 2)), x)
    at = next(at for at, node in enumerate(graph.nodes) if isinstance(node.op, Linear))
    box = interval.boxes(graph, L2(eps=0.3, clip=None).region(x))[at]
    torch.testing.assert_close(box.radius, (0.3 * 4 * net.first.weight.norm(dim=1)).expand(2, -1))


def test_in_a_data_range_it_is_the_better_of_the_ball_and_the_box_around_both():
    net, x = layers(), torch.rand(2, 2, 4, 4, dtype=torch.float64).round()  # every pixel at an end of the range
    graph, _ = freeze(trace(net, (2, 4, 4)), x)
    box, ball, cut = (
        interval.boxes(graph, region)[2]
        for region in (Linf(eps=0.3).region(x), L2(eps=0.3, clip=None).region(x), L2(eps=0.3).region(x))
    )
    torch.testing.assert_close(cut.lower, torch.maximum(box.lower, ball.lower))
    torch.testing.assert_close(cut.upper, torch.minimum(box.upper, ball.upper))
    assert (box.lower > ball.lower).any()
    assert (box.lower < ball.lower).any()


def test_a_layer_of_zeros_has_gradients_behind_an_l2_ball():
    net, x = layers(), torch.rand(2, 2, 4, 4, dtype=torch.float64)
    nn.init.zeros_(net[1].weight)
    graph, _ = freeze(trace(net, (2, 4, 4)), x)
    spec = margin_rows(torch.tensor([0, 1]), 2, torch.float64)
    interval.lower_bounds(graph, L2(eps=0.3, clip=None).region(x), spec).sum().backward()
    assert net[1].weight.grad.isfinite().all()


def test_two_mixing_layers_are_not_taken_for_one():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)).double(), torch.rand(3, 6, dtype=torch.float64)
    graph, _ = freeze(trace(net, (6,)), x)
    region = L2(eps=0.5, clip=None).region(x)
    first, second = interval.boxes(graph, region)[1:]
    torch.testing.assert_close(second.radius, first.radius @ net[1].weight.abs().T)
    assert ((net(region.sample(1000)) - second.center).abs() <= second.radius).all()


def test_a_coordinate_that_is_taken_twice_moves_with_itself():
    """sum(x[0, 0]) moves by 2 eps, as a ball of two coordinates would not."""
    net = nn.Sequential(nn.Unflatten(1, (1, 1, 1)), nn.ReplicationPad2d((1, 0, 0, 0)), nn.Flatten(), nn.Linear(2, 1))
    nn.init.ones_(net[-1].weight)
    x = torch.zeros(1, 1, dtype=torch.float64)
    graph, _ = freeze(trace(net.double(), (1,)), x)
    assert any(isinstance(node.op, Select) for node in graph.nodes)
    box = interval.boxes(graph, L2(eps=0.5, clip=None).region(x))[-1]
    torch.testing.assert_close(box.radius, torch.ones_like(box.radius))
