"""Elementwise ops: images, slopes, lines of any slope, and the tightest lines."""

import math

import pytest
import torch
from hypothesis import example, given
from tests.contracts.intervals import (
    CASES,
    PRECISIONS,
    RANDOM,
    SPECIAL,
    below,
    both_precisions,
    check_lines,
    grid,
    least,
    tensors,
)
from tests.contracts.ops import OPS, rand

from ctbench.graph import Elementwise, Lines
from ctbench.graph.ops import LeakyReLU, PiecewiseLinear, ReLU

every_function = pytest.mark.parametrize("name", OPS)


def of(name: str, dtype: torch.dtype = torch.float64) -> Elementwise:
    """An op with its numbers in this precision."""
    return OPS[name].map(lambda tensor: tensor.to(dtype))


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_images_and_extremes_are_the_least_and_the_greatest_value(name, dtype, cases):
    op, tolerance = of(name, dtype), PRECISIONS[dtype]
    lower, upper, slope, _ = tensors(cases, dtype)
    for s, found in ((torch.zeros_like(slope), op.image(lower, upper)), (slope, op.extremes(lower, upper, slope))):
        for sign, bound in zip((1, -1), found, strict=True):
            assert bound.dtype == dtype
            best, at = least(lambda z, s=s, sign=sign: sign * (op(z) - s.double() * z), lower, upper)
            scale = 1 + (s.double() * at).abs() + op(at).abs()
            excess = (sign * bound.double() - best) / scale
            assert excess.max() <= tolerance  # sound
            assert excess.min() >= -max(tolerance, 1e-9)  # attained


@pytest.mark.parametrize(
    ("negative", "slope", "least", "greatest"),
    [
        (0.25, 0.5, 0.0, 2.0),  # of 0.5, 0 and 2 at -2, 0 and 4
        (0.25, 0.875, 0.0, 1.25),  # 1.25, 0, 0.5
        (0.25, 0.0, -0.5, 4.0),  # -0.5, 0, 4
        (0.25, 2.0, -4.0, 3.5),  # 3.5, 0, -4
        (2.0, 1.5, -2.0, 0.0),  # -1, 0, -2
        (2.0, 1.125, -1.75, 0.0),  # -1.75, 0, -0.5
    ],
)
def test_either_end_of_a_leaky_relu_may_be_the_extreme_one(negative, slope, least, greatest):
    ends = torch.tensor([-2.0, 4.0, slope])
    assert [end.item() for end in LeakyReLU(negative).extremes(*ends)] == [least, greatest]


def test_the_offset_of_a_chord_holds_at_both_ends():
    """Both values are the same except for rounding, and either may be the greater one."""
    torch.manual_seed(0)
    lower, upper = -torch.rand(1000), torch.rand(1000)
    _, _, slope, offset = ReLU().tightest_lines(lower, upper)
    at_lower, at_upper = -lower * slope, torch.addcmul(upper, upper, slope, value=-1)
    assert (at_lower > at_upper).any()
    assert (at_lower < at_upper).any()
    assert torch.equal(offset, torch.maximum(at_lower, at_upper))


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_slopes_contain_every_difference_quotient(name, dtype, cases):
    op = of(name, dtype)
    lower, upper, _, _ = tensors(cases, dtype)
    low, high = (slope.double() for slope in op.slopes(lower, upper))
    points = grid(lower, upper)
    for begin, end in ((points[:-1], points[1:]), (points[:1], points[-1:]), (points[:-20], points[20:])):
        run = end - begin
        quotient = (op(end) - op(begin)) / torch.where(run > 0, run, 1.0)
        counts = run > 1e-4 * (1 + begin.abs())
        slack = 1e-9 if dtype == torch.float64 else 1e-6
        assert (quotient >= low - slack)[counts].all()
        assert (quotient <= high + slack)[counts].all()
    steps = (op(points[1:]) - op(points[:-1])) / torch.where(points[1:] > points[:-1], points[1:] - points[:-1], 1.0)
    dense = ((points[1:] - points[:-1] < 0.2) & (points[1:] - points[:-1] > 1e-4)).all(0) & (upper > lower)
    assert (steps.amin(0) <= low + 0.2)[dense].all()  # and are no wider than they must be
    assert (steps.amax(0) >= high - 0.2)[dense].all()
    chord = op.chord(lower, upper)
    assert ((chord >= low) & (chord <= high)).all()
    wide = upper.double() - lower.double() > 1e-3 * (1 + lower.double().abs())
    expected = (op(upper.double()) - op(lower.double())) / (upper.double() - lower.double())
    torch.testing.assert_close(
        chord.double()[wide], expected[wide], rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-3
    )


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_lines_of_any_slope_enclose_the_function_and_touch_it(name, dtype, cases):
    op = of(name, dtype)
    lower, upper, low, high = tensors(cases, dtype)
    lines = op.lines(lower, upper, low, high)
    assert all(line is None or line.isfinite().all() for line in lines)
    check_lines(op, lines, lower, upper)
    check_lines(op, op.lines(lower, upper, op.chord(lower, upper), op.chord(lower, upper)), lower, upper)
    for sign, (slope, offset) in ((1, lines[:2]), (-1, lines[2:])):
        slope, offset = slope.double(), torch.zeros(()) if offset is None else offset.double()
        gap, at = least(lambda z, s=slope, b=offset, sign=sign: sign * (op(z) - s * z - b), lower, upper)
        assert (gap / (1 + (slope * at).abs() + offset.abs())).max() <= max(1e-9, PRECISIONS[dtype])


