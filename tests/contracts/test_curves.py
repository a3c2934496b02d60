"""Functions of one variable that are not defined everywhere, jump, or take values of any size: values in 40 digits."""

import math
import random

import mpmath
import pytest
import torch
from tests.contracts.intervals import both_precisions, check_lines
from tests.contracts.ops import CURVES
from torch import Tensor

from ctbench.graph import Elementwise
from ctbench.graph.ops import Exp, Floor, Heaviside, Log, Power, Round, Sign, Sin, Step, Tan, Trunc

SHARES = (0.0, 1e-9, 0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99, 1 - 1e-9, 1.0)
every_curve = pytest.mark.parametrize("name", CURVES)


def intervals(name: str, dtype: torch.dtype, count: int = 40) -> tuple[Tensor, Tensor]:
    """Intervals inside the numbers where a function is defined: points, narrow and wide ones, [N]."""
    draw, (low, high) = random.Random(5), CURVES[name].range
    ends = [(low, high), (low, low), (high, high), ((low + high) / 2,) * 2]
    for place in CURVES[name].places:
        widths = (0.0, 1e-12, 1e-3, 0.5, 3.0)
        ends += [(place - a, place + b) for a in widths for b in widths]
    for _ in range(count):
        point, width = draw.uniform(low, high), 10 ** draw.uniform(-9, math.log10(high - low))
        ends.append((point, point + width))
    pairs = torch.tensor(ends, dtype=torch.float64).clamp(low, high).to(dtype)
    return pairs[:, 0], pairs[:, 1]


def exact(name: str, points: Tensor) -> list[list[mpmath.mpf]]:
    """The values of the function at points [P, N], in 40 digits."""
    function = CURVES[name].exact
    with mpmath.workdps(40):
        return [[function(mpmath.mpf(z)) for z in row] for row in points.tolist()]


def points_of(lower: Tensor, upper: Tensor) -> Tensor:
    shares = torch.tensor(SHARES, dtype=torch.float64).unsqueeze(1)
    inside = lower.double() + shares * (upper.double() - lower.double())
    return torch.cat([inside.clamp(lower.double(), upper.double()), lower.double()[None], upper.double()[None]])


def test_values_are_those_of_the_function():
    for name, curve in CURVES.items():
        points = points_of(*intervals(name, torch.float64, 20))
        values = curve.op(points)
        for row, wanted in zip(values.tolist(), exact(name, points), strict=True):
            for value, right in zip(row, wanted, strict=True):
                assert abs(value - right) <= 1e-14 * (1 + abs(right)), name


@every_curve
def test_lines_and_images_hold_exactly_within_the_stated_error(name):
    op: Elementwise = CURVES[name].op
    lower, upper = intervals(name, torch.float64)
    points = points_of(lower, upper)
    values = exact(name, points)
    least, greatest = op.slopes(lower, upper)
    assert (least <= greatest).all()
    error = op.error(lower, upper) + torch.zeros_like(lower)
    candidates = [(least, greatest), (greatest, least), (least, least), op.tightest(lower, upper)]
    candidates += [(least + share * (greatest - least),) * 2 for share in (0.0, 0.3, 0.5, 0.9)]
    for low, high in candidates:
        assert ((low >= least) & (low <= greatest) & (high >= least) & (high <= greatest)).all()
        lines = op.lines(lower, upper, low, high)
        check_within(points, values, error, lines.lower_slope, lines.lower_offset, 1)
        check_within(points, values, error, lines.upper_slope, lines.upper_offset, -1)
    first, last = op.image(lower, upper)
    zeros = torch.zeros_like(lower)
    check_within(points, values, error, zeros, first, 1)
    check_within(points, values, error, zeros, last, -1)


def check_within(points, values, error, slope, offset, sign):
    """A line is on its side of the function; 40 digits tell where double precision leaves any doubt."""
    plain = torch.tensor([[float(value) for value in row] for row in values], dtype=torch.float64)
    slope, offset = slope.double(), offset.double()
    size = plain.abs() + (slope * points).abs() + offset.abs()
    doubtful = ~(sign * (plain - slope * points - offset) > 1e-13 * size)
    with mpmath.workdps(40):
        for row, wanted, asked in zip(points.tolist(), values, doubtful.tolist(), strict=True):
            columns = zip(row, wanted, error.tolist(), slope.tolist(), offset.tolist(), asked, strict=True)
            for z, value, lost, s, t, _ in (column for column in columns if column[-1]):
                line = mpmath.mpf(s) * mpmath.mpf(z) + mpmath.mpf(t)
                rounding = 2e-15 * (abs(value) + abs(s * z) + abs(t))
                assert sign * (value - line) >= -lost - rounding, (z, s, t, float(value - line), lost)


