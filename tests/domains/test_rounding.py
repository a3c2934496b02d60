"""Bounds of outward graphs hold in exact arithmetic, where plain ones do not."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import mpmath
import pytest
import torch
from torch import nn

from ctbench.domains import alpha_crown, coap, crown, crown_ibp, envelopes, interval, rounding, zonotope
from ctbench.domains.beta_crown import Multipliers, Relaxation
from ctbench.graph import Graph, Node, freeze, trace
from ctbench.graph.ops import (
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    ConvTranspose2d,
    Floor,
    Linear,
    Mean,
    Reshape,
    Scale,
    Select,
    Shift,
    Sigmoid,
    SiLU,
    Smooth,
    Tanh,
    convolutions,
)
from ctbench.graph.ops.smooth import Monotone
from ctbench.regions import L1, L2, Box, Linf
from ctbench.verify import rationals

DOMAINS = {
    "interval": interval,
    "crown-ibp": crown_ibp,
    "crown": crown,
    "alpha-crown": alpha_crown,
    "zonotope": zonotope,
    "coap": coap,
}


def outward(model: nn.Module, x: torch.Tensor) -> Graph:
    return freeze(trace(model.double(), tuple(x.shape[1:])), x)[0].detach().rounded_outward()


def equal_neurons(width: int, depth: int, at: float) -> nn.Sequential:
    """width^depth (x - at), by layers of equal neurons whose rounding errors have one sign."""
    sizes = [1, *[width] * depth]
    layers = [each for pair in pairwise(sizes) for each in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(width, 1)).double()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    nn.init.constant_(model[0].bias, -at)
    return model


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("upper", [False, True])
def test_equal_neurons(name, upper):
    """All neurons are active, so the exact least value is known; each bound stays on its right side of it."""
    exceeded = 0
    for seed in range(24):
        generator = torch.Generator().manual_seed(seed)
        x = 0.3 + torch.rand(1, 1, generator=generator, dtype=torch.float64) / 3
        region = Box(x - 1e-6, x + 1e-6)
        model = equal_neurons(100, 3, region.lower.item() - 1e-7)
        graph = outward(model, x)
        end = (region.upper if upper else region.lower).item()
        exact = 100**3 * (Fraction(end) + Fraction(model[0].bias[0].item()))
        sign = -1 if upper else 1
        spec = torch.full((1, 1, 1), float(sign), dtype=torch.float64)
        bound = DOMAINS[name].lower_bounds(graph, region, spec).item()
        assert Fraction(bound) <= sign * exact
        assert sign * exact - Fraction(bound) < Fraction(1, 10**6) * abs(exact) + Fraction(1, 10**6)
        plain = DOMAINS[name].lower_bounds(graph.rounded_outward(False), region, spec).item()
        exceeded += Fraction(plain) > sign * exact
    # so rounding outward is what is tested; intervals lose about as much by their centres and radii
    assert exceeded > 0 or name in ("interval", "zonotope")


def rough(seed: int, *sizes: int) -> nn.Sequential:
    """A network whose layers are of very different scales, and whose sums cancel."""
    generator = torch.Generator().manual_seed(seed)
    layers = list[nn.Module]()
    for width, out in pairwise(sizes):
        linear = nn.Linear(width, out).double()
        scale = 10.0 ** torch.randint(-4, 5, (1,), generator=generator).item()
        with torch.no_grad():
            linear.weight.copy_(scale * torch.randn(out, width, generator=generator, dtype=torch.float64))
            linear.bias.copy_(-linear.weight.sum(1) / 2)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("name", DOMAINS)
def test_a_point_has_bounds_around_its_exact_value(name):
    for seed in range(10):
        model = rough(seed, 3, 8, 8, 2)
        x = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        graph, spec = outward(model, x), torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]], dtype=torch.float64)
        exact = rationals.forms(graph, x[0], spec[0])
        found = DOMAINS[name].lower_bounds(graph, Box(x, x), spec)[0].tolist()
        assert all(Fraction(low) <= value for low, value in zip(found, exact, strict=True))
        lower, upper = interval.at_points(graph, Box(x, x), spec)
        for low, value, high in zip(lower[0].tolist(), exact, upper[0].tolist(), strict=True):
            assert Fraction(low) <= value <= Fraction(high)


@pytest.mark.parametrize("threat", [Linf(eps=0.01), L2(eps=0.01), L1(eps=0.01), L2(eps=0.01, clip=None)])
@pytest.mark.parametrize("name", ["interval", "crown-ibp", "crown", "alpha-crown"])
def test_single_precision_differs_by_less_than_its_own_loss(name, threat):
    """The losses, multiplied by the ratio of the units, also cover what single precision is wrong by."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
    x = torch.rand(8, 32, dtype=torch.float64)
    graph = outward(model, x)
    spec = torch.eye(5, dtype=torch.float64).expand(8, -1, -1)
    plain = graph.rounded_outward(False)
    bounds = DOMAINS[name].lower_bounds
    exact = bounds(plain, threat.region(x), spec)
    single = bounds(plain.to(torch.float32), threat.region(x.float()), spec.float()).double()
    lost = exact - bounds(graph, threat.region(x), spec)
    assert (lost > 0).all()
    assert ((single - exact).abs() < lost * 2**29).all()


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Linear(torch.randn(3, 5), torch.randn(3)), (5,)),
        (Conv2d(torch.randn(4, 2, 3, 3), torch.randn(4), (1, 1), (1, 1), (1, 1), 1, (2, 5, 5)), (2, 5, 5)),
        (Conv2d(torch.randn(4, 1, 3, 2), None, (2, 1), (1, 0), (2, 1), 2, (2, 6, 5)), (2, 6, 5)),
        (ConvTranspose2d(torch.randn(4, 3, 3, 2), torch.randn(6), (2, 1), (1, 0), (1, 0), (1, 1), 2), (4, 3, 4)),
        (AdaptiveAvgPool2d((2, 3), (2, 5, 4)), (2, 5, 4)),
        (Scale(torch.randn(2, 1, 1), torch.randn(2, 1, 1)), (2, 3, 3)),
        (Shift(torch.randn(2, 1, 1)), (2, 3, 3)),
        (AvgPool2d((2, 2), (2, 2), (0, 0), (2, 4, 4)), (2, 4, 4)),
        (Mean((1, 2), (2, 4, 4)), (2, 4, 4)),
        (Select(torch.tensor([[0, 1], [1, 4]]), (4,)), (4,)),
        (Reshape((4,), (2, 2)), (4,)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else "",
)
def test_a_sum_of_many_terms_costs_as_many_units(op, shape):
    """At least the longest sum forward and backward, and the bias, with every term of one sign."""
    op = op.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    reach = torch.rand(1, *shape, dtype=torch.float64)
    out = op.shape(shape)
    cost = rounding._value(op, out, reach)
    size = op.linear(torch.eye(reach.numel(), dtype=torch.float64).view(-1, *shape)).flatten(1)
    terms = max(int((size != 0).sum(0).max()), int((size != 0).sum(1).max()))
    bias = op(torch.zeros(1, *shape, dtype=torch.float64)).abs().flatten()
    needed = 2.0**-53 * (terms * (reach.flatten() @ size.abs()) + bias.numel() * bias)
    assert (cost.flatten() >= needed).all()


