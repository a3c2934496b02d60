"""The rules for every region, against definitions of the sets that are repeated here."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kinds import ours
from torch import Tensor

from ctbench.regions import L1, L2, FirstCoordinate, Linf, RandomSegments, Region, Segments, Threat, threats

DIRECTIONS = torch.tensor([[[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]], [[1.0, 1.0, 0.0], [0.0, 0.5, 0.0]]]).double()
THREATS: dict[str, Threat] = {
    "linf": Linf(eps=0.3),
    "linf unclipped": Linf(eps=0.3, clip=None),
    "l2 small": L2(eps=0.05),
    "l2": L2(eps=0.6),
    "l2 wide": L2(eps=1.3),
    "l2 all": L2(eps=20.0),
    "l2 unclipped": L2(eps=0.6, clip=None),
    "l2 other range": L2(eps=0.9, clip=(-0.1, 1.7)),
    "l1 small": L1(eps=0.05),
    "l1": L1(eps=0.8),
    "l1 wide": L1(eps=2.5),
    "l1 all": L1(eps=20.0),
    "l1 unclipped": L1(eps=0.8, clip=None),
    "l1 other range": L1(eps=1.5, clip=(-0.1, 1.7)),
    "one segment": Segments(eps=0.4, directions=DIRECTIONS[:1]),
    "segments": Segments(eps=0.4, directions=DIRECTIONS),
    "random segments": RandomSegments(eps=0.4, count=4),
    "first coordinate": FirstCoordinate(eps=0.4),
}
CONVEX = [name for name in THREATS if "segments" not in name]
every_threat = pytest.mark.parametrize("name", THREATS)
every_precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
many_seeds = given(seed=st.integers(0, 10**6))
quick = settings(deadline=None, derandomize=True, max_examples=10)
quicker = settings(quick, max_examples=3)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Three inputs [3, 2, 3] in [0, 1], about half of the coordinates at 0 or 1."""
    return (2 * torch.rand(3, 2, 3, generator=generator(seed), dtype=torch.float64) - 0.5).clamp(0, 1).to(dtype)


def forms(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 7, 2, 3, generator=generator(seed + 1), dtype=torch.float64).to(dtype)


def value(a: Tensor, points: Tensor) -> Tensor:
    """<a, x'> of S forms at N points, [N, B, S]."""
    return torch.einsum("bsij,nbij->nbs", a, points)


def belongs(threat: Threat, x: Tensor, points: Tensor) -> Tensor:
    """Whether the points lie in the region around x, computed in double precision; one rounding is forgiven."""
    ulp = torch.finfo(x.dtype).eps
    points, x = points.double(), x.double()
    move = (points - x).flatten(-2)
    inside = torch.ones_like(move[..., 0], dtype=torch.bool)
    if threat.clip is not None:
        low, high = (torch.tensor(edge).double() for edge in threat.clip)
        inside &= ((points >= low - ulp * low.abs()) & (points <= high + ulp * high.abs())).flatten(-2).all(-1)
    if isinstance(threat, Linf):
        return inside & (move.abs().amax(-1) <= threat.eps + 2 * ulp)
    if isinstance(threat, L2 | L1):  # here not even one of single precision
        length = move.square().sum(-1).sqrt() if isinstance(threat, L2) else move.abs().sum(-1)
        return inside & (length <= threat.eps * (1 + 1e-15))
    directions = threat.region(x).directions.flatten(1)
    shares = (move @ directions.T) / directions.square().sum(1)  # [..., B, k]
    off = (move.unsqueeze(-2) - shares.unsqueeze(-1) * directions).norm(dim=-1)
    return inside & ((off <= 16 * ulp) & (shares.abs() <= threat.eps + 4 * ulp)).any(-1)


