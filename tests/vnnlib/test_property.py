"""VNN-LIB properties: counterexamples in exact arithmetic, and numbers that are not float64 numbers."""

import math
import re
from fractions import Fraction

import pytest
import torch
from tests.vnnlib.texts import BOX, DECLARED, UNSAFE, vector

from ctbench.vnnlib import VnnlibError, parse_vnnlib, robustness

# Replay


def test_a_counterexample_lies_in_the_box_exactly_or_by_the_tolerance():
    prop = parse_vnnlib(DECLARED + BOX + UNSAFE)
    lost, won = torch.tensor([[0.0, 0.5]]), torch.tensor([[0.5, 0.0]])
    beyond = torch.nextafter(vector(1), vector(2))
    assert prop.is_counterexample(vector(1), lost)
    assert prop.is_counterexample(vector(-1).view(1, 1, 1), lost)
    assert not prop.is_counterexample(vector(1), won)
    assert not prop.is_counterexample(beyond, lost)
    assert not prop.is_counterexample(-beyond, lost)
    assert prop.is_counterexample(beyond, lost, tolerance=1e-9)
    assert prop.is_counterexample(-beyond, lost, tolerance=1e-9)
    assert not prop.is_counterexample(vector(1.1), lost, tolerance=1e-9)
    for end in (-1, 1):
        assert prop.is_counterexample(vector(end + end * 0.9e-9), lost, tolerance=1e-9)
        assert not prop.is_counterexample(vector(end + end * 1.1e-9), lost, tolerance=1e-9)


def test_an_output_is_unsafe_with_the_alternative_of_its_own_box_alone():
    apart = "(and (>= X_0 0) (<= X_0 1) (<= Y_0 0)) (and (>= X_0 2) (<= X_0 3) (<= Y_1 0))"
    prop = parse_vnnlib(f"{DECLARED}(assert (or {apart}))")
    answers = [[prop.is_counterexample(vector(x), vector(*y)) for y in ((-1, 1), (1, -1))] for x in (0.5, 2.5)]
    assert answers == [[True, False], [False, True]]


@pytest.mark.parametrize(("comparison", "tie"), [("<=", True), ("<", False)])
def test_ties_are_unsafe_unless_strict_and_outputs_of_half_an_ulp_are_told_apart(comparison: str, tie: bool):
    (case,) = parse_vnnlib(DECLARED + BOX + f"(assert ({comparison} Y_0 Y_1))").cases
    above = torch.nextafter(vector(0.1), vector(1)).item()
    outputs = vector(0.1, 0.1, 0.1, above, above, 0.1, 5e-324, 0.0).view(4, 2)
    assert case.violated(outputs).tolist() == [tie, True, False, False]
    assert case.violated(outputs.view(2, 2, 2)).shape == (2, 2)


def test_outputs_that_are_no_numbers_are_no_counterexample():
    (case,) = parse_vnnlib(DECLARED + BOX + "(assert (or (<= Y_0 0) (<= Y_0 Y_1)))").cases
    outputs = torch.tensor([[-math.inf, 0], [math.nan, 0], [-1, math.nan], [-1, math.inf], [-1, 0]])
    assert case.violated(outputs).tolist() == [False, False, False, False, True]


def test_points_of_another_size_are_refused():
    prop = parse_vnnlib(DECLARED + BOX + UNSAFE)
    with pytest.raises(ValueError, match=r"x has 2 numbers and y 2: the property has 1 inputs and 2 outputs"):
        prop.is_counterexample(vector(0, 0), vector(0, 0))
    with pytest.raises(ValueError, match="x has 1 numbers and y 3"):
        prop.is_counterexample(vector(0), vector(0, 0, 0))


# Exact numbers


def test_numbers_are_decimals_not_their_float64_neighbours():
    """0.1 + 0.2 - 0.3 is 5.5e-17 in float64, and times 1e17 decides."""
    (case,) = parse_vnnlib(DECLARED + BOX + "(assert (>= (+ (* 0.1 Y_0) (* 0.2 Y_0) (* -0.3 Y_0)) 1))").cases
    assert case.unsafe[0].rows.tolist() == [[0, 0]]
    assert case.unsafe[0].never
    assert not case.violated(vector(1e17, 0))
    (case,) = parse_vnnlib(DECLARED + BOX + "(assert (<= (+ (* 0.1 Y_0) (* 0.2 Y_0)) (* 0.3 Y_1)))").cases
    assert case.violated(vector(1e17, 1e17))  # a tie
    assert not case.violated(vector(1e17, math.nextafter(1e17, 0)))
    assert not case.violated(vector(-1e17, math.nextafter(-1e17, -math.inf)))


