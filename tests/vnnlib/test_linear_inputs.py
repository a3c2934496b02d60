"""VNN-LIB: equalities, chains, quotients, declare-fun, linear constraints on inputs, and rows of inputs and outputs."""

import codecs
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tests.vnnlib.texts import BOX, DECLARED, UNSAFE, read_box, read_rows, vector

from ctbench.vnnlib import VnnlibError, parse_vnnlib, read_vnnlib, write_property

PAIR = "(declare-const X_1 Real)" + DECLARED + BOX + "(assert (>= X_1 -1))(assert (<= X_1 1))"


@pytest.mark.parametrize(
    ("formula", "rows"),
    [
        ("(= Y_0 Y_1)", [([[1, -1], [-1, 1]], [0, 0])]),
        ("(== Y_0 2)", [([[1, 0], [-1, 0]], [-2, 2])]),
        ("(<= 0 Y_0 1)", [([[-1, 0], [1, 0]], [0, -1])]),
        ("(> 3 Y_0 Y_1 0)", [([[1, 0], [-1, 1], [0, -1]], [-3, 0, 0])]),
        ("(!= Y_0 1)", [([[1, 0]], [-1]), ([[-1, 0]], [1])]),
        ("(distinct Y_0 1)", [([[1, 0]], [-1]), ([[-1, 0]], [1])]),
        ("(<= Y_0 (/ 1 4))", [([[1, 0]], [-0.25])]),
        ("(<= (/ Y_0 2 2) (/ (- 3) 4))", [([[0.25, 0]], [0.75])]),
    ],
)
def test_comparisons_that_stand_for_several(formula: str, rows: list[object]):
    assert read_rows(formula) == rows


def test_equal_and_chained_bounds_of_inputs():
    assert read_box("(assert (= X_0 0.5))") == (0.5, 0.5)
    assert read_box("(assert (<= -0.25 X_0 (/ 1 2)))") == (-0.25, 0.5)
    (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}(assert (<= 0 X_0 (/ 1 3)))").cases
    assert case.includes(vector(1 / 3))  # the nearest float64 number is below 1/3
    assert not case.includes(torch.nextafter(vector(1 / 3), vector(1)))


def test_quotients_are_exact():
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert (>= (- (* 3 (/ Y_0 3)) Y_0) 0))").cases
    assert case.unsafe[0].comparisons[0].coefficients == ()
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert (<= Y_0 (/ 1 3)))").cases
    assert case.unsafe[0].comparisons[0].offset == Fraction(-1, 3)


def test_declare_fun_without_arguments_declares_a_constant():
    text = DECLARED.replace("(declare-const Y_1 Real)", "(declare-fun Y_1 () Real)")
    assert "declare-fun" in text
    assert parse_vnnlib(text + BOX + UNSAFE) == parse_vnnlib(DECLARED + BOX + UNSAFE)
    with pytest.raises(VnnlibError, match=r"'declare-fun' needs a name, \(\) and a type"):
        parse_vnnlib(text.replace("()", "(Real)") + BOX + UNSAFE)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_byte_order_marks(tmp_path: Path, mark: bytes, encoding: str):
    text = DECLARED + BOX + UNSAFE
    (tmp_path / "a.vnnlib").write_bytes(mark + text.encode(encoding))
    assert read_vnnlib(tmp_path / "a.vnnlib") == parse_vnnlib(text)


def test_rows_over_inputs_are_constraints_of_the_case(tmp_path: Path):
    prop = parse_vnnlib(PAIR + UNSAFE + "(assert (<= (+ X_0 (* 2 X_1)) 0.5))(assert (< X_1 X_0))")
    (case,) = prop.cases
    assert case.constraints.rows.tolist() == [[1, 2], [-1, 1]]
    assert case.constraints.offsets.tolist() == [-0.5, 0]
    assert [row.strict for row in case.constraints.comparisons] == [False, True]
    lost = vector(0, 1)
    for x, expected in (((0.5, 0.0), True), ((0.5, 0.25), False), ((0.0, 0.0), False), ((1.0, -0.25), True)):
        assert case.includes(vector(*x)) == expected
        assert prop.is_counterexample(vector(*x), lost) == expected
    assert case.includes(vector(0.5 + 1e-9, 0), tolerance=1e-8)
    assert not case.includes(vector(0.5 + 1e-6, 0), tolerance=1e-8)
    write_property(tmp_path / "a.vnnlib", prop)
    assert read_vnnlib(tmp_path / "a.vnnlib") == prop