SMOOTH = {
    "Sigmoid": (Sigmoid(), lambda z: 1 / (1 + mpmath.exp(-z))),
    "Tanh": (Tanh(), mpmath.tanh),
    "GELU": (GELU(), lambda z: z * (1 + mpmath.erf(z / mpmath.sqrt(2))) / 2),
    "SiLU": (SiLU(), lambda z: z / (1 + mpmath.exp(-z))),
}


def test_every_smooth_activation_is_among_those():
    ours = (op for op in Smooth.__subclasses__() + Monotone.__subclasses__() if op.__module__.startswith("ctbench."))
    assert {op.__name__ for op in ours} - {"Monotone", "Curve"} == set(SMOOTH)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 10.0, 100.0])
def test_a_smooth_activation_is_right_up_to_its_error(name, scale):
    """Values, and the ends of f(z) - s z, against 50 digits. Without the error some end is wrong: so it is needed."""
    op, exact = SMOOTH[name]
    generator = torch.Generator().manual_seed(0)
    lower = scale * torch.randn(60, generator=generator, dtype=torch.float64)
    upper = lower + scale * torch.rand(60, generator=generator, dtype=torch.float64)
    least, greatest = op.slopes(lower, upper)
    slope = least + torch.rand(60, generator=generator, dtype=torch.float64) * (greatest - least)
    low, high = op.extremes(lower, upper, slope)
    error = op.error(lower, upper)
    reach = torch.maximum(lower.abs(), upper.abs())
    allowed = error + 2.0**-49 * (op(lower).abs() + op(upper).abs() + slope.abs() * reach)
    wrong = 0
    with mpmath.workdps(50):
        for places in zip(*(each.tolist() for each in (lower, upper, slope, low, high, allowed)), strict=True):
            begin, end, s, below, above, most = (mpmath.mpf(each) for each in places)
            for share in range(33):
                z = begin + (end - begin) * share / 32
                value = exact(z) - s * z
                assert below - most <= value <= above + most
                wrong += not below <= value <= above
    assert wrong > 0


