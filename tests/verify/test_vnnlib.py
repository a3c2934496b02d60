"""VNN-LIB: what is read is what the formula means, what is written is read back, and what is wrong is said where."""

import gzip
import math
import os
import re
from collections import Counter
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctbench.verify.vnnlib import (
    MAX_BYTES,
    Case,
    Halfspaces,
    Property,
    VnnlibError,
    parse_vnnlib,
    read_vnnlib,
    robustness,
    write_property,
    write_robustness,
)

DECLARED = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 -1))\n(assert (<= X_0 1.0))\n"
UNSAFE = "(assert (<= Y_0 Y_1))\n"  # on line 6


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # without the time, so that every process collects the same tests


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def read_rows(formula: str) -> list[tuple[list[list[float]], list[float]]]:
    """The alternatives over Y_0, Y_1 of an assert, as A and b."""
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert {formula})").cases
    return [(alternative.rows.tolist(), alternative.offsets.tolist()) for alternative in case.unsafe]


def read_box(asserts: str) -> tuple[float, float]:
    (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}{asserts}").cases
    return case.lower.item(), case.upper.item()


# What formulas mean


@pytest.mark.parametrize(
    ("formula", "row", "offset"),
    [
        ("(<= Y_0 Y_1)", [1, -1], 0),
        ("(>= Y_0 Y_1)", [-1, 1], 0),
        ("(< Y_0 Y_1)", [1, -1], 0),
        ("(> Y_0 Y_1)", [-1, 1], 0),
        ("(<= Y_0 1.5)", [1, 0], -1.5),
        ("(<= 1.5 Y_0)", [-1, 0], 1.5),
        ("(>= Y_1 -2e-1)", [0, -1], -0.2),
        ("(>= Y_1 (- 2))", [0, -1], -2),
        ("(<= (+ Y_0 Y_1 3) 4)", [1, 1], -1),
        ("(<= (- Y_0 Y_1 3) 4)", [1, -1], -7),
        ("(<= (* 2.0 Y_0) (* Y_1 -0.5))", [2, 0.5], 0),
        ("(<= (* 2 (- (+ Y_0 1) (* 3 Y_1)) 0.5) 0)", [1, -3], 1),
        ("(<= (- (- Y_0)) (- (+ Y_1 .5)))", [1, 1], 0.5),
        ("(<= (* 2 3) Y_0)", [-1, 0], 6),
        ("(<= Y_0 Y_0)", [0, 0], 0),
        ("(<= 1 +2)", [0, 0], -1),
    ],
)
def test_a_comparison_is_a_row(formula: str, row: list[float], offset: float):
    assert read_rows(formula) == [([row], [offset])]


@pytest.mark.parametrize(
    ("asserts", "expected"),
    [
        ("(assert (>= X_0 -0.25)) (assert (<= X_0 .5))", (-0.25, 0.5)),
        ("(assert (<= X_0 0.5)) (assert (>= X_0 (- 0.25)))", (-0.25, 0.5)),
        ("(assert (and (<= -0.25 X_0) (>= 0.5 X_0)))", (-0.25, 0.5)),
        ("(assert (> X_0 -0.25)) (assert (< X_0 0.5))", (-0.25, 0.5)),
        ("(assert (<= (* -2 X_0) 0.5)) (assert (<= (+ X_0 1) 1.5))", (-0.25, 0.5)),
        ("(assert (and (<= X_0 2) (<= X_0 1) (<= X_0 3) (>= X_0 -3) (>= X_0 -1) (>= X_0 -2)))", (-1, 1)),
        ("(assert (>= X_0 0.1)) (assert (<= X_0 0.1))", (0.1, 0.1)),
        ("(assert (>= X_0 0.123456789012345678)) (assert (<= X_0 1e3))", (0.123456789012345678, 1000)),
    ],
)
def test_inputs_have_their_tightest_bounds(asserts: str, expected: tuple[float, float]):
    assert read_box(asserts) == expected