@every_curve
@both_precisions
def test_lines_touch_the_function(name, dtype):
    """No better offset is sound: at some point of a fine grid, the line comes close to the function."""
    op = CURVES[name].op
    lower, upper = intervals(name, dtype, 60)
    least, greatest = op.slopes(lower, upper)
    shares = torch.linspace(0, 1, 2001, dtype=torch.float64).unsqueeze(1)
    places = torch.tensor(CURVES[name].places, dtype=torch.float64).view(-1, 1).expand(-1, len(lower))
    points = lower.double() + shares * (upper.double() - lower.double())
    points = torch.cat([points, places - 1e-12, places + 1e-12]).clamp(lower.double(), upper.double())
    for share in (0.0, 0.35, 1.0):
        slope = least + share * (greatest - least)
        lines = op.lines(lower, upper, slope, slope)
        check_lines(op, lines, lower, upper)
        values = op(points) - slope.double() * points
        spread = values.amax(0) - values.amin(0)
        scale = 1e-3 * spread + CURVES[name].slack[dtype] * (
            1 + op(points).abs().amax(0) + (slope * points).abs().amax(0)
        )
        assert (lines.lower_offset.double() >= values.amin(0) - scale).all()
        if not isinstance(op, Step):  # the limit at a jump is not the value of a point
            assert (lines.upper_offset.double() <= values.amax(0) + scale).all()


@every_curve
def test_the_tightest_lines_are_not_wider_than_flat_ones_and_chords(name):
    op = CURVES[name].op
    lower, upper = intervals(name, torch.float64, 60)
    middle, chord = (lower + upper) / 2, op.chord(lower, upper)

    def width(lines):
        high = lines.upper_slope * middle + lines.upper_offset
        return high - lines.lower_slope * middle - lines.lower_offset

    best = width(op.tightest_lines(lower, upper))
    slack = 1e-4 * (1 + op(lower).abs() + op(upper).abs())
    least, greatest = op.slopes(lower, upper)
    for slope in (torch.zeros_like(lower), chord, least, greatest):
        assert (best <= width(op.lines(lower, upper, slope, slope)) + slack).all()


@every_curve
def test_gradients_of_lines_are_finite(name):
    op = CURVES[name].op
    lower, upper = intervals(name, torch.float64, 40)
    steep = (lower == 0) & (op == Power(0.5))  # there the slope of a root is infinite
    lower, upper = lower[~steep].requires_grad_(), upper[~steep].requires_grad_()
    lines = op.tightest_lines(lower, upper)
    total = lines.lower_offset.sum() + lines.upper_offset.sum() + sum(end.sum() for end in op.image(lower, upper))
    for gradient in torch.autograd.grad(total, (lower, upper)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("op", "lower", "upper"),
    [
        (Log(), 0.0, 1.0),
        (Log(), -1.0, 1.0),
        (Power(0.5), -1e-300, 1.0),
        (Power(0.5), -2.0, -1.0),
        (Power(-1.0), -1.0, 1.0),
        (Power(-1.0), 0.0, 1.0),
        (Power(-1.0), -1.0, 0.0),
        (Power(-0.5), 0.0, 1.0),
        (Power(-2.0), -1.0, 2.0),
        (Power(1.5), -1.0, 2.0),
        (Tan(), 1.0, 2.0),
        (Tan(), 0.0, 100.0),
        (Tan(), math.pi / 2, 1.58),
        (Exp(), 0.0, math.inf),
        (Sin(), 0.0, math.inf),
        (Sign(), -math.inf, 1.0),
        *((op, -math.inf, 1.0) for op in (Floor(), Heaviside(), Trunc(), Round())),
    ],
    ids=str,
)
def test_nothing_is_proved_where_a_function_is_not_defined(op, lower, upper):
    ends = torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64)
    lines = op.tightest_lines(*ends)
    width = lines.upper_offset - lines.lower_offset + op.image(*ends)[1] - op.image(*ends)[0]
    assert not width.isfinite().all()
    assert not op.exact(*ends).any()