@every_function
@both_precisions
@RANDOM(max_examples=1)
@given(cases=CASES)
@example(cases=(SPECIAL[::3], 0))
def test_the_tightest_lines_leave_the_smallest_area(name, dtype, cases):
    """The area between a line and f is smallest where the line is best at the middle: none of 200 others is better."""
    op = of(name, dtype)
    lower, upper, _, _ = tensors(cases, dtype)
    lines = op.tightest_lines(lower, upper)
    check_lines(op, lines, lower, upper)
    middle, (first, last) = (lower.double() + upper.double()) / 2, op.slopes(lower, upper)
    others = first + (last - first) * torch.linspace(0, 1, 200, dtype=dtype).unsqueeze(1)
    extremes = op.extremes(lower, upper, others)
    for sign, (slope, offset), rivals in ((1, lines[:2], extremes[0]), (-1, lines[2:], extremes[1])):
        value = slope.double() * middle + (0 if offset is None else offset.double())
        best = (sign * (others.double() * middle + rivals.double())).amax(0)
        slack = max(1e-6, PRECISIONS[dtype]) * (1 + middle.abs() + upper.double() - lower.double())
        assert (sign * value >= best - slack).all()


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_exact_means_that_the_lines_are_the_function(name, dtype, cases):
    op = of(name, dtype)
    lower, upper, _, _ = tensors(cases, dtype)
    exact = op.exact(lower, upper)
    assert exact[lower == upper].all()
    if isinstance(op, PiecewiseLinear):
        kinks = torch.tensor(op.kinks, dtype=dtype).view(-1, 1)
        assert torch.equal(exact, ~((lower < kinks) & (kinks < upper)).any(0))
    lower, upper = lower[exact], upper[exact]
    slope = op.slopes(lower, upper)[0]
    lines, points, slack = op.lines(lower, upper, slope, slope), grid(lower, upper), 2 * PRECISIONS[dtype]
    values = op(points)
    assert (
        below((-lines.lower_slope, -(0.0 * lower if lines[1] is None else lines[1])), points, slack) <= -values
    ).all()
    assert (below((lines.upper_slope, lines.upper_offset), points, slack) <= values).all()


@every_function
@both_precisions
@RANDOM(max_examples=1)
@given(cases=CASES)
@example(cases=(SPECIAL[::5], 0))
def test_gradients_are_finite(name, dtype, cases):
    op = of(name, dtype)
    lower, upper, low, high = tensors(cases, dtype)
    steady = (upper == lower) | (upper - lower > 1e-30)  # the gradient of ReLU's chord, 1 / (u - l), overflows
    lower, upper, low, high = (end[steady].requires_grad_() for end in (lower, upper, low, high))
    chord = op.chord(lower, upper)
    all_lines = (
        op.lines(lower, upper, low, high),
        op.tightest_lines(lower, upper),
        op.lines(lower, upper, chord, chord),
    )
    ends = [part.sum() for part in (*op.image(lower, upper), *op.slopes(lower, upper)) if part.requires_grad]
    lines = [part.sum() for pair in all_lines for part in pair if part is not None and part.requires_grad]
    for gradient in torch.autograd.grad(sum(ends + lines), [lower, upper, low, high], materialize_grads=True):
        assert gradient.isfinite().all()


