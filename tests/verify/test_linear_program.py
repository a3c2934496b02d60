"""Safe bounds of linear programs: never above the exact value of the formula, and so never above a point's cost."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbench.verify.highs import Solver
from ctbench.verify.linear_program import LinearProgram

NUMBER = st.integers(-(2**53), 2**53).map(lambda number: number * 2.0**-52)  # of 53 bits, so that products are rounded
SCALE = st.integers(-30, 30).map(lambda power: 10.0**power)


def program(columns: int, matrix: list[list[float]], lower: list[float], upper: list[float]) -> LinearProgram:
    """A program with columns in [0, 1]."""
    dense = np.array(matrix, dtype=np.float64).reshape(len(lower), columns)
    row, column = dense.nonzero()
    return LinearProgram(np.ones(columns), np.array(lower), np.array(upper), row, column, dense[row, column])


def exact_bound(linear: LinearProgram, cost: np.ndarray, y: np.ndarray, width: np.ndarray) -> Fraction:
    """The formula in rationals; where it needs a side that is infinite, with 0 in place of the multiplier."""
    sides = [low if each > 0 else high for low, high, each in zip(linear.lower, linear.upper, y, strict=True)]
    y = [Fraction(each) if math.isfinite(side) else Fraction(0) for each, side in zip(y, sides, strict=True)]
    total = sum((a * Fraction(side) for a, side in zip(y, sides, strict=True) if a), Fraction(0))
    reduced = [Fraction(each) for each in cost]
    for i, j, value in zip(linear.row, linear.column, linear.value, strict=True):
        reduced[j] -= Fraction(value) * y[i]
    return total + sum(min(Fraction(0), d) * Fraction(w) for d, w in zip(reduced, width, strict=True))


@st.composite
def programs(draw) -> tuple[LinearProgram, np.ndarray, list[Fraction]]:
    """A program with its cost, and a point of it."""
    columns, rows = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    entries = st.lists(NUMBER, min_size=columns, max_size=columns)
    matrix = [[value * draw(SCALE) for value in draw(entries)] for _ in range(rows)]
    width = np.array([abs(draw(NUMBER)) * draw(SCALE) for _ in range(columns)])
    point = [Fraction(each) * Fraction(draw(st.integers(0, 8)), 8) for each in width]
    lower, upper = [], []
    for row in matrix:
        value = sum((Fraction(a) * x for a, x in zip(row, point, strict=True)), Fraction(0))
        sides = [math.nextafter(float(value), end) if value else 0.0 for end in (-math.inf, math.inf)]
        open_side = draw(st.sampled_from([None, None, 0, 1]))
        lower.append(-math.inf if open_side == 0 else sides[0])
        upper.append(math.inf if open_side == 1 else sides[1])
    cost = np.array([value * draw(SCALE) for value in draw(entries)])
    return replace(program(columns, matrix, lower, upper), width=width), cost, point


def multipliers(data: st.DataObject, linear: LinearProgram) -> np.ndarray:
    return np.array([data.draw(NUMBER) * data.draw(SCALE) for _ in linear.lower], dtype=np.float64)


@given(programs(), st.data())
@settings(max_examples=60, deadline=None)
def test_for_any_multipliers_the_bound_is_below_the_exact_one_and_all_points(case, data):
    linear, cost, point = case
    y = multipliers(data, linear)
    exact = exact_bound(linear, cost, y, linear.width)
    bound = linear.safe_bound(cost, y, linear.width)
    assert Fraction(bound) <= exact
    assert exact <= sum(Fraction(c) * x for c, x in zip(cost, point, strict=True))
    size = sum(abs(y) @ np.where(np.isfinite(side), abs(side), 0) for side in (linear.lower, linear.upper))
    size += abs(cost) @ linear.width + abs(y)[linear.row] @ (abs(linear.value) * linear.width[linear.column])
    assert exact - Fraction(bound) <= Fraction(1e-13) * Fraction(size) + Fraction(1e-290)


@pytest.mark.parametrize("part", ["sides", "entries"])
def test_each_rounding_counts(part):
    """Numbers of 53 bits, so that every product and sum is rounded: half of the time upward. Large terms cancel."""
    generator = np.random.default_rng(0)
    signs = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    for _ in range(200):
        numbers = [signs[i] * generator.uniform(0.5, 1.0, 6) for i in range(6)]
        matrix = [row if part == "entries" else 0 * row for row in numbers]
        side = signs * generator.uniform(0.5, 1.0, 6) if part == "sides" else np.zeros(6)
        linear = replace(program(6, matrix, list(side), list(side)), width=generator.uniform(0.5, 1.0, 6))
        y, cost = generator.uniform(0.5, 1.0, 6), np.zeros(6)
        assert Fraction(linear.safe_bound(cost, y, linear.width)) <= exact_bound(linear, cost, y, linear.width)


def test_multipliers_take_the_side_of_their_sign():
    linear = program(1, [[1.0]], [0.25], [0.75])
    one, width = np.ones(1), np.ones(1)
    assert linear.safe_bound(one, np.array([1.0]), width) == pytest.approx(0.25)
    assert linear.safe_bound(-one, np.array([-1.0]), width) == pytest.approx(-0.75)
    assert linear.safe_bound(-one, np.array([1.0]), width) == pytest.approx(-1.75)
    assert linear.safe_bound(-one, np.array([0.0]), np.array([0.5])) == pytest.approx(-0.5)
    half = replace(linear, lower=np.array([-math.inf]))
    assert half.safe_bound(one, np.array([1.0]), width) == pytest.approx(0.0)


def test_multipliers_that_are_not_numbers_prove_nothing():
    linear = program(2, [[1.0, 1.0]], [0.5], [1.0])
    for y in ([math.nan], [math.inf], [], [1.0, 1.0]):
        assert linear.safe_bound(np.ones(2), np.array(y), np.ones(2)) == -math.inf
    large = replace(linear, value=np.array([1e200, 1e200]))
    assert large.safe_bound(np.ones(2), np.array([1e200]), np.ones(2)) == -math.inf


@pytest.mark.parametrize("ray", [[1.0, -1.0], [-1.0, 1.0], [2.0, -1.9]])
def test_a_ray_proves_that_a_program_is_empty_in_either_sign(ray):
    empty = program(2, [[1.0, 1.0], [1.0, 1.0]], [1.5, -math.inf], [math.inf, 1.0])
    assert empty.is_empty(np.array(ray), np.ones(2))


@pytest.mark.parametrize("ray", [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [math.nan, 1.0], []])
def test_a_wrong_ray_proves_nothing(ray):
    empty = program(2, [[1.0, 1.0], [1.0, 1.0]], [1.5, -math.inf], [math.inf, 1.0])
    assert not empty.is_empty(np.array(ray), np.ones(2))


@given(programs(), st.data())
@settings(max_examples=60, deadline=None)
def test_no_ray_proves_that_a_program_with_a_point_is_empty(case, data):
    linear, _, _ = case
    assert not linear.is_empty(multipliers(data, linear), linear.width)


@given(programs())
@settings(max_examples=60, deadline=None)
def test_scaling_by_powers_of_two_changes_nothing(case):
    linear, _, _ = case
    scaled, scale = linear.scaled()
    assert bool((np.frexp(scale)[0] == 0.5).all())
    assert [Fraction(w) * Fraction(s) for w, s in zip(scaled.width, scale, strict=True)] == [
        Fraction(w) for w in linear.width
    ]
    assert bool(((scaled.width == 0) | (scaled.width >= 0.5) & (scaled.width < 1)).all())
    factors: dict[int, Fraction] = {}
    for i, j, before, after in zip(linear.row, linear.column, linear.value, scaled.value, strict=True):
        if before:
            factors.setdefault(i, Fraction(after) / Fraction(before) / Fraction(scale[j]))
            assert Fraction(after) == Fraction(before) * Fraction(scale[j]) * factors[i]
    for i, factor in factors.items():
        assert 0.5 <= abs(scaled.value[scaled.row == i]).max() < 1
        for before, after in ((linear.lower[i], scaled.lower[i]), (linear.upper[i], scaled.upper[i])):
            assert before == after if math.isinf(before) else Fraction(after) == Fraction(before) * factor


def test_what_underflows_widens_its_row():
    linear = program(2, [[1e200, 1e-200]], [0.0], [0.0])
    scaled, _ = replace(linear, width=np.array([1e100, 1e-100])).scaled()
    assert scaled.value.tolist()[1] == 0
    assert scaled.lower[0] < 0 < scaled.upper[0]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_a_number_is_an_error(wrong):
    linear = program(1, [[1.0]], [0.0], [1.0])
    for name in ("value", "width"):
        with pytest.raises(ValueError, match="NaN or infinite"):
            replace(linear, **{name: np.array([wrong])}).scaled()
    with pytest.raises(ValueError, match="NaN or infinite"):
        replace(linear, lower=np.array([math.nan])).scaled()


def test_the_solver_gives_multipliers_a_ray_and_a_basis():
    linear = program(2, [[1.0, 1.0]], [1.5], [2.0])
    solver, cost = Solver(linear, np.array([2.0, 1.0])), np.array([2.0, 1.0])
    found = solver.solve(np.ones(2), 10.0)
    assert found.x == pytest.approx([0.5, 1.0])
    assert linear.safe_bound(cost, found.y, np.ones(2)) == pytest.approx(2.0)
    assert found.ray is None
    less = np.array([0.25, 1.0])
    empty = solver.solve(less, 10.0, found.basis)
    assert linear.is_empty(empty.ray, less)
    again = solver.solve(np.ones(2), 10.0, found.basis)
    assert again.x == pytest.approx([0.5, 1.0])
