"""What every domain must satisfy on every network: sound, exact at radius 0, not vacuous, differentiable."""

from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kinds import ours
from torch import Tensor, nn

from ctbench.domains import (
    COAP,
    AlphaCrown,
    Crown,
    CrownIBP,
    Zonotope,
    crown,
    domain,
    domains,
    interval,
)
from ctbench.domains.relaxations import one, parallel, zero
from ctbench.graph import Elementwise, Graph, freeze, trace, walk_forward
from ctbench.graph.ops import ReLU
from ctbench.regions import Box, Linf, Region
from ctbench.specification import margin_rows

DOMAINS = sorted(ours(domains()))
FEW_STEPS = {"alpha-crown": {"steps": 2}}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("alpha-crown", {"steps": 2, "intermediate": True}),
    ("crown", {"slope": zero}),
    ("crown-ibp", {"slope": one}),
    ("crown-ibp", {"slope": parallel}),
    ("zonotope", {"fold": 12}),
    ("zonotope", {"pure": True}),
]
SETTINGS = [(name, FEW_STEPS.get(name, {})) for name in DOMAINS] + OTHERS
LOOSE = {torch.float64: 1e-9, torch.float32: 1e-4}


def specification(y: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The margins and two arbitrary forms, [B, 5, 4]."""
    generator = torch.Generator().manual_seed(11)
    other = torch.randn(len(y), 2, 4, generator=generator, dtype=torch.float64)
    return torch.cat([margin_rows(y, 4, dtype=dtype), other.to(dtype)], dim=1)


def lower_bounds(name: str, graph: Graph, region: Region, spec: Tensor, **options: Any) -> Tensor:
    return domain(name, **FEW_STEPS.get(name, {})).lower_bounds(graph, region, spec, **options)


def values(graph: Graph, x: Tensor) -> list[Tensor]:
    return walk_forward(graph, lambda node, *inputs: node.op(*inputs), x)


def boxes_by_domain(graph: Graph, region: Region) -> dict[str, list[Box]]:
    """The boxes of each domain. Those of alpha-CROWN are CROWN's, so they are not computed again."""
    boxes = {name: domain(name).boxes(graph, region) for name in DOMAINS if name != "alpha-crown"}
    return boxes | {"alpha-crown": boxes["crown"]}


def above(found: Tensor, bound: Tensor) -> bool:
    """Whether no number is below its bound, except for rounding."""
    return bool((found >= bound - LOOSE[bound.dtype] * (1 + bound.abs())).all())


# ------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_no_point_of_the_region_violates_a_bound(place, hard_points, dtype):
    case, around = place
    sample = case(dtype)
    graph, spec = sample.graph.detach(), specification(sample.y, dtype)
    region = around(sample.x, 0.2)
    points = hard_points(graph, region, sample.x, spec)
    reached = [v.unflatten(0, points.shape[:2]) for v in values(graph, points.flatten(0, 1))]
    lowest = torch.einsum("nbk,bsk->nbs", reached[-1], spec).amin(0)
    for name, boxes in boxes_by_domain(graph, region).items():
        assert len(boxes) == len(graph.nodes)
        for node, box, seen in zip(graph.nodes, boxes, reached, strict=True):
            assert box.lower.shape == (3, *node.shape), (name, node.name)
            assert above(seen.amin(0), box.lower), (name, node.name)
            assert above(-seen.amax(0), -box.upper), (name, node.name)
        bound = lower_bounds(name, graph, region, spec, inner=boxes)
        assert bound.shape == (3, 5), name
        assert above(lowest, bound), name


@pytest.mark.parametrize("eps", [0.02, 0.5])
def test_no_point_violates_a_bound_of_any_settings(case, hard_points, eps):
    sample = case()
    graph, region, spec = sample.graph.detach(), sample.region(eps), specification(sample.y)
    points = hard_points(graph, region, sample.x, spec)
    reached = graph(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    lowest = torch.einsum("nbk,bsk->nbs", reached, spec).amin(0)
    for name, options in SETTINGS:
        assert above(lowest, domain(name, **options).lower_bounds(graph, region, spec)), (name, options)


def test_radius_zero_is_exact(place):
    case, around = place
    sample = case()
    graph, region, spec = sample.graph.detach(), around(sample.x, 0.0), specification(sample.y)
    exact = torch.einsum("bk,bsk->bs", sample.model.eval()(sample.x).detach(), spec)
    for name, boxes in boxes_by_domain(graph, region).items():
        bound = lower_bounds(name, graph, region, spec, inner=boxes)
        torch.testing.assert_close(bound, exact, rtol=0, atol=1e-9, msg=name)
        for box, value in zip(boxes, values(graph, sample.x), strict=True):
            torch.testing.assert_close(box.lower, value, rtol=0, atol=1e-9, msg=name)
            torch.testing.assert_close(box.upper, value, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_form_of_the_input_has_its_minimum_over_every_region(regions, name):
    # without a relaxation nothing is lost, in whichever way a domain walks
    torch.manual_seed(0)
    model, x = nn.Linear(72, 4).double(), torch.rand(3, 72).double()
    graph, spec = trace(model, (72,)), specification(torch.tensor([1, 3, 0]))
    for around in regions.values():
        region = around(x, 0.1)
        exact = region.minimum(spec @ model.weight) + spec @ model.bias
        torch.testing.assert_close(lower_bounds(name, graph, region, spec), exact, rtol=1e-11, atol=1e-11)


# --------------------------------------------------------------------------------------------- batch and memory


@pytest.mark.parametrize("kind", ["linf", "l1", "segments"])
def test_bounds_are_a_batch_of_single_bounds(case, regions, kind):
    sample = case()
    graph, region, spec = sample.graph.detach(), regions[kind](sample.x, 0.1), specification(sample.y)
    kinked = any(isinstance(node.op, Elementwise) and not isinstance(node.op, ReLU) for node in graph.nodes)
    for name, options in SETTINGS[: len(DOMAINS) + 1]:
        together = domain(name, **options).lower_bounds(graph, region, spec)
        # at a kink rounding decides which way a slope ascends
        close = 1e-2 if name == "alpha-crown" and kinked else 1e-9
        for samples in ([2], [0, 1]):
            apart = domain(name, **options).lower_bounds(graph, region.take(torch.tensor(samples)), spec[samples])
            torch.testing.assert_close(apart, together[samples], rtol=close, atol=close, msg=f"{name} {options}")


def test_crown_boxes_do_not_depend_on_the_memory_they_may_take(case):
    sample = case()
    graph, region = sample.graph.detach(), sample.region(0.1)
    for options in ({}, {"pure": True}, {"slope": parallel}):
        whole = Crown(**options).boxes(graph, region)
        pieces = Crown(**options).boxes(graph, region, memory=1)  # one row, or the channels of one place, at a time
        for some, other in zip(whole, pieces, strict=True):
            torch.testing.assert_close(some.lower, other.lower, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(some.upper, other.upper, rtol=1e-11, atol=1e-11)


# --------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", DOMAINS)
def test_gradients_reach_every_parameter(case, name):
    sample = case()
    sample.model.zero_grad()
    lower_bounds(name, sample.graph, sample.region(0.1), specification(sample.y)).sum().backward()
    for path, parameter in sample.model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().sum() > 0, path


def test_gradients_are_finite_at_radius_zero(case, regions):
    sample, spec = case(), specification(case().y)
    several = [("linf", name, options) for name, options in SETTINGS[: len(DOMAINS) + 1]]
    for kind, name, options in several + [(kind, "crown", {}) for kind in regions]:
        sample.model.zero_grad()
        region = regions[kind](sample.x, 0.0)
        domain(name, **options).lower_bounds(sample.graph, region, spec).sum().backward()
        for path, parameter in sample.model.named_parameters():
            assert parameter.grad is not None, (kind, name, path)
            assert torch.isfinite(parameter.grad).all(), (kind, name, path)


# ------------------------------------------------------------------------------------------- what all refuse or use


@pytest.mark.parametrize("name", DOMAINS)
def test_an_open_batch_norm_is_refused(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    graph, region = trace(model, (3,)), Linf(eps=0.1).region(torch.rand(2, 3))
    for call in (
        lambda: domain(name).boxes(graph, region),
        lambda: domain(name).lower_bounds(graph, region, torch.ones(2, 1, 2)),
        lambda: graph.detach(),
        lambda: graph(torch.rand(2, 3)),
    ):
        with pytest.raises(ValueError, match=r"call freeze\(graph, x\) first"):
            call()


def test_the_boxes_of_alpha_crown_are_those_of_crown(case):
    sample = case()
    graph, region = sample.graph.detach(), sample.region(0.1)
    for some, other in zip(AlphaCrown(steps=2).boxes(graph, region), crown.boxes(graph, region), strict=True):
        assert torch.equal(some.lower, other.lower)
        assert torch.equal(some.upper, other.upper)


@pytest.mark.parametrize("name", DOMAINS)
def test_inner_boxes_are_used(case, name):
    sample = case()
    graph, region, spec = sample.graph, sample.region(0.1), specification(sample.y)
    own = domain(name).boxes(graph, region)
    usual = lower_bounds(name, graph, region, spec)
    torch.testing.assert_close(lower_bounds(name, graph, region, spec, inner=own), usual)
    wide = [own[0], *(Box(box.lower - 3, box.upper + 3) for box in own[1:])]
    assert (lower_bounds(name, graph, region, spec, inner=wide) < usual - 1e-3).all()


@pytest.mark.parametrize("name", DOMAINS)
def test_networks_without_relaxations_are_bounded_exactly(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 2)).double()
    x = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    graph, _ = freeze(trace(model, (1, 3, 3)), x)
    region = Linf(eps=0.2).region(x)
    spec = margin_rows(torch.tensor([0, 1]), 2, dtype=torch.float64)
    zero = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    columns = model(torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)) - model(zero)
    weight, bias = columns.T, model(zero)[0]
    form = spec @ weight  # [B, 1, 9]
    corner = torch.where(form > 0, region.lower.flatten(1)[:, None], region.upper.flatten(1)[:, None])
    exact = (form * corner).sum(2) + spec @ bias
    bound = domain(name).lower_bounds(graph, region, spec)
    if name == "interval":  # which treats the layers before the last one by one
        assert (bound <= exact + 1e-12).all()
        assert (bound < exact - 1e-3).any()
    else:
        torch.testing.assert_close(bound, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_single_layer_is_bounded_exactly(name):
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        model.bias.copy_(torch.tensor([0.25, -1.0]))
    graph = trace(model, (2,))
    region = Box(torch.tensor([[0.0, 0.5]]).double(), torch.tensor([[1.0, 0.75]]).double())
    bound = domain(name).lower_bounds(graph, region, torch.tensor([[[1.0, -1.0], [0.0, 1.0]]]).double())
    # z0 - z1 = -2 a - 2.5 b + 1.25 at (1, 0.75);  z1 = 3 a + 0.5 b - 1 at (0, 0.5)
    assert bound[0].tolist() == pytest.approx([-2.625, -0.75])


@pytest.mark.parametrize("name", DOMAINS)
def test_a_reshape_behind_the_last_layer_changes_nothing(case, name):
    sample = case()
    reshaped = nn.Sequential(sample.model, nn.Identity(), nn.Flatten())
    graph, region = freeze(trace(reshaped, (2, 6, 6)), sample.x)[0], sample.region(0.1)
    spec = specification(sample.y)
    expected = lower_bounds(name, sample.graph, region, spec)
    torch.testing.assert_close(lower_bounds(name, graph, region, spec), expected, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------ how tight they are


def test_crown_bounds_neurons_behind_two_affine_layers_exactly():
    torch.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 3, 2), nn.AvgPool2d(2, stride=1), nn.Flatten()).double()
    model = nn.Sequential(front, nn.ReLU(), nn.Linear(12, 2)).double()
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    graph, region = trace(model, (1, 4, 4)), Linf(eps=0.4).region(x)
    at = [node.name for node in graph.nodes].index("1") - 1
    box, plain = crown.boxes(graph, region)[at], interval.boxes(graph, region)[at]
    bias = front(torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    weight = (front(torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)) - bias).T
    center, radius = region.center.flatten(1) @ weight.T + bias, region.radius.flatten(1) @ weight.abs().T
    unstable = (plain.lower < 0) & (plain.upper > 0)
    assert unstable.sum() > 5
    torch.testing.assert_close(box.lower[unstable], (center - radius)[unstable], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(box.upper[unstable], (center + radius)[unstable], rtol=1e-11, atol=1e-11)
    assert (plain.radius - radius)[unstable].max() > 1e-3


def test_a_smaller_region_never_has_a_worse_interval_bound(case):
    sample = case()
    spec = specification(sample.y)
    bounds = [interval.lower_bounds(sample.graph, sample.region(eps), spec) for eps in (0, 0.01, 0.05, 0.2, 1)]
    for tighter, looser in pairwise(bounds):
        assert (tighter >= looser - 1e-12).all()
    assert (bounds[0] > bounds[-1] + 0.01).all()


def test_interval_boxes_of_a_smaller_region_lie_inside(case, regions):
    sample = case()
    graph = sample.graph.detach()

    def check_inside(inner: Region, outer: Region) -> None:
        for some, other in zip(interval.boxes(graph, inner), interval.boxes(graph, outer), strict=True):
            assert (some.lower >= other.lower - 1e-9).all()
            assert (some.upper <= other.upper + 1e-9).all()

    @settings(deadline=None, derandomize=True, max_examples=12)
    @given(st.sampled_from(sorted(regions)), st.floats(0, 0.5), st.floats(0, 1), st.integers(0, 10**6))
    def check(name: str, eps: float, share: float, seed: int) -> None:
        outer = regions[name](sample.x, eps)
        check_inside(regions[name](sample.x, share * eps), outer)
        corners = torch.rand(2, *sample.x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        hull, (low, high) = outer.hull, corners.sort(0).values
        check_inside(Box(hull.lower + low * 2 * hull.radius, hull.lower + high * 2 * hull.radius), hull)

    check()


def test_crown_boxes_lie_within_interval_boxes(case, regions):
    sample, most = case(), 0.0
    graph = sample.graph.detach()
    read = {i for node in graph.nodes if node.op.relaxed for i in node.inputs}
    for name, eps in product(("linf", "l2", "segments"), (0.02, 0.1, 0.5)):
        region = regions[name](sample.x, eps)
        refined, plain = crown.boxes(graph, region), interval.boxes(graph, region)
        for some, other in zip(refined, plain, strict=True):
            assert (some.lower >= other.lower - 1e-12).all()
            assert (some.upper <= other.upper + 1e-12).all()
        most = max(most, *((plain[at].radius - refined[at].radius).max().item() for at in read))
    assert most > 1e-3


def test_crown_is_tighter_than_crown_ibp_and_that_than_intervals_on_average(case):
    sample = case()
    spec = specification(sample.y)
    graph, region = sample.graph, sample.region(0.05)
    means = [domain(name).lower_bounds(graph, region, spec).mean() for name in ("crown", "crown-ibp", "interval")]
    assert means[0] > means[1] > means[2]


def test_optimised_slopes_are_never_worse_than_crown(case, regions):
    sample, spec, gain = case(), specification(case().y), 0.0
    graph = sample.graph.detach()
    for name in ("linf", "l2"):
        region = regions[name](sample.x, 0.2)
        for inner in (interval.boxes(graph, region), Crown(pure=True).boxes(graph, region)):
            start = crown.lower_bounds(graph, region, spec, inner=inner)
            few, more = (AlphaCrown(steps=n).lower_bounds(graph, region, spec, inner=inner) for n in (2, 6))
            assert above(few, start)
            assert above(more, few)
            gain = max(gain, (more - start).max().item())
    free = any(isinstance(node.op, Elementwise) for node in graph.nodes)
    assert gain > 1e-3 if free else gain == 0
    torch.testing.assert_close(AlphaCrown(steps=0).lower_bounds(graph, region, spec, inner=inner), start)


def test_optimised_inner_slopes_are_never_worse_than_crown(case, regions):
    sample, spec = case(), specification(case().y)
    graph = sample.graph.detach()
    for name in ("linf", "segments"):
        region = regions[name](sample.x, 0.2)
        start = crown.lower_bounds(graph, region, spec)
        assert above(AlphaCrown(steps=3, intermediate=True).lower_bounds(graph, region, spec), start)


def test_optimised_inner_slopes_are_mostly_better():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    x, y = torch.rand(3, 8).double(), torch.tensor([1, 3, 0])
    graph, region, spec = trace(model, (8,)).detach(), Linf(eps=0.2).region(x), specification(y)
    fixed, free = (
        AlphaCrown(steps=10, intermediate=intermediate).lower_bounds(graph, region, spec)
        for intermediate in (False, True)
    )
    assert free.mean() > fixed.mean() + 1e-3


def test_domains_are_found_by_walking_the_package():
    assert {"interval", "crown", "crown-ibp"} <= set(DOMAINS)
    with pytest.raises(ValueError, match=r"no domain is called 'box'; there are .*crown, crown-ibp.*interval"):
        domain("box")


def test_a_domain_is_a_value():
    assert domain("crown-ibp", every_layer=True, slope=zero) == CrownIBP(every_layer=True, slope=zero)
    assert domain("crown-ibp") != CrownIBP(every_layer=True)
    assert repr(CrownIBP(slope=zero)) == "CrownIBP(slope=zero, every_layer=False)"
    assert repr(Crown(slope=lambda op, low, high: zero(op, low, high))).startswith("Crown(slope=<function ")
    assert {name for name in DOMAINS if not domain(name).sound} == set()
    assert not COAP(projections=3).sound


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Zonotope, {"fold": 0}, "fold is 0"),
        (AlphaCrown, {"lr": 0.0}, "lr=0.0"),
        (COAP, {"projections": 0}, "projections is 0"),
        (Crown, {"slope": "zero"}, "slope is 'zero'"),
        (CrownIBP, {"slope": "zero"}, "slope is 'zero'"),
    ],
)
def test_a_domain_checks_its_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