def test_and_and_or_make_the_disjunctive_normal_form():
    formula = "(or (and (<= Y_0 1) (or (<= Y_0 2) (and (<= Y_0 3) (<= Y_1 4)))) (<= Y_1 5))"
    assert read_rows(formula) == [
        ([[1, 0], [1, 0]], [-1, -2]),
        ([[1, 0], [1, 0], [0, 1]], [-1, -3, -4]),
        ([[0, 1]], [-5]),
    ]


def test_asserts_conjoin():
    asserts = "(assert (or (<= Y_0 1) (<= Y_0 2))) (assert (<= Y_1 3)) (assert (or (<= Y_1 4) (<= Y_1 5)))"
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}{asserts}").cases
    offsets = [sorted(alternative.offsets.tolist()) for alternative in case.unsafe]
    assert sorted(offsets) == [[-5, -3, -2], [-5, -3, -1], [-4, -3, -2], [-4, -3, -1]]


def test_alternatives_with_one_box_are_one_case():
    boxes = ["(and (>= X_0 0) (<= X_0 1))", "(and (>= X_0 2) (<= X_0 3))", "(and (<= X_0 1.0) (<= X_0 7) (>= X_0 0))"]
    apart = " ".join(f"(and {box} (<= Y_0 {k}))" for k, box in enumerate(boxes))
    first, second = parse_vnnlib(f"{DECLARED}(assert (or {apart}))").cases
    assert (first.lower.tolist(), first.upper.tolist()) == ([0], [1])
    assert [alternative.offsets.tolist() for alternative in first.unsafe] == [[0], [-2]]
    assert (second.lower.tolist(), second.upper.tolist()) == ([2], [3])
    assert [alternative.offsets.tolist() for alternative in second.unsafe] == [[-1]]


def test_input_boxes_and_output_alternatives_multiply():
    asserts = "(assert (or (and (>= X_0 0) (<= X_0 1)) (<= X_0 -0.5))) (assert (or (<= Y_0 1) (<= Y_1 2) (<= Y_1 3)))"
    cases = parse_vnnlib(f"{DECLARED}{BOX}{asserts}").cases
    assert [(case.lower.item(), case.upper.item()) for case in cases] == [(0, 1), (-1, -0.5)]
    assert [len(case.unsafe) for case in cases] == [3, 3]


def test_an_alternative_that_no_input_satisfies_is_left_out():
    asserts = "(assert (or (<= X_0 0) (<= X_0 0.5))) (assert (or (>= X_0 0.25) (>= X_0 0)))"
    cases = parse_vnnlib(f"{DECLARED}{BOX}{UNSAFE}{asserts}").cases
    assert [(case.lower.item(), case.upper.item()) for case in cases] == [(0, 0), (0.25, 0.5), (0, 0.5)]


def test_layout_comments_and_order_do_not_matter():
    plain = parse_vnnlib(DECLARED + BOX + UNSAFE)
    lines = (DECLARED + BOX + UNSAFE).splitlines()
    lines = [line.replace("(assert", "( assert\n\t").replace(")", " ) ;)\n") for line in reversed(lines)]
    odd = "\r\n;(assert (; ((\r\n".join(lines)
    assert parse_vnnlib(odd) == plain


# Formulas of the test's own: as trees, which are written as text and evaluated directly

NUMBERS = st.integers(-8, 8).map(lambda eighths: Fraction(eighths, 8))
SIDES = st.sampled_from(["<=", ">=", "<", ">"])
INPUTS, OUTPUTS = ["X_0", "X_1"], ["Y_0", "Y_1", "Y_2"]


def nodes(operators: list[str], operands: st.SearchStrategy, most: int) -> st.SearchStrategy:
    return st.tuples(st.sampled_from(operators), st.lists(operands, min_size=1, max_size=most)).map(
        lambda node: (node[0], *node[1])
    )


