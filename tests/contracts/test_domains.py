"""What every domain must satisfy on every network: sound, exact at radius 0, not vacuous, differentiable."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ctbench.attacks import PGD
from ctbench.domains import crown, domain, domains, interval
from ctbench.graph import Elementwise, Graph, freeze, trace, walk_forward
from ctbench.regions import Box, Linf
from ctbench.specification import margin_rows

DOMAINS = sorted(domains())


def specification(y: Tensor, dtype: torch.dtype) -> Tensor:
    """The margins and two arbitrary forms, [B, 5, 4]."""
    generator = torch.Generator().manual_seed(11)
    other = torch.randn(len(y), 2, 4, generator=generator, dtype=torch.float64)
    return torch.cat([margin_rows(y, 4, dtype=dtype), other.to(dtype)], dim=1)


def values(graph: Graph, x: Tensor) -> list[Tensor]:
    return walk_forward(graph, lambda node, *inputs: node.op(*inputs), x)


def hard_points(graph: Graph, region: Box, x: Tensor, spec: Tensor) -> Tensor:
    """Sampled points, corners and attacks on each form: [N, B, *shape]."""
    generator = torch.Generator().manual_seed(5)
    sampled = region.sample(40, generator)
    corners = torch.where(sampled > region.center, region.upper, region.lower)
    attacked = []
    for s in range(spec.shape[1]):
        rows = spec[:, s]

        def objective(points: Tensor, rows: Tensor = rows) -> Tensor:
            return -(graph(points.flatten(0, 1)).unflatten(0, points.shape[:2]) * rows).sum(-1)

        attacked.append(PGD(steps=10, restarts=2, clean_start=True)(objective, region, x, generator))
    return torch.cat([sampled, corners, x[None], region.lower[None], region.upper[None], torch.stack(attacked)])


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_no_point_of_the_region_violates_a_bound(case, dtype, eps):
    sample = case(dtype)
    graph, region = sample.graph.detach(), sample.region(eps)
    spec = specification(sample.y, dtype)
    points = hard_points(graph, region, sample.x, spec)
    reached = [v.unflatten(0, points.shape[:2]) for v in values(graph, points.flatten(0, 1))]
    lowest = torch.einsum("nbk,bsk->nbs", reached[-1], spec).amin(0)
    slack = 1e-10 if dtype == torch.float64 else 1e-4
    for name in DOMAINS:
        bound = domain(name).lower_bounds(graph, region, spec)
        assert bound.shape == (3, 5), name
        assert (bound <= lowest + slack).all(), name
        boxes = domain(name).boxes(graph, region)
        assert len(boxes) == len(graph.nodes)
        for node, box, seen in zip(graph.nodes, boxes, reached, strict=True):
            assert box.lower.shape == (3, *node.shape), (name, node.name)
            assert (box.lower <= seen.amin(0) + slack).all(), (name, node.name)
            assert (box.upper >= seen.amax(0) - slack).all(), (name, node.name)


@pytest.mark.parametrize("name", DOMAINS)
def test_radius_zero_is_exact(case, name):
    sample = case()
    graph, region = sample.graph, sample.region(0.0)
    spec = specification(sample.y, torch.float64)
    exact = torch.einsum("bk,bsk->bs", sample.model.eval()(sample.x), spec)
    torch.testing.assert_close(domain(name).lower_bounds(graph, region, spec), exact, rtol=0, atol=1e-9)
    for box, value in zip(domain(name).boxes(graph, region), values(graph, sample.x), strict=True):
        torch.testing.assert_close(box.lower, value, rtol=0, atol=1e-9)
        torch.testing.assert_close(box.upper, value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", DOMAINS)
def test_bounds_are_a_batch_of_single_bounds(case, name):
    sample = case()
    graph, region = sample.graph, sample.region(0.1)
    spec = specification(sample.y, torch.float64)
    together = domain(name).lower_bounds(graph, region, spec)
    for i in range(len(sample.x)):
        one = Box(region.lower[i : i + 1], region.upper[i : i + 1])
        alone = domain(name).lower_bounds(graph, one, spec[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", DOMAINS)
def test_gradients_reach_every_parameter(case, name):
    sample = case()
    sample.model.zero_grad()
    spec = specification(sample.y, torch.float64)
    domain(name).lower_bounds(sample.graph, sample.region(0.1), spec).sum().backward()
    for path, parameter in sample.model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().sum() > 0, path


@pytest.mark.parametrize("name", DOMAINS)
def test_gradients_are_finite_at_radius_zero(case, name):
    sample = case()
    spec = specification(sample.y, torch.float64)
    domain(name).lower_bounds(sample.graph, sample.region(0.0), spec).sum().backward()
    for path, parameter in sample.model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


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


@pytest.mark.parametrize("name", DOMAINS)
def test_inner_boxes_are_used(case, name):
    sample = case()
    graph, region = sample.graph, sample.region(0.1)
    spec = specification(sample.y, torch.float64)
    own = domain(name).boxes(graph, region)
    usual = domain(name).lower_bounds(graph, region, spec)
    torch.testing.assert_close(domain(name).lower_bounds(graph, region, spec, inner=own), usual)
    wide = [own[0], *(Box(box.lower - 3, box.upper + 3) for box in own[1:])]
    assert (domain(name).lower_bounds(graph, region, spec, inner=wide) < usual - 1e-3).all()


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
    spec = specification(sample.y, torch.float64)
    expected = domain(name).lower_bounds(sample.graph, region, spec)
    torch.testing.assert_close(domain(name).lower_bounds(graph, region, spec), expected, rtol=1e-12, atol=1e-12)


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
    spec = specification(sample.y, torch.float64)
    bounds = [interval.lower_bounds(sample.graph, sample.region(eps), spec) for eps in (0, 0.01, 0.05, 0.2, 1)]
    for tighter, looser in pairwise(bounds):
        assert (tighter >= looser - 1e-12).all()
    assert (bounds[0] > bounds[-1] + 0.1).all()


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.5])
def test_crown_boxes_lie_within_interval_boxes(case, eps):
    sample = case()
    graph, region = sample.graph, sample.region(eps)
    refined, plain = crown.boxes(graph, region), interval.boxes(graph, region)
    tighter = 0.0
    for node in graph.nodes:
        if isinstance(node.op, Elementwise):
            (at,) = node.inputs
            assert (refined[at].lower >= plain[at].lower - 1e-12).all()
            assert (refined[at].upper <= plain[at].upper + 1e-12).all()
            tighter = max(tighter, (plain[at].radius - refined[at].radius).max().item())
    assert tighter > 1e-3


def test_crown_is_tighter_than_crown_ibp_and_that_than_intervals_on_average(case):
    sample = case()
    spec = specification(sample.y, torch.float64)
    graph, region = sample.graph, sample.region(0.05)
    means = [domain(name).lower_bounds(graph, region, spec).mean() for name in ("crown", "crown-ibp", "interval")]
    assert means[0] > means[1] > means[2]


def test_crown_boxes_do_not_depend_on_the_memory_they_may_take(case):
    sample = case()
    graph, region = sample.graph, sample.region(0.1)
    for pure in (False, True):
        whole = crown.boxes(graph, region, pure=pure)
        pieces = crown.boxes(graph, region, pure=pure, memory=4 * 3 * 108 * 8 * 5)  # few rows at a time
        for one, other in zip(whole, pieces, strict=True):
            torch.testing.assert_close(one.lower, other.lower, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(one.upper, other.upper, rtol=1e-11, atol=1e-11)


def test_domains_are_found_by_walking_the_package():
    assert {"interval", "crown", "crown-ibp"} <= set(DOMAINS)
    with pytest.raises(ValueError, match=r"no domain is called 'box'; there are .*crown, crown-ibp.*interval"):
        domain("box")