def spread(threat: Threat, x: Tensor, seed: int) -> dict[str, Tensor]:
    """Points that a region returns from all its methods, for inputs near, far and far outside."""
    region = threat.region(x)
    outside = [
        x + scale * torch.randn(9, *x.shape, generator=generator(seed + 2), dtype=torch.float64).to(x.dtype)
        for scale in (1e-3, 0.3, 3.0, 1e5)
    ]
    gradient = torch.randn(9, *x.shape, generator=generator(seed + 3), dtype=torch.float64).to(x.dtype)
    started = region.start(x, 9, generator(seed))
    return {
        "sampled": region.sample(50, generator(seed)),
        "started": started,
        "projected": torch.cat([region.project(points) for points in outside]),
        "ascended": torch.cat([region.ascend(started, gradient, step) for step in (0.1, 1.0, 5.0)]),
    }


def farthest(region: Region, x: Tensor, a: Tensor) -> Tensor:
    """The least values of the forms, found by the projection of a point far out along -a, [B, S]."""
    points = x.expand(a.shape[1], *x.shape)
    for _ in range(3):
        points = region.project(points - 1e6 * a.transpose(0, 1))
    return torch.einsum("bsij,sbij->bs", a, points)


def test_every_threat_model_is_tested():
    assert {threat.name for threat in THREATS.values()} == set(ours(threats()))


@every_threat
@every_precision
@quick
@many_seeds
def test_every_point_lies_in_the_region(name, dtype, seed):
    x = inputs(seed, dtype)
    for way, points in spread(THREATS[name], x, seed).items():
        assert points.dtype == dtype
        assert belongs(THREATS[name], x, points).all(), way


@every_threat
def test_points_have_their_shapes_and_follow_the_generator(name):
    x = inputs(0)
    region = THREATS[name].region(x)
    assert region.sample(5).shape == region.start(x, 5).shape == (5, *x.shape)
    assert region.project(x).shape == region.ascend(x, x, 0.1).shape == x.shape
    for make in (region.sample, lambda *args: region.start(x, *args)):
        assert torch.equal(make(4, generator(3)), make(4, generator(3)))
        assert not torch.equal(make(4, generator(3)), make(4, generator(4)))


@every_threat
@quick
@many_seeds
def test_no_point_lies_below_the_minimum_and_one_attains_it(name, seed):
    x, a = inputs(seed), forms(seed)
    region = THREATS[name].region(x)
    least = region.minimum(a)
    assert least.shape == (3, 7)
    for points in spread(THREATS[name], x, seed).values():
        assert (value(a, points) >= least - 1e-12).all()
    torch.testing.assert_close(farthest(region, x, a), least, rtol=0, atol=1e-6)


@every_threat
@quick
@many_seeds
def test_points_of_the_region_are_their_own_projection(name, seed):
    x = inputs(seed)
    region = THREATS[name].region(x)
    for points in spread(THREATS[name], x, seed).values():
        # no digit changes, except for the share of a segment, which is computed again
        torch.testing.assert_close(region.project(points), points, rtol=0, atol=1e-14 if "segment" in name else 0)
    assert torch.equal(region.project(x), x)