def terms() -> st.SearchStrategy:
    leaves = NUMBERS | st.sampled_from(OUTPUTS)
    return st.recursive(
        leaves,
        lambda inner: nodes(["+", "-"], inner, 3) | st.tuples(st.just("*"), NUMBERS, inner),
        max_leaves=4,
    )


def bounds() -> st.SearchStrategy:
    name = st.sampled_from(INPUTS)
    scaled = st.tuples(st.just("*"), st.sampled_from([Fraction(-2), Fraction(1, 4)]), name)
    shifted = st.tuples(st.sampled_from(["+", "-"]), NUMBERS, name)
    sides = st.tuples(name | scaled | shifted, NUMBERS)
    return st.tuples(SIDES, sides | sides.map(lambda pair: pair[::-1])).map(lambda node: (node[0], *node[1]))


def formulas() -> st.SearchStrategy:
    comparisons = st.tuples(SIDES, terms(), terms()) | bounds()
    return st.recursive(comparisons, lambda inner: nodes(["and", "or"], inner, 3), max_leaves=8)


def as_text(node: Any) -> str:
    if isinstance(node, Fraction):
        return f"(- {float(-node)})" if node < 0 and node.denominator == 4 else repr(float(node))
    return node if isinstance(node, str) else f"({node[0]} {' '.join(map(as_text, node[1:]))})"


def evaluate(node: Any, point: dict[str, Fraction]) -> Any:
    if isinstance(node, Fraction):
        return node
    if isinstance(node, str):
        return point[node]
    values = [evaluate(part, point) for part in node[1:]]
    match node[0]:
        case "and":
            return all(values)
        case "or":
            return any(values)
        case "+":
            return sum(values)
        case "-":
            return values[0] - sum(values[1:]) if len(values) > 1 else -values[0]
        case "*":
            return math.prod(values)
        case "<":
            return values[0] < values[1]
        case "<=":
            return values[0] <= values[1]
        case ">":
            return values[0] > values[1]
        case _:
            return values[0] >= values[1]


def test_a_counterexample_is_a_point_that_satisfies_the_formula():
    seen: Counter[object] = Counter()
    limits = [(side, name, limit) for name in INPUTS for side, limit in ((">=", Fraction(-1)), ("<=", Fraction(1)))]
    header = "".join(f"(declare-const {name} Real)" for name in INPUTS + OUTPUTS)
    coordinates = st.integers(-9, 9).map(lambda eighths: Fraction(eighths, 8))
    points = st.lists(st.tuples(*[coordinates] * 5), min_size=8, max_size=8)

    @settings(deadline=None, derandomize=True, max_examples=120)
    @given(st.lists(formulas(), min_size=1, max_size=3), st.tuples(SIDES, terms(), terms()), points)
    def check(asserted: list[Any], on_outputs: Any, points: list[tuple[Fraction, ...]]) -> None:
        asserted = [*limits, *asserted, on_outputs]
        try:
            found = parse_vnnlib(header + "".join(f"(assert {as_text(formula)})" for formula in asserted))
        except VnnlibError as error:
            assert "the box is empty" in str(error)  # noqa: PT017 - not what is tested here
            found = None
        for point in points:
            named = dict(zip(INPUTS + OUTPUTS, point, strict=True))
            expected = all(evaluate(formula, named) for formula in asserted)
            x, y = vector(*map(float, point[:2])), vector(*map(float, point[2:]))
            assert (found is not None and found.is_counterexample(x, y)) == expected
            seen[expected] += 1
        seen["cases"] = max(seen["cases"], len(found.cases) if found else 0)

    check()
    assert min(seen[True], seen[False]) > 50
    assert seen["cases"] > 3


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
    found = [[prop.is_counterexample(vector(x), vector(*y)) for y in ((-1, 1), (1, -1))] for x in (0.5, 2.5)]
    assert found == [[True, False], [False, True]]


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
        with pytest.raises(VnnlibError, match=r"line 6: '.*' is a number of more than 4000 digits"):
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


