"""The slope rules, and what a CROWN bound is made of, by hand."""

import pytest
import torch
from torch import Tensor, nn

from ctbench.domains import Crown, crown, interval, relaxations
from ctbench.graph import trace
from ctbench.graph.ops import GELU, Abs, Clamp, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from ctbench.regions import Box

RULES = [relaxations.adaptive, relaxations.parallel, relaxations.zero, relaxations.one]
LOWER, UPPER = torch.tensor([-1.0, -1.0, -3.0, -1.0]).double(), torch.tensor([1.0, 3.0, 1.0, 1.5]).double()
STABLE = torch.tensor([-2.0, 1.0, -2.0, 0.0, 0.0]).double(), torch.tensor([-1.0, 2.0, 0.0, 1.0, 0.0]).double()
OPS = {
    "relu": ReLU(),
    "leaky": LeakyReLU(0.2),
    "falling": LeakyReLU(-0.5),
    "abs": Abs(),
    "clamp": Clamp(-0.5, 0.7),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "gelu": GELU(),
    "silu": SiLU(),
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (relaxations.adaptive, [0, 1, 0, 1]),  # a tie gives 0
        (relaxations.parallel, [0.5, 0.75, 0.25, 0.6]),
        (relaxations.zero, [0, 0, 0, 0]),
        (relaxations.one, [1, 1, 1, 1]),
    ],
)
def test_slopes_of_a_relu(rule, expected):
    low, high = rule(ReLU(), LOWER, UPPER)
    assert low.dtype == high.dtype == torch.float64
    assert low.tolist() == pytest.approx(expected)
    assert high.tolist() == pytest.approx([0.5, 0.75, 0.25, 0.6])
    for slope in rule(ReLU(), *STABLE):
        assert slope.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (relaxations.adaptive, [0.2, 1, 0.2]),
        (relaxations.parallel, [1.2 / 2, 3.2 / 4, 1.4 / 3]),
        (relaxations.zero, [0.2, 0.2, 0.2]),
        (relaxations.one, [1, 1, 1]),
    ],
)
def test_slopes_of_a_leaky_relu(rule, expected):
    low, high = rule(LeakyReLU(0.2), torch.tensor([-1.0, -1.0, -2.0]).double(), torch.tensor([1.0, 3.0, 1.0]).double())
    assert high.tolist() == pytest.approx([1.2 / 2, 3.2 / 4, 1.4 / 3])
    assert low.tolist() == pytest.approx(expected)


def intervals(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Wide and narrow intervals around many places, and single points."""
    generator = torch.Generator().manual_seed(seed)
    center = 3 * torch.randn(150, generator=generator, dtype=torch.float64)
    radius = torch.rand(150, generator=generator, dtype=torch.float64) ** 4 * 4
    return center - radius, torch.where(torch.arange(150) < 20, center - radius, center + radius)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_lines_of_every_rule_hold_the_function_and_touch_it(name, rule):
    op, (lower, upper) = OPS[name], intervals()
    lines = op.lines(lower, upper, *rule(op, lower, upper))
    points = lower + torch.linspace(0, 1, 301, dtype=torch.float64).unsqueeze(1) * (upper - lower)
    lower_offset = 0.0 if lines.lower_offset is None else lines.lower_offset
    below = (op(points) - lines.lower_slope * points - lower_offset).amin(0)
    above = (lines.upper_slope * points + lines.upper_offset - op(points)).amin(0)
    for gap in (below, above):
        assert (gap >= -1e-9).all()
        assert (gap <= 0.05 * (upper - lower) + 1e-9).all()  # up to the width of the grid


@pytest.mark.parametrize("name", OPS)
def test_the_adaptive_rule_leaves_the_smallest_area(name):
    op, (lower, upper) = OPS[name], intervals(seed=1)
    middle = (lower + upper) / 2  # a line's area is its height here times the width

    def heights(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        lines = op.lines(lower, upper, low, high)
        below = lines.lower_slope * middle + (0.0 if lines.lower_offset is None else lines.lower_offset)
        return below, lines.upper_slope * middle + lines.upper_offset

    below, above = heights(*relaxations.adaptive(op, lower, upper))
    least, greatest = op.slopes(lower, upper)
    for share in torch.linspace(0, 1, 11, dtype=torch.float64):
        slope = least + share * (greatest - least)
        other_below, other_above = heights(slope, slope)
        assert (below >= other_below - 1e-6).all()
        assert (above <= other_above + 1e-6).all()


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_slopes_have_finite_gradients_also_where_the_width_is_zero(name, rule):
    lower = torch.tensor([0.0, 1.0, -1.0, -0.5, -60.0]).double().requires_grad_()
    upper = torch.tensor([0.0, 1.0, 2.0, -0.5, 60.0]).double().requires_grad_()
    lines = OPS[name].lines(lower, upper, *rule(OPS[name], lower, upper))
    sum(line.sum() for line in lines if line is not None and line.requires_grad).backward()
    for gradient in (lower.grad, upper.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()


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
    assert Crown(slope=relaxations.zero).lower_bounds(graph, region, spec)[0, 0].item() == pytest.approx(0.0)
    # parallel: 3/4 x - 1/4 x >= -1/2
    assert Crown(slope=relaxations.parallel).lower_bounds(graph, region, spec)[0, 0].item() == pytest.approx(-0.5)
    assert Crown(slope=relaxations.one).lower_bounds(graph, region, spec)[0, 0].item() == pytest.approx(0.0)
    assert interval.lower_bounds(graph, region, spec)[0].tolist() == pytest.approx([0.0, -4.0])


def test_pure_boxes_may_be_wider_than_intervals_and_the_usual_ones_are_not():
    model = nn.Sequential(*absolute(), nn.ReLU(), nn.Linear(2, 2)).double()
    graph = trace(model, (1,))
    region = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    pure, usual, plain = (
        Crown(pure=True).boxes(graph, region),
        crown.boxes(graph, region),
        interval.boxes(graph, region),
    )
    assert pure[3].lower[0, 0].item() == pytest.approx(-1.0)
    assert usual[3].lower[0, 0].item() == plain[3].lower[0, 0].item() == 0.0
    assert pure[3].lower[0, 1].item() == pytest.approx(-3.0)
    assert plain[3].lower[0, 1].item() == pytest.approx(-4.0)