@every_function
def test_tightest_lines_are_those_of_the_tightest_slopes_and_so_are_their_gradients(name):
    op = of(name)
    ends = torch.tensor([(-1.3, 0.9), (0.2, 2.5), (-3.0, -1.1), (-0.8, 5.0), (0.0, 1.0), (-1.0, 0.0)]).double().T
    lower, upper = ends.clone().requires_grad_()
    pairs = op.tightest_lines(lower, upper), op.lines(lower, upper, *op.tightest(lower, upper))
    weights, gradients = torch.randn(4, 6, dtype=torch.float64), []
    for lines in pairs:
        total = sum((w * line).sum() for w, line in zip(weights, lines, strict=True) if line is not None)
        gradients.append(torch.autograd.grad(total, [lower, upper], materialize_grads=True))
    for fused, plain in zip(pairs[0] + gradients[0], pairs[1] + gradients[1], strict=True):
        assert (fused is None and plain is None) or torch.allclose(fused, plain, rtol=1e-12, atol=1e-12)


def test_a_chord_that_is_hardly_wide_has_finite_gradients():
    """1000 / 1e-37 is infinite in single precision."""
    lower, upper = torch.tensor([-1e-37, 0.0], requires_grad=True), torch.tensor([0.0, 1e-37], requires_grad=True)
    slope = ReLU().tightest_lines(lower, upper).upper_slope
    for gradient in torch.autograd.grad(1000 * slope.sum(), [lower, upper]):
        assert torch.equal(gradient, torch.zeros(2))
    lower, upper = torch.tensor([-1e-45], requires_grad=True), torch.tensor([1e-37], requires_grad=True)
    slope = ReLU().tightest_lines(lower, upper).upper_slope
    for gradient in torch.autograd.grad(1000 * slope.sum(), [lower, upper]):
        assert gradient.isfinite().all()


@every_function
def test_extremes_follow_the_ends_and_the_slope(name):
    """The gradient of an extreme is that of the value at its place: -z for the slope."""
    op = of(name)
    lower, upper = torch.tensor([-1.3, 0.2, -3.0, -0.8]).double(), torch.tensor([0.9, 2.5, -1.1, 5.0]).double()
    slope = torch.tensor([0.31, 0.07, -0.09, 0.4]).double()
    assert torch.autograd.gradcheck(
        op.extremes, [argument.requires_grad_() for argument in (lower, upper, slope)], rtol=1e-5
    )


@every_function
@both_precisions
@pytest.mark.parametrize("slope", ["tightest", "chord", 0.0, 0.3, 1.0])
def test_bounds_that_are_not_finite_give_no_lines_that_could_certify(name, dtype, slope):
    """NaN makes NaN, which certifies nothing; a finite line of an infinite interval holds on all of it."""
    op = of(name, dtype)
    ends = [(math.nan, 1.0), (-1.0, math.nan), (math.nan, math.nan), (-math.inf, 1.0), (-1.0, math.inf)]
    ends += [(-math.inf, math.inf), (-math.inf, -50.0), (50.0, math.inf)]
    lower, upper = torch.tensor(ends, dtype=dtype).T
    if slope == "tightest":
        lines = op.tightest_lines(lower, upper)
    else:
        both = op.chord(lower, upper) if slope == "chord" else torch.full_like(lower, slope)
        lines = op.lines(lower, upper, both, both)
    assert (lines.upper_slope + lines.upper_offset)[:3].isnan().all()
    least, greatest = op.image(lower, upper)
    assert (least + greatest)[:3].isnan().all()
    some = Lines(*(line if line is None else line[3:] for line in lines))
    check_lines(op, some, lower[3:].clamp(min=-1e4), upper[3:].clamp(max=1e4))


@every_function
def test_what_says_that_it_is_convex_is(name):
    op = of(name)
    first, second = 3 * rand(1000), 3 * rand(1000)
    bends = op((first + second) / 2) <= (op(first) + op(second)) / 2 + 1e-12
    assert not op.convex or bool(bends.all())