# What is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text: it is empty"),
        ("; only a comment", "the text: it is empty"),
        (DECLARED + BOX + UNSAFE + ")", r"line 7: a '\)' closes nothing"),
        (DECLARED + BOX + "(assert\n(<= Y_0 Y_1)\n", r"line 6: this '\(' is never closed"),
        (DECLARED + BOX + UNSAFE + "done", "line 7: 'done' stands outside of all parentheses"),
        (DECLARED + BOX + UNSAFE + "(check-sat)", "line 7: 'check-sat' is not supported: expected declare-const or"),
        (DECLARED + BOX + UNSAFE + "()", r"line 7: a '\(' must be followed by a command"),
        (DECLARED + BOX + UNSAFE + "((assert))", r"line 7: a '\(' must be followed by a command"),
        (DECLARED + BOX + UNSAFE + "(assert)", "line 7: 'assert' needs one formula, not 0"),
        (DECLARED + BOX + "(assert (<= Y_0 0) (<= Y_1 0))", "line 6: 'assert' needs one formula, not 2"),
        (DECLARED + BOX + "(assert true)", r"line 6: 'true' stands where a '\(' was expected"),
        (DECLARED + BOX + "(assert (not (<= Y_0 0)))", "line 6: 'not' is not supported: expected and, or, <="),
        (DECLARED + BOX + "(assert (= Y_0 0))", "line 6: '=' is not supported"),
        (DECLARED + BOX + "(assert (or))", "line 6: 'or' needs one formula or more, not 0"),
        (DECLARED + BOX + "(assert (and))", "line 6: 'and' needs one formula or more, not 0"),
        (DECLARED + BOX + "(assert (<= Y_0))", "line 6: '<=' needs two terms, not 1"),
        (DECLARED + BOX + "(assert (<= 0 Y_0 1))", "line 6: '<=' needs two terms, not 3"),
        (DECLARED + BOX + "(assert (<= (/ Y_0 2) 1))", "line 6: '/' is not supported in a term"),
        (DECLARED + BOX + "(assert (<= (+) 1))", r"line 6: '\+' needs one term or more, not 0"),
        (DECLARED + BOX + "(assert\n(<= (* Y_0\nY_1) 1))", "line 7: a product of variables is not linear"),
        (DECLARED + BOX + "(assert (<= Y_2 Y_1))", "line 6: 'Y_2' is neither a declared variable nor a number"),
        (DECLARED + BOX + "(assert (<= Y_0 1.2.3))", "line 6: '1.2.3' is neither"),
        (DECLARED + BOX + "(assert (<= Y_0 nan))", "line 6: 'nan' is neither"),
        (DECLARED + BOX + "(assert (<= Y_0 -inf))", "line 6: '-inf' is neither"),
        (DECLARED + BOX + "(assert (<= Y_0 1_000))", "line 6: '1_000' is neither"),
        (DECLARED + BOX + "(assert (<= Y_0 " + "z" * 99 + "))", "line 6: 'z{40}...' is neither"),
        (DECLARED + BOX + "(assert (<= Y_0 1e999))", "line 6: a number is too large"),
        (DECLARED + BOX + "(assert (<= (* 1e200 1e200 Y_0) 0))", "line 6: a number is too large"),
        (DECLARED + UNSAFE + "(assert (<= (* 1e-300 X_0) 1e300))", "line 5: a number is too large"),
        (DECLARED + "(declare-const Y_1 Real)", "line 4: Y_1 is declared twice"),
        (DECLARED + "(declare-const Y_2 Int)", "line 4: Y_2 is declared as 'Int': expected Real"),
        (DECLARED + "(declare-const Z_0 Real)", "line 4: a variable is called 'Z_0': names are X_0"),
        (DECLARED + "(declare-const Y_02 Real)", "line 4: a variable is called 'Y_02'"),
        (DECLARED + f"(declare-const X_{'9' * 5000} Real)", "line 4: a variable is called 'X_9+...'"),
        (DECLARED + "(declare-const Y_2)", "line 4: 'declare-const' needs a name and a type, not 1"),
        (DECLARED + "(declare-const Y_2 (Real))", "line 4: 'declare-const' needs a name and a type"),
        (DECLARED + "(declare-const X_2 Real)", "the text: X_1 is not declared: X must be numbered 0, 1, 2"),
        (DECLARED + "(declare-const Y_3 Real)", "the text: Y_2 is not declared"),
        ("(declare-const X_0 Real)", "the text: Y_0 is not declared"),
        ("(declare-const Y_0 Real)", "the text: X_0 is not declared"),
        (DECLARED, "nothing is asserted about the outputs"),
        (DECLARED + BOX, "nothing is asserted about the outputs"),
        (DECLARED + BOX + "(assert (or (<= Y_0 0) (<= X_0 0)))", "nothing .* or not in every alternative of an or"),
        (DECLARED + UNSAFE, "X_0 has no lower bound"),
        (DECLARED + UNSAFE + "(assert (>= X_0 0))", "X_0 has no upper bound"),
        (DECLARED + UNSAFE + "(assert (<= X_0 0))", "X_0 has no lower bound"),
        (DECLARED + UNSAFE + "(assert (>= X_0 0))(assert (or (<= X_0 1) (<= 2 X_0)))", "X_0 has no upper bound"),
        (DECLARED + BOX + UNSAFE + "(assert (>= X_0 2))", "the box is empty: X_0 >= 2.0 and X_0 <= 1.0"),
        (DECLARED + BOX + UNSAFE + "(assert (or (>= X_0 2) (<= X_0 -2)))", "the box is empty: X_0 >= 2.0"),
        (
            "(declare-const X_1 Real)\n" + DECLARED + BOX + "(assert\n (<= X_0 X_1))",
            "line 8: only box constraints on inputs are supported: X_0 and X_1",
        ),
        (DECLARED + BOX + "(assert (<= (+ X_0 Y_1) 0))", "line 6: only box constraints on inputs .*: X_0 and Y_1"),
        (DECLARED + BOX + "(assert (or (<= Y_0 0)\n(>= Y_0 X_0)))", "line 7: only box constraints on inputs"),
    ],
)
def test_what_is_no_property_of_boxes_is_refused(text: str, message: str):
    with pytest.raises(VnnlibError, match=message):
        parse_vnnlib(text)


