"""Polytopes: the bound of the support function against linear programs and exact arithmetic, and projections."""

from fractions import Fraction
from itertools import product

import highspy
import numpy as np
import pytest
import torch
from torch import Tensor

from ctbench.regions import Box, Polytope


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def polytope(seed: int, rows: int, dtype: torch.dtype = torch.float64) -> Polytope:
    """Three polytopes in six coordinates; the centre of each box satisfies the rows."""
    lower = -torch.rand(3, 2, 3, generator=generator(seed), dtype=torch.float64)
    upper = lower + 2 * torch.rand(3, 2, 3, generator=generator(seed + 1), dtype=torch.float64)
    g = torch.randn(3, rows, 6, generator=generator(seed + 2), dtype=torch.float64)
    g[:, :, 2] = 0
    room = 0.2 * torch.rand(3, rows, generator=generator(seed + 3), dtype=torch.float64)
    offsets = -(g @ ((lower + upper) / 2).flatten(1).unsqueeze(2)).squeeze(2) - room
    return Polytope(Box(lower, upper), g, offsets).to(dtype)


def forms(seed: int) -> Tensor:
    return torch.randn(3, 5, 2, 3, generator=generator(seed), dtype=torch.float64)


def least(region: Polytope, a: Tensor, sample: int) -> float:
    """The minimum of a form, from a linear program."""
    program, count = highspy.Highs(), a.numel()
    program.setOptionValue("output_flag", False)
    corners = (region.box.lower[sample].flatten(), region.box.upper[sample].flatten())
    for weight, lower, upper in zip(a.flatten().tolist(), *(corner.tolist() for corner in corners), strict=True):
        program.addCol(weight, lower, upper, 0, np.array([], dtype=np.int32), np.array([]))
    for row, offset in zip(region.rows[sample].numpy(), region.offsets[sample].tolist(), strict=True):
        program.addRow(-highspy.kHighsInf, -offset, count, np.arange(count, dtype=np.int32), row)
    program.run()
    assert program.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return program.getInfo().objective_function_value


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_bound_is_below_the_minimum_and_equals_it_for_one_row(rows: int):
    gaps = []
    for seed in range(8):
        region, a = polytope(seed, rows), forms(seed + 100)
        bound, box = region.minimum(a), region.box.minimum(a)
        exact = torch.tensor([[least(region, a[b, s], b) for s in range(5)] for b in range(3)], dtype=torch.float64)
        assert (bound <= exact + 1e-9).all()
        assert (bound >= box).all()
        gaps.append((exact - bound) / (exact - box).clamp(min=1e-6))
    mean = torch.stack(gaps).mean().item()
    assert mean < (1e-6 if rows == 1 else 0.2), mean


def test_the_bound_holds_in_exact_arithmetic():
    """Numbers of very different sizes: the rounding of a sum in double precision is larger than the gap."""
    for seed in range(20):
        scale = 10.0 ** torch.randint(-8, 9, (1, 1, 4), generator=generator(seed)).double()
        g = torch.randn(1, 1, 4, generator=generator(seed + 1), dtype=torch.float64) / scale
        corner = torch.ones(1, 4, dtype=torch.float64) * scale[0]
        region = Polytope(Box(-corner, corner), g, torch.full((1, 1), -1e-3, dtype=torch.float64))
        a = -3 * g + 1e-9 * torch.randn(1, 1, 4, generator=generator(seed + 2), dtype=torch.float64) / scale
        bound = Fraction(region.minimum(a).item())
        weights, rows = ([Fraction(x) for x in t.flatten().tolist()] for t in (a, g))
        edge = [Fraction(x) for x in corner[0].tolist()]
        # the minimum with one row lies at a corner, or where the row cuts an edge of the box
        points = [[side * x for side, x in zip(sides, edge, strict=True)] for sides in product((-1, 1), repeat=4)]
        for corner_point in list(points):
            for i in range(4):
                rest = sum(rows[j] * corner_point[j] for j in range(4) if j != i) - Fraction(1e-3)
                cut = -rest / rows[i]
                if abs(cut) <= edge[i]:
                    points.append([*corner_point[:i], cut, *corner_point[i + 1 :]])
        inside = [p for p in points if sum(r * x for r, x in zip(rows, p, strict=True)) <= Fraction(1e-3)]
        exact = min(sum(w * x for w, x in zip(weights, p, strict=True)) for p in inside)
        assert bound <= exact
        assert exact - bound <= Fraction(1e-6) * (1 + abs(exact))


def test_a_polytope_without_points_has_a_large_bound():
    box = Box(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    region = Polytope(box, torch.tensor([[[-1.0, -1.0]]]).double(), torch.tensor([[2.5]]).double())  # x + y >= 2.5
    assert (region.minimum(torch.tensor([[[1.0, -4.0], [-100.0, 3.0]]]).double()) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_lie_in_the_polytope(dtype: torch.dtype):
    for seed in range(5):
        region = polytope(seed, 2, dtype)
        x = region.box.center
        far = x + 3 * torch.randn(7, *x.shape, generator=generator(seed), dtype=dtype)
        moved = region.ascend(x.expand(7, *x.shape), torch.randn(7, *x.shape, generator=generator(3), dtype=dtype), 0.7)
        for points in (region.project(far), region.sample(7, generator(1)), region.start(x, 7, generator(2)), moved):
            assert points.dtype == dtype
            assert ((points >= region.box.lower) & (points <= region.box.upper)).all()
            excess = torch.einsum("bmn,kbn->kbm", region.rows, points.flatten(2)) + region.offsets
            assert excess.max() < 1e-3
        torch.testing.assert_close(region.project(x), x)
        taken = region.take(torch.tensor([2, 0]))
        torch.testing.assert_close(
            taken.minimum(forms(1)[[2, 0]].to(dtype)), region.minimum(forms(1).to(dtype))[[2, 0]]
        )


def test_a_projection_onto_one_row_by_hand():
    box = Box(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    region = Polytope(box, torch.tensor([[[1.0, 1.0]]]).double(), torch.tensor([[-1.0]]).double())  # x + y <= 1
    point = region.project(torch.tensor([[0.9, 0.7]]).double())
    torch.testing.assert_close(point, torch.tensor([[0.6, 0.4]]).double())


def test_shapes_are_checked():
    box = Box(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"rows are \[1, 1, 3\] and offsets \[1, 1\] for 1 boxes of 2 numbers"):
        Polytope(box, torch.zeros(1, 1, 3), torch.zeros(1, 1))