def test_a_rounded_shift_costs_the_terms_that_it_is_made_of():
    """A running mean of 1e6 and a bias that takes it back: the shift is small, and its error is that of 1e6."""
    norm = nn.BatchNorm1d(1).double().eval()
    norm.running_mean.fill_(1e6 / 3)
    norm.bias.data.fill_(1e6 / 3)
    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    graph = outward(nn.Sequential(norm, nn.Linear(1, 1)), x)
    lower, upper = interval.at_points(graph, Box(x, x), torch.ones(1, 1, 1, dtype=torch.float64))
    assert (upper - lower).item() > 1e6 / 3 * 2.0**-52 * abs(graph.nodes[-1].op.weight.item())


def test_a_form_that_begins_before_a_relaxation_is_charged_for_its_own_layer():
    """Bounds of pre-activations: nothing else pays for the layer that they begin at."""
    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    graph = outward(rough(1, 1, 4, 4, 2), x)
    boxes, losses = crown.bounded(graph, Box(x, x))
    assert losses is not None
    for at, node in enumerate(graph.nodes):
        if isinstance(node.op, Linear):
            charged_later = losses[at].step is None
            assert charged_later == (at != len(graph.nodes) - 1)
            if charged_later:
                reader = losses[at + 1]
                assert (reader.step >= losses[at].start * (boxes[at].upper > 0)).all()


