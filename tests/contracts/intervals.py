"""Intervals and slopes at which lines around a function may go wrong, and how lines are compared with the function."""

import math
import random
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st
from torch import Tensor

from ctbench.graph import Elementwise, Lines

# the cases are lists, which would be shrunk for minutes
RANDOM = partial(settings, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
PRECISIONS = {torch.float64: 1e-12, torch.float32: 2e-6}  # the largest rounding error, relative to the summands
both_precisions = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)

# the kinks, inflections and turning points of the examples, and where they have nearly become lines
PLACES = (
    -40.0,
    -6.0,
    -2.3993572805154675,
    -math.sqrt(2),
    -1.0,
    -0.7517915,
    0.0,
    0.5,
    1.0,
    math.sqrt(2),
    2.4,
    6.0,
    40.0,
)
WIDTHS = (0.0, 5e-324, 1e-300, 1e-40, 1e-12, 1e-7, 1e-3, 1.0, 2.0, 1e8)
SLOPES = (0.0, 1.0, 0.25, 0.5, -0.1, -1.0, 1e-8, -1e-8, 1.12, 2.0)


def around(point: float, width: float, share: float) -> tuple[float, float]:
    """The ends of an interval, of which this share lies to the left of a point."""
    lower = point - share * width
    return lower, max(lower, point + (1 - share) * width)


INTERVALS = st.builds(
    around,
    st.sampled_from(PLACES) | st.floats(-8, 8) | st.floats(-1e6, 1e6),
    st.sampled_from(WIDTHS) | st.floats(0, 8) | st.floats(0, 1e6),
    st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
)
SLOPE = st.sampled_from(SLOPES) | st.floats(-2, 2)
# an interval and two slopes each, and a seed for many more, which are drawn faster
CASES = st.tuples(st.lists(st.tuples(INTERVALS, SLOPE, SLOPE), min_size=1, max_size=3), st.integers(0, 2**32))
SPECIAL = [
    ((low, up), slope, SLOPES[-place - 1])
    for low, up in product((-1e8, *PLACES, 1e8), repeat=2)
    if low <= up
    for place, slope in enumerate(SLOPES[:3])
]


def scattered(seed: int) -> list[tuple[tuple[float, float], float, float]]:
    draw = random.Random(seed)
    points = [draw.choice((*PLACES, *(draw.gauss(0, 10**power) for power in range(-1, 5)))) for _ in range(50)]
    widths = [draw.choice((*WIDTHS, *(10 ** draw.uniform(-9, 5) for _ in range(20)))) for _ in range(50)]
    ends = [
        around(point, width, draw.choice((0, 0.5, 1, draw.random())))
        for point, width in zip(points, widths, strict=True)
    ]
    return [(end, *draw.choices((*SLOPES, draw.gauss(0, 1), draw.uniform(-0.2, 1.2)), k=2)) for end in ends]


def tensors(cases, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower ends, upper ends, and two slopes for each, [N]."""
    chosen = [*cases[0], *scattered(cases[1])]
    lower, upper, low, high = torch.tensor([(*ends, *slopes) for ends, *slopes in chosen], dtype=torch.float64).T
    return lower.to(dtype), upper.to(dtype), low.to(dtype), high.to(dtype)


def grid(lower: Tensor, upper: Tensor) -> Tensor:
    """Points of each interval in ascending order, with both ends, and dense where functions bend, [P, N]."""
    lower, upper = lower.double(), upper.double()
    shares = torch.linspace(0, 1, 201, dtype=torch.float64).unsqueeze(1)
    bends = torch.tensor([*PLACES, *torch.linspace(-12, 12, 193).tolist()], dtype=torch.float64).unsqueeze(1)
    points = torch.cat([lower + shares * (upper - lower), bends.expand(-1, len(lower)), upper[None]])
    return points.clamp(lower, upper).sort(0).values


def least(function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The least value of a function on each interval, by finer and finer grids, and its place."""
    points, shares = grid(lower, upper), torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(1)
    for _ in range(4):
        at = points.gather(0, function(points).argmin(0, keepdim=True))
        begin = torch.where(points < at, points, points[0]).amax(0)
        end = torch.where(points > at, points, points[-1]).amin(0)
        points = torch.cat([begin + shares * (at - begin), at + shares * (end - at)])
    values, at = function(points).min(0)
    return values, points.gather(0, at.unsqueeze(0)).squeeze(0)


def below(line: tuple[Tensor, Tensor | None], points: Tensor, slack: float) -> Tensor:
    """The values of a line at points [P, N], minus the possible rounding error."""
    slope, offset = line[0].double(), torch.zeros(()) if line[1] is None else line[1].double()
    return slope * points + offset - slack * (1 + (slope * points).abs() + offset.abs())


def check_lines(op: Elementwise, lines: Lines, lower: Tensor, upper: Tensor) -> None:
    """The function lies between its lines, where these are finite."""
    points, slack = grid(lower, upper), PRECISIONS[lower.dtype]
    values = op(points)
    assert not (below(lines[:2], points, slack) > values).any()
    assert not (below((-lines.upper_slope, -lines.upper_offset), points, slack) > -values).any()
