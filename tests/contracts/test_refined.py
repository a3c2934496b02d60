"""Bounds of a value from those of other values: means of rows, and normalised vectors."""

from fractions import Fraction
from itertools import product

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ctbench
from ctbench.domains import domain, interval
from ctbench.graph import Graph, freeze, trace
from ctbench.graph.ops import MeanOfRows, Normalised
from ctbench.networks import LayerNormMLP, ViT
from ctbench.regions import Box, Linf

both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])


def ends(*shape: int, scale: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    center, radius = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return center - radius.abs(), center + radius.abs()


def weights(count: int, rows: int, size: int) -> Tensor:
    """Rows that are >= 0 and sum to 1, some of them with a single entry, [count, rows, size]."""
    generator = torch.Generator().manual_seed(count)
    scores = torch.randn(count, rows, size, generator=generator, dtype=torch.float64)
    return torch.cat([scores.softmax(-1), (9 * scores).softmax(-1), torch.eye(size).double()[:rows].unsqueeze(0)])


@both
def test_a_mean_of_rows_lies_in_its_bounds_and_between_the_rows(dtype):
    points = weights(30, 3, 4)
    least, greatest = points.amin(0) * 0.9, points[:20].amax(0)
    values = ends(4, 5, scale=2.0, seed=1)
    low, high = MeanOfRows().around((least.to(dtype), greatest.to(dtype)), tuple(end.to(dtype) for end in values))
    assert low.dtype == dtype
    assert (high <= values[1].amax(0) + 1e-5).all()
    assert (low >= values[0].amin(0) - 1e-5).all()
    inside = points[((points >= least) & (points <= greatest)).flatten(1).all(1)]
    assert len(inside) > 10
    assert (high >= (inside @ values[1]).amax(0) - 1e-5).all()
    assert (low <= (inside @ values[0]).amin(0) + 1e-5).all()


def test_a_mean_of_rows_with_known_weights_is_exact():
    points, values = weights(4, 3, 4), ends(4, 5, scale=2.0, seed=2)
    low, high = MeanOfRows().around((points, points), values)
    torch.testing.assert_close(low, points @ values[0])
    torch.testing.assert_close(high, points @ values[1])


def test_equal_rows_are_not_mixed_to_anything_else():
    row = ends(1, 5, scale=2.0, seed=3)
    anything = torch.zeros(2, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
    low, high = MeanOfRows().around(anything, tuple(end.expand(4, -1) for end in row))
    torch.testing.assert_close(low, row[0].expand(2, -1))
    torch.testing.assert_close(high, row[1].expand(2, -1))


@both
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6])
def test_bounds_of_a_normalised_vector_are_attained_at_corners(dtype, scale):
    """Each entry grows with itself and is monotone in the squares of the others: so corners, and 0, are extreme."""
    eps, box = 1e-5, ends(40, 3, scale=scale, seed=4)
    low, high = Normalised(eps).around(tuple(end.to(dtype) for end in box))
    zero = torch.minimum(torch.maximum(box[0], torch.zeros(())), box[1])
    choices = (box[0], zero, box[1])
    picks = product(range(3), repeat=3)
    corners = torch.stack([torch.stack([choices[k][:, i] for i, k in enumerate(pick)], 1) for pick in picks])
    reached = corners * (corners.square().mean(-1, keepdim=True) + eps).rsqrt()
    close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(low.double(), reached.amin(0), **close)
    torch.testing.assert_close(high.double(), reached.amax(0), **close)


def test_bounds_are_wrong_by_no_more_than_their_terms():
    """Sums of very different sizes, in exact arithmetic."""
    unit = Fraction(2) ** -53
    for seed in range(20):
        scale = 10.0 ** torch.linspace(-12, 12, 4, dtype=torch.float64)
        values = tuple(end * scale for end in ends(4, 4, scale=1.0, seed=seed))
        share = weights(1, 1, 4)[:1]
        _, high = MeanOfRows().around((share, share), values)
        terms, size = MeanOfRows().terms(share, torch.maximum(*(end.abs() for end in values)))
        exact = [
            sum(Fraction(p) * Fraction(v) for p, v in zip(share[0, 0].tolist(), column, strict=True))
            + (1 - sum(map(Fraction, share[0, 0].tolist()))) * max(map(Fraction, column))
            for column in values[1].T.tolist()
        ]
        for found, least, bound in zip(high[0, 0].tolist(), exact, size[0, 0].tolist(), strict=True):
            assert Fraction(found) >= least - (terms + 16) * unit * Fraction(bound)


