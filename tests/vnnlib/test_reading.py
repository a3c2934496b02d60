"""VNN-LIB: the meaning of formulas, and the texts that are refused."""

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vnnlib.texts import BOX, DECLARED, UNSAFE, packed, read_box, read_rows, vector

from ctbench.vnnlib import Case, Halfspaces, Property, VnnlibError, parse_vnnlib, read_vnnlib, robustness
from ctbench.vnnlib.reading import MAX_BYTES

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
            prop = parse_vnnlib(header + "".join(f"(assert {as_text(formula)})" for formula in asserted))
        except VnnlibError as error:
            assert "the box is empty" in str(error)  # noqa: PT017 - this is not tested here
            prop = None
        for point in points:
            named = dict(zip(INPUTS + OUTPUTS, point, strict=True))
            expected = all(evaluate(formula, named) for formula in asserted)
            x, y = vector(*map(float, point[:2])), vector(*map(float, point[2:]))
            assert (prop is not None and prop.is_counterexample(x, y)) == expected
            seen[expected] += 1
        seen["cases"] = max(seen["cases"], len(prop.cases) if prop else 0)

    check()
    assert min(seen[True], seen[False]) > 50
    assert seen["cases"] > 3


# What is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text: it is empty"),
        ("; only a comment", "the text: it is empty"),
        (DECLARED + BOX + UNSAFE + ")", r"line 7: there is a '\)' without a '\('"),
        (DECLARED + BOX + "(assert\n(<= Y_0 Y_1)\n", r"line 6: this '\(' has no '\)'"),
        (DECLARED + BOX + UNSAFE + "done", "line 7: 'done' is outside of all parentheses"),
        (DECLARED + BOX + UNSAFE + "(check-sat)", "line 7: 'check-sat' is not supported: expected declare-const, "),
        (DECLARED + BOX + UNSAFE + "()", r"line 7: a '\(' must be followed by a command"),
        (DECLARED + BOX + UNSAFE + "((assert))", r"line 7: a '\(' must be followed by a command"),
        (DECLARED + BOX + UNSAFE + "(assert)", "line 7: 'assert' needs one formula, not 0"),
        (DECLARED + BOX + "(assert (<= Y_0 0) (<= Y_1 0))", "line 6: 'assert' needs one formula, not 2"),
        (DECLARED + BOX + "(assert true)", r"line 6: 'true' is in the place of an expected '\('"),
        (DECLARED + BOX + "(assert (not (<= Y_0 0)))", "line 6: 'not' is not supported: expected and, or, <="),
        (DECLARED + BOX + "(assert (or))", "line 6: 'or' needs one formula or more, not 0"),
        (DECLARED + BOX + "(assert (and))", "line 6: 'and' needs one formula or more, not 0"),
        (DECLARED + BOX + "(assert (<= Y_0))", "line 6: '<=' needs two terms or more, not 1"),
        (DECLARED + BOX + "(assert (!= 0 Y_0 1))", "line 6: '!=' needs two terms, not 3"),
        (DECLARED + BOX + "(assert (<= (% Y_0 2) 1))", "line 6: '%' is not supported in a term"),
        (DECLARED + BOX + "(assert (<= (/ 2 Y_0) 1))", "line 6: a quotient by a variable is not linear"),
        (DECLARED + BOX + "(assert (<= (/ Y_0 (- 1 1)) 1))", "line 6: a quotient by 0 is not a number"),
        (DECLARED + BOX + "(assert (<= (/ Y_0) 1))", "line 6: '/' needs two terms or more, not 1"),
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
        ("a.vnnlib.gz", packed(b" " * (MAX_BYTES + 1)), "a.vnnlib.gz holds more than 256 MiB"),
        ("a.vnnlib", b"\x00\x01", "a.vnnlib is a binary file"),
        ("a.vnnlib", packed(b"(assert)"), "a.vnnlib is a binary file.*gzip under a name that ends in .gz"),
        ("a.vnnlib", b"(assert \xff)", "a.vnnlib is not text"),
        ("a.vnnlib", b"\xff\xfe(assert", "a.vnnlib is not text"),
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