class Applied(nn.Module):
    """A function of each entry."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


FUNCTIONS = [torch.exp, torch.sqrt, torch.floor, torch.reciprocal, torch.tanh, torch.log, torch.relu]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_part_of_a_region_loses_as_much_as_alone(function):
    """exp(90) loses more than exp(1), the lower end of the whole; the floor has steeper lines on a part."""
    x = torch.ones(1, 200, dtype=torch.float64)
    graph = outward(Applied(function), x)
    parts = Box(*(100 * torch.rand(2, 1, 200, dtype=torch.float64).clamp(min=0.01)).sort(0).values)
    around = crown.bounded(graph, Box(0.5 * x, 101 * x))
    (_, mine), (_, alone) = crown.bounded(graph, parts, around=around), crown.bounded(graph, parts)
    for name in ("below", "above", "step"):  # but for the ends of its input
        assert (getattr(mine[1], name) >= (1 - 1e-9) * getattr(alone[1], name)).all()


def test_each_end_loses_its_own_error():
    """Of [exp(0), exp(50)], the upper end loses 10^21 times as much as the lower one."""
    x = torch.zeros(1, 1, dtype=torch.float64)
    graph, region = outward(Applied(torch.exp), x), Box(x, x + 50)
    lost = rounding.losses(graph, region, interval.boxes(graph, region))[1]
    assert rounding.UNIT <= lost.below.item() < 1e-13
    assert lost.above.item() >= rounding.UNIT * 5e21


def test_lines_are_at_most_as_steep_as_rounding_was_bounded_for(monkeypatch):
    """alpha-CROWN tightens boxes that it has losses for: the lines of a step would be steeper there."""
    torch.manual_seed(0)
    x, original, seen = torch.rand(4, 3, dtype=torch.float64), alpha_crown._lines, []
    graph = outward(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), Applied(torch.floor)), x)
    region, spec = Linf(eps=0.3).region(x), torch.eye(6, dtype=torch.float64).expand(4, -1, -1)
    wide = interval.boxes(graph, region)
    op, read = graph.nodes[-1].op, wide[-2]
    limits = op.slopes(read.lower, read.upper)

    def lines(each, form, *rest):
        result = original(each, form, *rest)
        if each == op:
            least, greatest = (form.view(limit) for limit in limits)
            seen.append([(slope >= least) & (slope <= greatest) for slope in (result.lower_slope, result.upper_slope)])
        return result

    monkeypatch.setattr(alpha_crown, "_lines", lines)
    alpha_crown.AlphaCrown(intermediate=True, steps=0).lower_bounds(graph, region, spec, inner=wide)
    searched, proved = seen[:1], seen[1:2]
    assert not all(bool(each.all()) for each in searched[0])  # without losses they are steeper
    assert all(bool(each.all()) for each in proved[0])


def test_boxes_stay_inside_those_that_rounding_was_bounded_for(monkeypatch):
    torch.manual_seed(0)
    x, original, inside = torch.rand(4, 3, dtype=torch.float64), alpha_crown._lines, []
    graph = outward(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)), x)
    region, narrow = Linf(eps=0.3).region(x), interval.boxes(graph, Linf(eps=0.1).region(x))

    def lines(op, form, box, whole, *rest):
        if whole is not None:
            inside.append(bool(((box.lower >= whole.lower) & (box.upper <= whole.upper)).all()))
        return original(op, form, box, whole, *rest)

    monkeypatch.setattr(alpha_crown, "_lines", lines)
    spec = torch.eye(2, dtype=torch.float64).expand(4, -1, -1)
    alpha_crown.AlphaCrown(intermediate=True, steps=0).lower_bounds(graph, region, spec, inner=narrow)
    assert inside
    assert all(inside)


def test_lines_of_sub_problems_are_at_most_as_steep_as_rounding_was_bounded_for():
    """A step has steeper lines on a part of a range; the losses of a proof are those of the whole range."""
    node = Node("floor", Floor(), (0,), (1,))
    whole, part = (Box(*torch.tensor([[[900 - r]], [[900 + r]]], dtype=torch.float64)) for r in (100.0, 1e-3))
    _, steepest = node.op.slopes(whole.lower, whole.upper)
    assert (envelopes.envelope(node, {0: part}).greatest > 100 * steepest).all()
    assert (envelopes.envelope(node, {0: part}, {0: whole}).greatest == steepest).all()


def test_the_constant_of_known_ranges_is_rounded_down():
    """sum (l if w > 0 else u) w, where large terms cancel; the losses of what comes before and after are set to 0."""
    x, count = torch.rand(1, 3, dtype=torch.float64), 300
    graph = outward(nn.Sequential(nn.Linear(3, 50), nn.Tanh(), nn.Linear(50, 1)), x)
    zero = [
        replace(each, start=0 * each.start, floor=0 * each.floor)
        for each in rounding.losses(graph, Box(x, x), interval.boxes(graph, Box(x, x)))
    ]
    weight, floor = torch.randn(2, count, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = torch.where(weight > 0, floor, floor + 1)
    shift = (weight * ends)[:, 1:].sum(1) / weight[:, 0]
    floor[:, 0] = -shift - (weight[:, 0] < 0).to(shift)
    free = Multipliers({}, {}, {1: weight}, {1: floor}, {1: floor + 1})
    computed = Relaxation(graph, {}, {}, {}, frozenset(), zero)._ranges(1, free).constant[:, 0].tolist()
    ends = torch.where(weight > 0, floor, floor + 1)
    for constant, *rows in zip(computed, weight.tolist(), ends.tolist(), strict=True):
        exact = sum(Fraction(w) * Fraction(end) for w, end in zip(*rows, strict=True))
        assert Fraction(constant) <= exact < Fraction(constant) + Fraction(1e-10)


@pytest.mark.parametrize("name", ["interval", "crown", "zonotope"])
def test_bounds_of_a_softmax_hold_where_its_terms_are_cut_off(name):
    """exp(100) is cut off at exp(40), so 1 / (1 + exp(100)) is computed as 4e-18."""
    x = torch.tensor([[0.0, 100.0]], dtype=torch.float64)
    graph = outward(nn.Softmax(1), x)
    spec = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    low, high = DOMAINS[name].lower_bounds(graph, Box(x, x), spec)[0].tolist()
    with mpmath.workdps(50):
        assert low <= 1 / (1 + mpmath.exp(100)) <= -high


def test_graphs_that_are_not_outward_have_no_losses():
    x = torch.rand(1, 3, dtype=torch.float64)
    graph = outward(rough(0, 3, 4, 2), x).rounded_outward(False)
    assert rounding.losses(graph, Box(x, x), interval.boxes(graph, Box(x, x))) is None
    assert not graph.rounded_outward().to(torch.float32).outward
    assert replace(graph, outward=True).detach().outward


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 2, (1, 3)), nn.ConvTranspose2d(1, 2, (1, 3))])
def test_no_library_replaces_the_sums_of_a_convolution(monkeypatch, layer):
    """On a device whose library has other algorithms in double precision, they are off, and on again afterwards."""
    monkeypatch.setattr(convolutions, "FOURIER", ("cpu",))
    seen = dict[torch.dtype, set[bool]]()

    def watched(function):
        def call(x, *arguments):
            seen.setdefault(x.dtype, set()).add(torch.backends.cudnn.enabled)
            return function(x, *arguments)

        return call

    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(torch.nn.functional, name, watched(getattr(torch.nn.functional, name)))
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(2, 1, 6, 6, dtype=dtype)
        model = nn.Sequential(layer, nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.LazyLinear(2)).to(dtype)
        model(x)
        graph = freeze(trace(model, (1, 6, 6)), x)[0].detach()
        seen.clear()
        region = Box(x - 0.1, x + 0.1)
        crown.lower_bounds(graph, region, torch.eye(2, dtype=dtype).expand(2, -1, -1))
        assert seen == {dtype: {dtype == torch.float32}}
    assert torch.backends.cudnn.enabled