def test_normalised_vectors_are_wrong_by_no_more_than_their_terms():
    op = Normalised(1e-5)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-8, 1.0, 1e8):
        d = scale * 10 ** (4 * torch.randn(30, 6, generator=generator, dtype=torch.float64))
        low, high = op.around((d, d))
        terms, size = op.terms(d)
        with mpmath.workdps(40):
            for row, below, above, most in zip(*(each.tolist() for each in (d, low, high, size)), strict=True):
                length = mpmath.sqrt(sum(mpmath.mpf(z) ** 2 for z in row) / 6 + mpmath.mpf(op.eps))
                for z, a, b, m in zip(row, below, above, most, strict=True):
                    allowed = (terms + 16) * 2.0**-53 * m
                    assert a - allowed <= z / length <= b + allowed


# ----------------------------------------------------------------------------------------------------- networks


def vit() -> nn.Module:
    return ViT(patch=2, width=4, heads=2, depth=2, hidden=4).build((1, 4, 4), 3)


def layer_norm() -> nn.Module:
    return LayerNormMLP(hidden=(12, 12)).build((1, 4, 4), 3)


def graph_of(make, dtype: torch.dtype, weight: float) -> tuple[Graph, Tensor]:
    torch.manual_seed(0)
    model = make().to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= weight
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64).to(dtype)
    return freeze(trace(model, (1, 4, 4)), x)[0].detach(), x


@both
@pytest.mark.parametrize("make", [vit, layer_norm])
@pytest.mark.parametrize("weight", [1.0, 100.0])
@pytest.mark.parametrize("eps", [0.05, 1.0])
def test_intervals_are_finite_however_large_a_box_is(make, dtype, weight, eps):
    graph, x = graph_of(make, dtype, weight)
    region = Linf(eps=eps).region(x)
    for outward in (False, True)[: 2 if dtype == torch.float64 else 1]:
        for box in interval.boxes(graph.rounded_outward(outward), region):
            assert box.lower.isfinite().all()
            assert box.upper.isfinite().all()


def test_bounds_of_an_untrained_transformer_are_finite_in_every_domain():
    graph, x = graph_of(vit, torch.float64, 1.0)
    region, spec = Linf(eps=0.2).region(x), torch.eye(3, dtype=torch.float64).expand(2, -1, -1)
    pure = {"pure": True}
    for name, options in (("interval", {}), ("zonotope", {}), ("crown-ibp", {}), ("crown", pure)):
        bound = domain(name, **options).lower_bounds(graph.rounded_outward(), region, spec)
        assert bound.isfinite().all(), (name, options)


def test_a_dropout_between_softmax_and_product_changes_no_bound():
    class Mixed(nn.Module):
        def __init__(self, rate: float | None) -> None:
            super().__init__()
            self.dropout = nn.Identity() if rate is None else nn.Dropout(rate)

        def forward(self, x: Tensor) -> Tensor:
            return (self.dropout((3 * x).softmax(-1)) @ x).flatten(1)

    x = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [ctbench.bounds(Mixed(rate).eval(), x, eps=0.2, domain="interval") for rate in (None, 0.5)]
    assert torch.equal(found[0].lower, found[1].lower)
    box = Linf(eps=0.2).region(x)
    assert (found[0].upper.view(1, 4, 4) <= box.upper.amax(1, keepdim=True) + 1e-9).all()
    assert any(isinstance(node.op, MeanOfRows) for node in trace(Mixed(0.5), (4, 4)).nodes)


def test_weights_that_do_not_sum_to_one_mix_nothing():
    """The rows of a softmax over another axis have other sums."""

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(1) @ x

    class Right(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(2) @ x

    kinds = [[type(node.op) for node in trace(model(), (3, 3)).nodes] for model in (Wrong, Right)]
    assert MeanOfRows not in kinds[0]
    assert MeanOfRows in kinds[1]


def test_a_box_of_one_point_is_the_point():
    graph, x = graph_of(vit, torch.float64, 1.0)
    for box, value in zip(interval.boxes(graph, Box(x, x))[-1:], [graph(x)], strict=True):
        torch.testing.assert_close(box.center, value)
        assert (box.radius < 1e-9).all()


def test_rows_that_are_not_weights_are_no_means():
    """Halves of rows of a softmax do not sum to 1; a query that sees no key has the output 0."""

    class Halved(nn.Module):
        def forward(self, x):
            return torch.softmax(x, -1).reshape(-1, 8, 2) @ x.reshape(-1, 2, 8)

    class Blind(nn.Module):
        def forward(self, x):
            seen = torch.tensor([[True] * 4] * 3 + [[False] * 4])
            return F.scaled_dot_product_attention(x, x, x, attn_mask=seen)

    for model in (Halved(), Blind()):
        assert not any(isinstance(node.op, MeanOfRows) for node in trace(model, (4, 4)).nodes)