@pytest.mark.parametrize("name", CONVEX)
@quick
@many_seeds
def test_projection_gives_the_nearest_point(name, seed):
    # z is nearest to x' in a convex set exactly if no point p of it has <x' - z, p> above <x' - z, z>
    x = inputs(seed)
    region = THREATS[name].region(x)
    for scale in (0.1, 1.0, 10.0):
        outside = x + scale * torch.randn(x.shape, generator=generator(seed + 5), dtype=torch.float64)
        nearest = region.project(outside)
        normal = outside - nearest
        most = -region.minimum(-normal.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close((normal * nearest).sum((1, 2)), most, rtol=0, atol=1e-12 * (1 + scale**2))


@pytest.mark.parametrize("name", [name for name in THREATS if name not in CONVEX])
@quick
@many_seeds
def test_projection_gives_the_nearest_point_of_all_segments(name, seed):
    x = inputs(seed)
    region = THREATS[name].region(x)
    outside = x + torch.randn(x.shape, generator=generator(seed + 5), dtype=torch.float64)
    shares = torch.linspace(-0.4, 0.4, 801, dtype=torch.float64)
    grid = x + torch.einsum("n,kij->nkij", shares, region.directions).flatten(0, 1).unsqueeze(1)
    distance = (outside - grid).flatten(2).norm(dim=2).amin(0)
    distances = (outside - region.project(outside)).flatten(1).norm(dim=1)
    assert (distances <= distance + 1e-12).all()
    torch.testing.assert_close(distances, distance, rtol=0, atol=5e-3)


@every_threat
@quick
@many_seeds
def test_the_hull_is_the_smallest_box(name, seed):
    x, a = inputs(seed), forms(seed)
    region = THREATS[name].region(x)
    unit = torch.eye(6, dtype=torch.float64).view(1, 6, 2, 3).expand(3, -1, -1, -1)
    torch.testing.assert_close(region.hull.lower, region.minimum(unit).view(3, 2, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(region.hull.upper, -region.minimum(-unit).view(3, 2, 3), rtol=0, atol=1e-12)
    assert (region.hull.minimum(a) <= region.minimum(a) + 1e-12).all()
    assert region.hull.lower.shape == region.hull.upper.shape == x.shape


@every_threat
@every_precision
def test_a_radius_of_zero_leaves_the_input_alone(name, dtype):
    threat = THREATS[name].__class__(**{**vars(THREATS[name]), "eps": 0.0})
    x, a = inputs(1, dtype), forms(1, dtype)
    region = threat.region(x)
    torch.testing.assert_close(region.minimum(a), value(a, x.unsqueeze(0))[0])
    for points in spread(threat, x, 1).values():
        assert torch.equal(points, x.expand_as(points))


@every_threat
@every_precision
@pytest.mark.parametrize("eps", [0.0, 1e-30, None])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_minimum_and_gradients_are_finite(name, dtype, eps, scale):
    threat = THREATS[name]
    if eps is not None:
        threat = threat.__class__(**{**vars(threat), "eps": eps})
    if dtype == torch.float32 and scale == 1e30 and threat.name == "l2" and threat.clip is None:
        scale = 1e18  # the square of a coefficient must be a number
    a, x = (scale * forms(2, dtype)).requires_grad_(), inputs(2, dtype).requires_grad_()
    least = threat.region(x).minimum(a)
    assert least.isfinite().all()
    for gradient in torch.autograd.grad(least.sum(), (a, x)):
        assert gradient.isfinite().all()


@every_threat
@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_the_minimum(name, seed):
    # away from the kinks, which lie where a coordinate meets the edge of the data range
    x = inputs(seed).clamp(0.05, 0.95) + 0.01 * torch.rand(3, 2, 3, generator=generator(seed), dtype=torch.float64)
    threat, a = THREATS[name], forms(seed)
    assert torch.autograd.gradcheck(
        lambda a, x: threat.region(x).minimum(a), (a.requires_grad_(), x.requires_grad_()), atol=1e-5, eps=1e-7
    )


@every_threat
def test_a_batch_is_its_samples(name):
    x, a = inputs(4), forms(4)
    region = THREATS[name].region(x)
    outside = x + torch.randn(5, *x.shape, generator=generator(9), dtype=torch.float64)
    for i in range(len(x)):
        alone, one = THREATS[name].region(x[i : i + 1]), slice(i, i + 1)
        torch.testing.assert_close(alone.minimum(a[one]), region.minimum(a)[one], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(alone.project(outside[:, one]), region.project(outside)[:, one], rtol=0, atol=1e-13)
        ascended = region.ascend(x, a[:, 0], 0.3)[one]
        torch.testing.assert_close(alone.ascend(x[one], a[one, 0], 0.3), ascended, rtol=0, atol=1e-13)


@every_threat
def test_each_point_may_take_a_step_of_its_own(name):
    x, gradient = inputs(4), forms(4)[:, 0]
    region = THREATS[name].region(x)
    points = region.sample(2, generator(5))
    steps = torch.tensor([[0.1, 0.5, 2.0], [1.0, 0.05, 0.3]], dtype=torch.float64)
    moved = region.ascend(points, gradient.expand_as(points), steps.view(2, len(x), *[1] * (x.dim() - 1)))
    for which, i in itertools.product(range(2), range(len(x))):
        alone = region.take(torch.tensor([i])).ascend(
            points[which, i : i + 1], gradient[i : i + 1], steps[which, i].item()
        )
        torch.testing.assert_close(moved[which, i : i + 1], alone, rtol=0, atol=1e-13)


@every_threat
def test_an_empty_batch(name):
    x = torch.rand(0, 2, 3)
    region = THREATS[name].region(x)
    assert region.minimum(torch.rand(0, 4, 2, 3)).shape == (0, 4)
    assert region.sample(5).shape == (5, 0, 2, 3)
    assert region.project(x).shape == region.ascend(x, x, 1.0).shape == region.hull.lower.shape == x.shape


@every_threat
def test_single_precision_agrees_with_double(name):
    x, a = inputs(5, torch.float32), forms(5, torch.float32)
    region, exact = THREATS[name].region(x), THREATS[name].region(x.double())
    assert region.minimum(a).dtype == torch.float32
    torch.testing.assert_close(region.minimum(a).double(), exact.minimum(a.double()), rtol=1e-5, atol=1e-5)
    other = region.to(torch.float64)
    assert type(other) is type(region)
    assert other.sample(1).dtype == other.hull.lower.dtype == torch.float64
    torch.testing.assert_close(other.minimum(a.double()), exact.minimum(a.double()), rtol=1e-6, atol=1e-6)


@every_threat
@quicker
@many_seeds
def test_steps_of_ascent_reach_the_greatest_value(name, seed):
    x, a = inputs(seed), forms(seed)[:, :1]
    region = THREATS[name].region(x)
    points, step = x, 0.5
    for _ in range(500):
        points, step = region.ascend(points, a.squeeze(1), step), step * 0.99
    reached, most = value(a, points.unsqueeze(0))[0], -region.minimum(-a)
    assert (reached <= most + 1e-12).all()
    gain = most - value(a, x.unsqueeze(0))[0]
    assert (reached >= most - 0.05 * gain).all()


@every_threat
def test_without_a_gradient_a_step_stays(name):
    x = inputs(6)
    region = THREATS[name].region(x)
    points = region.sample(4, generator(0))
    torch.testing.assert_close(region.ascend(points, torch.zeros_like(points), 1.0), points, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in THREATS if name.startswith(("l1", "l2", "linf"))])
def test_high_dimensions_in_single_precision(name):
    threat = THREATS[name]
    x = torch.rand(2, 2, 5000, generator=generator(0)).clamp(0.2, 0.9)
    far = x + torch.randn(x.shape, generator=generator(1))
    region = threat.region(x)
    points = torch.stack([region.project(far), region.project(far * 1e3), *region.sample(2, generator(1))])
    assert belongs(threat, x, points).all()
    a = torch.randn(2, 3, 2, 5000, generator=generator(2))
    exact = threat.region(x.double()).minimum(a.double())
    torch.testing.assert_close(region.minimum(a).double(), exact, rtol=1e-5, atol=1e-3)
    assert math.isfinite(exact.sum())


@every_threat
@many_seeds
def test_forms_that_all_samples_share_are_given_once(name, seed):
    region, a = THREATS[name].region(inputs(seed)), forms(seed)[:1]
    least = region.minimum(a)
    assert least.shape == (3, 7)
    torch.testing.assert_close(least, region.minimum(a.expand(3, *a.shape[1:])), rtol=1e-13, atol=1e-13)