def test_cases_differ_by_their_constraints():
    either = "(assert (or (and (<= X_0 X_1) (<= Y_0 0)) (and (<= X_1 X_0) (<= Y_1 0)) (and (<= X_0 X_1) (<= Y_1 5))))"
    first, second = parse_vnnlib(PAIR + either).cases
    assert [case.constraints.rows.tolist() for case in (first, second)] == [[[1, -1]], [[-1, 1]]]
    assert [len(case.unsafe) for case in (first, second)] == [2, 1]


def test_rows_of_inputs_and_outputs(tmp_path: Path):
    prop = parse_vnnlib(PAIR + "(assert (or (<= Y_1 (+ X_1 0.5)) (<= Y_0 0)))")
    (case,) = prop.cases
    assert case.unsafe[0].rows.tolist() == [[0, 1, 0, -1]]
    assert case.unsafe[1].rows.tolist() == [[1, 0]]
    assert prop.is_counterexample(vector(0, 0.5), vector(1, 1))
    assert not prop.is_counterexample(vector(0, 0.25), vector(1, 1))
    with pytest.raises(ValueError, match="a row is about inputs and outputs: give both"):
        case.violated(vector(1, 1))
    write_property(tmp_path / "a.vnnlib", prop)
    assert read_vnnlib(tmp_path / "a.vnnlib") == prop


def test_rows_give_bounds_to_inputs_that_have_none():
    text = "(declare-const X_1 Real)" + DECLARED + UNSAFE + "(assert (>= X_0 0))(assert (>= X_1 0.5))"
    (case,) = parse_vnnlib(text + "(assert (<= (+ X_0 (* 2 X_1)) 2))").cases
    assert (case.lower.tolist(), case.upper.tolist()) == ([0, 0.5], [1, 1])
    with pytest.raises(VnnlibError, match="X_0 has no upper bound"):
        parse_vnnlib(text + "(assert (<= X_1 X_0))")


def test_the_rows_of_a_region_contain_the_exact_points():
    """0.1 is not a float64 number, so float64 rows with the nearest coefficients could cut off exact points."""
    prop = parse_vnnlib(
        PAIR + UNSAFE + "(assert (<= (+ (* 0.1 X_0) (* 0.3 X_1)) 0.4))(assert (<= (* 0.7 X_0) (* 0.1 X_1)))"
    )
    (case,) = prop.cases
    rows, offsets = case.constraints.around(*case.around)
    for row, low, exact in zip(rows.tolist(), offsets.tolist(), case.constraints.comparisons, strict=True):
        for x in ((1, 1), (-1, 1), (1, -1), (Fraction(1, 7), 1), (-1, -1)):
            value = sum((weight * Fraction(x[i]) for i, weight in exact.coefficients), exact.offset)
            near = sum(Fraction(weight) * Fraction(x[i]) for i, weight in enumerate(row)) + Fraction(low)
            assert value - Fraction(1, 2**50) <= near <= value


def test_points_are_repaired_exactly():
    for formula in (
        "(<= (+ (* 0.1 X_0) (* 0.3 X_1)) 0.2)",
        "(= (+ X_0 X_1) 0.75)",
        "(< (* 3 X_0) X_1)",
        "(= X_0 (* 2 X_1))",
    ):
        (case,) = parse_vnnlib(PAIR + UNSAFE + f"(assert {formula})").cases
        region = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        row = case.constraints.rows[0]
        excess = (region @ row + case.constraints.offsets[0]).unsqueeze(1)
        near = region - excess * row / row.square().sum()
        near = near[(near.abs() <= 1).all(1)]  # on the edge of the row, up to rounding
        moved, satisfied = case.constrained(near)
        assert len(near) > 10
        assert satisfied.all(), formula
        assert (moved - near).abs().max() < 1e-6
        assert all(case.includes(point) for point in moved[satisfied])