def test_too_many_alternatives_are_refused():
    either = "(or (<= Y_0 0) (<= Y_1 0))"  # 2^16 of them are allowed
    with pytest.raises(VnnlibError, match=f"the text: the formula has {2**64} alternatives .*: at most 100000"):
        parse_vnnlib(DECLARED + BOX + f"(assert {either})\n" * 64)
    many = f"(and {either * 16})"
    with pytest.raises(VnnlibError, match=f"line 6: the formula has {2**17} alternatives"):
        parse_vnnlib(f"{DECLARED}{BOX}(assert (and {either} {many}))")
    with pytest.raises(VnnlibError, match=f"line 6: the formula has {2**17} alternatives"):
        parse_vnnlib(f"{DECLARED}{BOX}(assert (or {many} {many}))")


def test_too_many_numbers_are_refused():
    declared = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(2000))
    boxes = "(and (<= X_0 0.5) (<= Y_0 0))" * 13_000
    with pytest.raises(VnnlibError, match=f"boxes and rows would be {2 * 2000 * 13_000 + 13_000} numbers: at most"):
        parse_vnnlib(f"{declared}(declare-const Y_0 Real)(assert (or {boxes}))")


def test_deep_nesting_is_refused_and_what_is_allowed_is_read():
    def nested(depth: int) -> str:
        return f"{DECLARED}{BOX}(assert {'(and ' * depth}(<= Y_0 Y_1){')' * depth})"

    assert parse_vnnlib(nested(298)) == parse_vnnlib(nested(0))
    with pytest.raises(VnnlibError, match="line 6: parentheses are nested more than 300 deep"):
        parse_vnnlib(nested(299))
    with pytest.raises(VnnlibError, match="nested"):
        parse_vnnlib("(" * 100_000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.vnnlib", b"", "a.vnnlib: it is empty"),
        ("a.vnnlib.gz", b"(assert)", "a.vnnlib.gz is not a complete gzip file"),
        ("a.vnnlib.gz", packed(b"(assert)" * 99)[:-9], "a.vnnlib.gz is not a complete gzip file"),
        ("a.vnnlib.gz", packed(b"(assert)" * 99)[:12] + b"\xff" * 40, "a.vnnlib.gz is not a complete gzip file"),
        ("a.vnnlib.gz", packed(b"(assert)"), "a.vnnlib.gz, line 1: 'assert' needs one formula"),
        ("a.vnnlib.gz", packed(b" " * (MAX_BYTES + 1)), "a.vnnlib.gz holds more than 64 MiB"),
        ("a.vnnlib", b"\x00\x01", "a.vnnlib is a binary file"),
        ("a.vnnlib", packed(b"(assert)"), "a.vnnlib is a binary file.*gzip under a name that ends in .gz"),
        ("a.vnnlib", b"\xff\xfe(assert)", "a.vnnlib is not text"),
    ],
)
def test_files_that_are_not_vnnlib_are_refused(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VnnlibError, match=message):
        read_vnnlib(tmp_path / name)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_vnnlib(tmp_path / "none.vnnlib")