def test_offsets_are_decimals():
    """0.3 is above the float64 number that is nearest to it, and 0.1 below."""
    for text, number, unsafe in (("0.3", 0.3, True), ("0.1", 0.1, False)):
        (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert (<= Y_0 {text}))").cases
        assert bool(case.violated(vector(number, 0))) == unsafe
        (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert (>= Y_0 {text}))").cases
        assert bool(case.violated(vector(number, 0))) != unsafe


@pytest.mark.parametrize(
    ("formula", "outputs"),
    [
        ("(<= (+ (* 0.1 Y_0) (* 0.2 Y_1)) 0.3)", (1, 1)),
        ("(<= (- (* 0.7 Y_0) (* 0.1 Y_1)) 0)", (1, 7)),
        ("(<= (* 1e-400 Y_0) (* 3e-400 Y_1))", (3, 1)),
        ("(<= (* 0.123456789012345678901 Y_0) 0.1)", (0, 0)),
        ("(<= Y_0 0.3)", (0.3, 0)),
        ("(>= Y_0 0.1)", (0.1, 0)),
    ],
)
def test_margins_are_not_positive_where_outputs_are_unsafe(formula: str, outputs: tuple[float, float]):
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert {formula})").cases
    rows, offsets = case.unsafe[0].margins()
    assert bool(case.violated(vector(*outputs)))
    value = sum(Fraction(a) * Fraction(y) for a, y in zip(rows[0].tolist(), outputs, strict=True)) + Fraction(
        offsets.item()
    )
    assert value <= 0
    assert rows.abs().max() > 0.05  # of which something is left in float64


def test_offsets_of_margins_are_rounded_down():
    """-0.3 in float64 is above -0.3, and 0.1 above 0.1."""
    for formula, below in (("(<= Y_0 0.3)", math.nextafter(-0.3, -1)), ("(>= Y_0 0.1)", math.nextafter(0.1, 0))):
        (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert {formula})").cases
        assert case.unsafe[0].margins()[1].item() == below
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert (<= Y_0 0.1))").cases
    assert case.unsafe[0].margins()[1].item() == -0.1


def test_margins_are_exact_multiples_of_decimal_rows():
    (case,) = parse_vnnlib(DECLARED + BOX + "(assert (<= (+ (* 0.1 Y_0) (* 0.3 Y_1)) 0.2))").cases
    rows, offsets = case.unsafe[0].margins()
    factor = Fraction(rows[0, 0].item()) / Fraction(1, 10)
    assert Fraction(rows[0, 1].item()) == factor * Fraction(3, 10)
    assert Fraction(offsets.item()) == -factor * Fraction(2, 10)
    assert Fraction(1, 2) <= factor <= 1
    exact = robustness(vector(0), vector(1), 0, 2).cases[0].unsafe[0]
    assert exact.margins()[0] is exact.rows


def test_what_is_proved_is_about_a_box_around_and_what_is_a_counterexample_about_one_inside():
    """0.1 is below the nearest float64 number, 0.3 above, and 0.5 is one."""
    for text, below, above in (("0.1", math.nextafter(0.1, 0), 0.1), ("0.3", 0.3, math.nextafter(0.3, 1))):
        (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (<= X_0 {text}))(assert (>= X_0 -{text}))").cases
        assert (case.lower.item(), case.upper.item()) == (-float(text), float(text))
        assert [corner.item() for corner in case.around] == [-above, above]
        assert [case.nearest(vector(x)).item() for x in (-1, -below, 0, below, above)] == [
            -below,
            -below,
            0,
            below,
            below,
        ]
        assert [case.includes(vector(x)) for x in (-above, -below, below, above)] == [False, True, True, False]
    (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (< X_0 0.5))(assert (> X_0 -0.5))").cases
    before = math.nextafter(0.5, 0)
    assert [corner.item() for corner in case.around] == [-0.5, 0.5]
    assert [case.nearest(vector(x)).item() for x in (-1, 1)] == [-before, before]
    assert [case.includes(vector(x)) for x in (-0.5, -before, before, 0.5)] == [False, True, True, False]


