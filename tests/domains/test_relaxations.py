"""The slope rules, and what a CROWN bound is made of, by hand."""

import pytest
import torch
from torch import nn

from ctbench.domains import crown, interval, relaxations
from ctbench.graph import trace
from ctbench.regions import Box

LOWER, UPPER = torch.tensor([-1.0, -1.0, -3.0, -1.0]).double(), torch.tensor([1.0, 3.0, 1.0, 1.5]).double()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (relaxations.adaptive, [0, 1, 0, 1]),  # a tie gives 0
        (relaxations.parallel, [0.5, 0.75, 0.25, 0.6]),
        (relaxations.zero, [0, 0, 0, 0]),
        (relaxations.one, [1, 1, 1, 1]),
    ],
)
def test_slopes(rule, expected):
    slope = rule(LOWER, UPPER)
    assert slope.dtype == torch.float64
    assert slope.tolist() == pytest.approx(expected)


def test_the_parallel_slope_has_finite_gradients_where_the_width_is_zero():
    lower = torch.tensor([0.0, 1.0, -1.0]).double().requires_grad_()
    upper = torch.tensor([0.0, 1.0, 2.0]).double().requires_grad_()
    relaxations.parallel(lower, upper)[2].backward()
    assert torch.isfinite(lower.grad).all()
    assert torch.isfinite(upper.grad).all()


def absolute() -> nn.Module:
    """|x| and -|x| of one input, as relu(x) + relu(-x)."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        model[0].bias.zero_()
        model[2].bias.zero_()
    return model


def test_crown_by_hand():
    graph = trace(absolute(), (1,))
    region = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    spec = torch.eye(2).double()[None]
    # lower: slopes 1 and 0 give x >= -1; upper: chords 3/4 (x + 1) and 1/4 (3 - x) give x/2 + 3/2 <= 3
    bound = crown.lower_bounds(graph, region, spec)
    assert bound[0].tolist() == pytest.approx([-1.0, -3.0])
    assert crown.lower_bounds(graph, region, spec, slope=relaxations.zero)[0, 0].item() == pytest.approx(0.0)
    # parallel: 3/4 x - 1/4 x >= -1/2
    assert crown.lower_bounds(graph, region, spec, slope=relaxations.parallel)[0, 0].item() == pytest.approx(-0.5)
    assert crown.lower_bounds(graph, region, spec, slope=relaxations.one)[0, 0].item() == pytest.approx(0.0)
    assert interval.lower_bounds(graph, region, spec)[0].tolist() == pytest.approx([0.0, -4.0])


def test_pure_boxes_may_be_wider_than_intervals_and_the_usual_ones_are_not():
    model = nn.Sequential(*absolute(), nn.ReLU(), nn.Linear(2, 2)).double()
    graph = trace(model, (1,))
    region = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    pure, usual, plain = (
        crown.boxes(graph, region, pure=True),
        crown.boxes(graph, region),
        interval.boxes(graph, region),
    )
    assert pure[3].lower[0, 0].item() == pytest.approx(-1.0)
    assert usual[3].lower[0, 0].item() == plain[3].lower[0, 0].item() == 0.0
    assert pure[3].lower[0, 1].item() == pytest.approx(-3.0)
    assert plain[3].lower[0, 1].item() == pytest.approx(-4.0)