ROW = Halfspaces(torch.eye(2, dtype=torch.float64), vector(0, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Halfspaces(vector(1, 2), vector(0)), r"rows are \[2\] and offsets \[1\]"),
        (lambda: Halfspaces(torch.zeros(0, 2).double(), vector()), r"rows are \[0, 2\]"),
        (lambda: Halfspaces(torch.eye(2).double(), vector(0)), r"rows are \[2, 2\] and offsets \[1\]"),
        (lambda: Halfspaces(torch.eye(1), vector(0)), "finite, and in float64"),
        (lambda: Halfspaces(torch.eye(1).double(), vector(math.inf)), "finite, and in float64"),
        (lambda: Halfspaces(ROW.rows, ROW.offsets, torch.tensor([True])), r"strict is torch\.bool \[1\]: give a bool"),
        (lambda: Halfspaces(ROW.rows, ROW.offsets, ROW.offsets), r"strict is torch\.float64 \[2\]: give a bool"),
        (lambda: Case(vector(0, 0), vector(1), (ROW,)), r"lower is \[2\], upper \[1\]"),
        (lambda: Case(vector(0, 2), vector(1, 1), (ROW,)), "the box is empty: lower > upper at input 1"),
        (lambda: Case(vector(math.nan), vector(1), (ROW,)), "finite, and in float64"),
        (lambda: Case(vector(0), vector(1), ()), "unsafe has no alternatives"),
        (lambda: Property(1, 2, ()), "at least one case"),
        (lambda: Property(2, 2, (Case(vector(0), vector(1), (ROW,)),)), "a case has 1 inputs"),
        (lambda: Property(1, 3, (Case(vector(0), vector(1), (ROW,)),)), r"rows of \[2\] outputs"),
        (lambda: robustness(vector(0), vector(1), 0, 1), "two classes or more"),
        (lambda: robustness(vector(0), vector(1), 3, 3), "label 3 of sample 0 is out of range"),
        (lambda: robustness(vector(1), vector(0), 0, 3), "the box is empty"),
    ],
)
def test_properties_that_make_no_sense_are_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


# Writing