def test_the_strict_one_of_two_equal_bounds_counts():
    for asserts in ("(assert (<= X_0 0.5))(assert (< X_0 0.5))", "(assert (< X_0 0.5))(assert (<= X_0 0.5))"):
        (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (>= X_0 0)){asserts}").cases
        assert not case.includes(vector(0.5))
    for asserts in ("(assert (>= X_0 0.1))(assert (> X_0 0.1))", "(assert (> X_0 0.5))(assert (>= X_0 0.5))"):
        (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (<= X_0 1)){asserts}").cases
        assert not case.includes(vector(0.5 if "0.5" in asserts else math.nextafter(0.1, 0)))
    # of two bounds with one nearest float64 number the tighter one
    close = ["0.1000000000000000055511151231257827", "0.10000000000000000555111512312578271"]  # on both sides of it
    for first, second in (close, close[::-1]):
        (case,) = parse_vnnlib(
            f"{DECLARED}{UNSAFE}(assert (>= X_0 0))(assert (<= X_0 {first}))(assert (<= X_0 {second}))"
        ).cases
        assert not case.includes(vector(0.1))


def test_an_input_that_no_float64_number_fits_may_be_the_nearest():
    (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (<= X_0 0.1))(assert (>= X_0 0.1))").cases
    assert case.rounded
    assert [corner.item() for corner in case.around] == [math.nextafter(0.1, 0), 0.1]
    assert [case.nearest(vector(x)).item() for x in (0, 1)] == [0.1, 0.1]
    assert case.includes(vector(0.1))
    assert not case.includes(vector(math.nextafter(0.1, 0)))
    (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (<= X_0 0.5))(assert (>= X_0 0.5))").cases
    assert not case.rounded


@pytest.mark.parametrize("bounds", ["(< X_0 0.5) (>= X_0 0.5)", "(<= X_0 0.1) (> X_0 0.1)", "(< X_0 1) (> X_0 1)"])
def test_a_bound_that_excludes_itself_leaves_no_input(bounds: str):
    text = f"{DECLARED}{UNSAFE}" + "".join(f"(assert {bound})" for bound in re.findall(r"\([^()]*\)", bounds))
    (case,) = parse_vnnlib(text).cases
    assert case.empty
    assert not case.includes(case.lower)
    assert not parse_vnnlib(text).is_counterexample(case.lower, vector(0, 1))
    apart = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (or (and {bounds}) (and (<= X_0 9) (>= X_0 8))))")
    assert [(one.lower.item(), one.empty) for one in apart.cases] == [(8, False)]


def test_numbers_of_too_many_digits_are_refused():
    for number in ("1e9999", "1e-9999", "1e-" + "9" * 5000, "1" * 5000, "0." + "1" * 5000):
        with pytest.raises(VnnlibError, match=r"line 6: '.*' has more than 4000 digits"):
            parse_vnnlib(f"{DECLARED}{BOX}(assert (<= Y_0 {number}))")
    with pytest.raises(VnnlibError, match="line 6: a product of numbers has more than 100000 bits"):
        parse_vnnlib(f"{DECLARED}{BOX}(assert (<= Y_0 (* {'1e-4000 ' * 99})))")
    assert parse_vnnlib(f"{DECLARED}{BOX}(assert (<= Y_0 1e-4000))").cases[0].unsafe[0].offsets.item() == 0


def test_bounds_at_the_end_of_double_precision():
    with pytest.raises(VnnlibError, match="line 5: a number is too large"):
        parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (<= X_0 1.79769313486231571e308))")
    text = f"{DECLARED}{UNSAFE}(assert (<= X_0 1.7976931348623157e308))(assert (>= X_0 -1.7976931348623157e308))"
    (case,) = parse_vnnlib(text).cases
    assert torch.isfinite(torch.stack(case.around)).all()