def test_robustness_as_it_is_written(tmp_path: Path):
    write_robustness(tmp_path / "a.vnnlib", torch.tensor([[0.0], [1e-7]]), torch.tensor([[0.5], [1.0]]), y=1, classes=3)
    assert (tmp_path / "a.vnnlib").read_text().splitlines() == [
        *(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2")),
        "(assert (>= X_0 0.0))",
        "(assert (<= X_0 0.5))",
        "(assert (>= X_1 0.00000010000000116860974))",  # 1e-7 in single precision, kept exactly
        "(assert (<= X_1 1.0))",
        "(assert (or",
        "  (and (>= Y_0 Y_1))",
        "  (and (>= Y_2 Y_1))",
        "))",
    ]


@pytest.mark.parametrize("name", ["a.vnnlib", "a.vnnlib.gz"])
def test_robustness_at_the_size_of_tiny_imagenet(tmp_path: Path, name: str):
    center = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    lower, upper = (center - 1 / 255).clamp(0, 1), (center + 1 / 255).clamp(0, 1)
    (tmp_path / name).write_text("an old file")
    write_robustness(tmp_path / name, lower, upper, y=17, classes=200)
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert ((tmp_path / name).read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    found = read_vnnlib(tmp_path / name)
    assert found == robustness(lower, upper, 17, 200)
    (case,) = found.cases
    assert torch.equal(case.lower.float().view_as(lower), lower)
    assert torch.equal(case.upper.float().view_as(upper), upper)
    assert len(case.unsafe) == 199
    logits = torch.randn(64, 200, generator=torch.Generator().manual_seed(1))
    logits[::2, 17] = 9.0
    assert torch.equal(case.violated(logits), logits.argmax(1) != 17)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_strict_bounds_and_rows_are_written_as_such(tmp_path: Path):
    text = DECLARED + "(assert (< X_0 0.5))(assert (>= X_0 -0.5))(assert (or (< Y_0 Y_1) (<= Y_0 -1) (> Y_1 0.5)))"
    write_property(tmp_path / "a.vnnlib", parse_vnnlib(text))
    assert (tmp_path / "a.vnnlib").read_text().splitlines()[3:] == [
        "(assert (>= X_0 -0.5))",
        "(assert (< X_0 0.5))",
        "(assert (or",
        "  (and (> Y_1 Y_0))",
        "  (and (<= Y_0 -1.0))",
        "  (and (< (* -1.0 Y_1) -0.5))",
        "))",
    ]
    again = read_vnnlib(tmp_path / "a.vnnlib")
    assert again == parse_vnnlib(text)
    assert not again.cases[0].includes(vector(0.5))


@st.composite
def properties(draw: st.DrawFn) -> Property:
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pairs = st.lists(st.tuples(FINITE, FINITE).map(sorted), min_size=inputs, max_size=inputs)
    coefficients = st.lists(FINITE | st.sampled_from([0.0, 1.0, -1.0]), min_size=outputs, max_size=outputs)
    rows = st.lists(st.tuples(coefficients, FINITE | st.just(0.0)), min_size=1, max_size=3)

    def halfspaces(found: list[tuple[list[float], float]]) -> Halfspaces:
        matrix = torch.tensor([row for row, _ in found], dtype=torch.float64)
        return Halfspaces(matrix, vector(*(offset for _, offset in found)))

    # two cases with the same box would be read as one
    boxes = draw(st.lists(pairs, min_size=1, max_size=3, unique_by=lambda box: tuple(map(tuple, box))))
    unsafe = st.lists(rows.map(halfspaces), min_size=1, max_size=3).map(tuple)
    cases = [Case(vector(*(p[0] for p in box)), vector(*(p[1] for p in box)), draw(unsafe)) for box in boxes]
    return Property(inputs, outputs, tuple(cases))


def test_a_property_is_read_back_as_it_was_written(tmp_path: Path):
    seen: Counter[int] = Counter()

    @settings(deadline=None, derandomize=True, max_examples=80)
    @given(properties(), st.sampled_from(["a.vnnlib", "a.vnnlib.gz"]))
    def check(prop: Property, name: str) -> None:
        write_property(tmp_path / name, prop)
        assert read_vnnlib(tmp_path / name) == prop
        seen[len(prop.cases)] += 1

    check()
    assert min(seen[1], seen[2], seen[3]) > 10


def test_equality_sees_every_part():
    prop = robustness(vector(0, 0), vector(1, 1), 0, 3)
    (case,) = prop.cases
    (first, second), moved = case.unsafe, vector(0, 0.5)
    strict = Halfspaces(second.rows, second.offsets, torch.tensor([True]))
    others = [
        Property(2, 3, (Case(moved, case.upper, case.unsafe),)),
        Property(2, 3, (Case(case.lower, case.upper + moved, case.unsafe),)),
        Property(2, 3, (Case(case.lower, case.upper, (second, first)),)),
        Property(2, 3, (Case(case.lower, case.upper, (first,)),)),
        Property(2, 3, (Case(case.lower, case.upper, (first, Halfspaces(second.rows, vector(1)))),)),
        Property(2, 3, (Case(case.lower, case.upper, (first, Halfspaces(second.rows * 2, second.offsets))),)),
        Property(2, 3, (case, case)),
        Property(2, 3, (Case(case.lower, case.upper, (first, strict)),)),
    ]
    assert prop == robustness(vector(0, 0), vector(1, 1), 0, 3)
    assert all(other != prop for other in others)
    assert case != first
    assert first != case


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.vnnlib"
    write_robustness(path, vector(0), vector(1), 0, 2)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_robustness(path, vector(0), vector(2), 0, 2)
    assert path.read_bytes() == before


# Published files

IN_PIXELS = ("mnistfc", "colt", "eran", "kw", "sdp")  # the others count in units of the network's normalisation


@pytest.fixture(scope="module")
def published() -> dict[str, tuple[Property, str]]:
    """Properties of VNN-COMP files, two of each network, looked for in the folder vnncomp beside CTBENCH_DATA; with
    their first line."""
    if not os.environ.get("CTBENCH_DATA"):
        pytest.skip("CTBENCH_DATA is not set: no vnncomp beside it")
    folder = Path(os.environ["CTBENCH_DATA"]).parent / "vnncomp" / "vnnlib"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    networks = groupby(sorted(folder.glob("*.vnnlib.gz")), key=lambda path: path.name.split("__")[0])
    paths = [path for _, group in networks for path in list(group)[:2]]
    return {path.name: (read_vnnlib(path), first_line(path)) for path in paths}


def first_line(path: Path) -> str:
    with gzip.open(path, "rt") as file:
        return file.readline()


def test_published_files_are_robustness_of_ten_classes(published: dict[str, tuple[Property, str]]):
    labels = 0
    assert len(published) == 22
    for name, (prop, about) in published.items():
        (case,) = prop.cases
        assert (prop.inputs, prop.outputs) == (784 if "mnist" in name else 3072, 10)
        rows = torch.cat([alternative.rows for alternative in case.unsafe])
        assert rows.shape == (9, 10)
        winner = int(rows.sum(0).argmax())
        assert prop == robustness(case.lower, case.upper, winner, 10)
        if label := re.search(r"label:? (\d)", about):
            assert winner == int(label[1])
            labels += 1
    assert labels > 8


def test_published_boxes_are_as_wide_as_their_names_say(published: dict[str, tuple[Property, str]]):
    wide = {name: prop.cases[0] for name, (prop, _) in published.items() if name.startswith(IN_PIXELS)}
    assert len(wide) > 10
    for name, case in wide.items():
        found = re.search(r"_(?:eps)?(0\.\d+)\.vnnlib", name)
        assert found, name
        eps, rounding = float(found[1]), 1.1e-5  # names have five digits
        width, free = case.upper - case.lower, (case.lower > 0) & (case.upper < 1)
        assert free.any()
        assert (width[free] - 2 * eps).abs().max() < rounding
        assert ((width > eps - rounding) & (width < 2 * eps + rounding)).all()
        assert case.lower.min() >= 0
        assert case.upper.max() <= 1
