"""The dual bound of Wong & Kolter: their own numbers, their formula, and how well random projections estimate it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.small import conv
from torch import Tensor, nn

from ctbench import margin_bounds
from ctbench.datasets import MNIST
from ctbench.domains import COAP, Zonotope, coap
from ctbench.graph import Graph, freeze, trace
from ctbench.networks import ConvSmall
from ctbench.regions import L1, L2, Box, Linf, RandomSegments, Threat
from ctbench.specification import margin_rows

SHAPE, BATCH = (2, 6, 6), 2
UNCUT = [Linf(eps=0.3, clip=None), L2(eps=0.8, clip=None), L1(eps=1.5, clip=None)]


class Branches(nn.Module):
    """A residual block, a concatenation and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last, self.head = nn.Conv2d(6, 4, 3), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([torch.relu(self.inner(x) + x), x], dim=1)
        return self.head(F.max_pool2d(torch.relu(self.last(x)), 2).flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))


NETWORKS = {"mlp": (mlp, (6,)), "conv": (conv, SHAPE), "branches": (Branches, SHAPE)}


def build(name: str, *, seed: int = 6) -> tuple[nn.Module, Graph, Tensor, Tensor]:
    """A network, frozen; inputs, and their margins."""
    torch.manual_seed(seed)
    make, shape = NETWORKS[name]
    model = make().double()
    x = torch.rand(BATCH, *shape, dtype=torch.float64)
    spec = margin_rows(torch.tensor([0, 2]), 4, dtype=x.dtype)
    return model, freeze(trace(model, shape), x)[0], x, spec


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read_by_relaxations(graph: Graph) -> list[int]:
    return sorted({node.inputs[0] for node in graph.nodes if node.op.relaxed})


# ------------------------------------------------------------------------------------------------------- exact


def test_the_authors_bounds_of_their_network(kw_mnist, real_mnist):
    path = Path(kw_mnist).with_name("kw_mnist_coap_eps0.1_first1000.npz")
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with np.load(path, allow_pickle=False) as file:
        margins, labels = (torch.from_numpy(file[key]) for key in ("margin_lower_bounds", "labels"))
    model = ConvSmall().build((1, 28, 28), 10)
    model.load_state_dict(load_file(kw_mnist))
    x, y = MNIST().load(real_mnist).test[:1000]
    assert torch.equal(y, labels)
    x, y, margins = x[::4], y[::4], margins[::4]  # images are bounded one by one
    with torch.no_grad():
        found = margin_bounds(model, x, y, Linf(0.1, clip=None), domain="coap")
    wrong = torch.ones(len(y), 10, dtype=torch.bool).scatter(1, y.unsqueeze(1), False)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[wrong], margins[wrong], rtol=0, atol=1e-4)


def dual(
    weights: list[Tensor], biases: list[Tensor], boxes: list[tuple], c: Tensor, x: Tensor, threat: Threat
) -> float:
    """J of the last of these layers for one sample, written out; boxes [l, u] of the hidden ones, c over the output."""
    nu, value = -c, torch.zeros((), dtype=c.dtype)
    for at in range(len(weights) - 1, -1, -1):
        value -= nu @ biases[at]
        nu = weights[at].T @ nu
        if at:
            for j, (low, high) in enumerate(zip(*boxes[at - 1], strict=True)):
                if low < 0 < high:
                    nu[j] = nu[j] * high / (high - low)
                    value += low * nu[j].clamp(min=0)
                elif high <= 0:
                    nu[j] = 0
    order = {"linf": 1, "l2": 2, "l1": float("inf")}[threat.name]
    return float(value - nu @ x - threat.eps * torch.linalg.vector_norm(nu, ord=order))


@pytest.mark.parametrize("threat", UNCUT, ids=lambda threat: threat.name)
def test_the_papers_formula(threat):
    model, graph, x, spec = build("mlp")
    weights = [layer.weight.detach() for layer in model[::2]]
    biases = [layer.bias.detach() for layer in model[::2]]
    region = threat.region(x)
    found, bound = coap.boxes(graph, region), coap.lower_bounds(graph, region, spec)
    for sample in range(BATCH):
        boxes = []
        for depth, at in ((1, 1), (2, 3)):
            layers = weights[:depth], biases[:depth], boxes
            rows = torch.eye(len(biases[depth - 1]), dtype=x.dtype)
            lower = torch.tensor([dual(*layers, row, x[sample], threat) for row in rows], dtype=x.dtype)
            upper = torch.tensor([-dual(*layers, -row, x[sample], threat) for row in rows], dtype=x.dtype)
            torch.testing.assert_close(found[at].lower[sample], lower, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(found[at].upper[sample], upper, rtol=1e-9, atol=1e-9)
            assert ((lower < 0) & (upper > 0)).sum() > 1
            boxes.append((lower, upper))
        expected = [dual(weights, biases, boxes, row, x[sample], threat) for row in spec[sample]]
        assert bound[sample].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("threat", [*UNCUT, L2(eps=0.5), RandomSegments(eps=0.5, count=3)], ids=lambda t: t.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_point_of_any_region_violates_a_bound(name, threat):
    _, graph, x, spec = build(name)
    region = threat.region(x)
    points = region.sample(400, generator())
    reached = torch.einsum("nbk,bsk->nbs", graph(points.flatten(0, 1)).unflatten(0, points.shape[:2]), spec)
    assert (coap.lower_bounds(graph, region, spec) <= reached.amin(0)).all()


# ------------------------------------------------------------------------------------------------- projections


@pytest.mark.parametrize("clip", [(0.0, 1.0), None], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("name", NETWORKS)
def test_many_projections_estimate_the_boxes_of_a_box(name, clip):
    _, graph, x, spec = build(name)
    region = Linf(eps=0.1, clip=clip).region(x)
    exact = Zonotope(pure=True).boxes(graph, region)  # the same relaxations, with every error term
    found = COAP(projections=4000, generator=generator()).boxes(graph, region)
    for at in read_by_relaxations(graph):
        least = 0.02 * exact[at].radius.max().item()  # a neuron that is barely stable may be estimated not to be
        torch.testing.assert_close(found[at].radius, exact[at].radius, rtol=0.1, atol=least)
        torch.testing.assert_close(found[at].center, exact[at].center, rtol=0, atol=5 * least)
    if name != "branches":
        bound = coap.lower_bounds(graph, region, spec)
        estimate = COAP(projections=4000, generator=generator()).lower_bounds(graph, region, spec)
        torch.testing.assert_close(estimate, bound, rtol=0, atol=0.1 * exact[-1].radius.mean().item())
        assert (estimate != bound).any()


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_many_projections_estimate_the_boxes_of_an_l2_ball(name):
    _, graph, x, _ = build(name)
    region = L2(eps=0.6, clip=None).region(x)
    exact = coap.boxes(graph, region)
    found = COAP(projections=4000, generator=generator()).boxes(graph, region)
    for at in read_by_relaxations(graph):
        torch.testing.assert_close(found[at].radius, exact[at].radius, rtol=0.1, atol=1e-9)


def test_intervals_give_the_first_layer_of_a_box_exactly():
    _, graph, x, _ = build("mlp")
    region = Linf(eps=0.1).region(x)
    found = COAP(projections=3, generator=generator()).boxes(graph, region)
    exact = coap.boxes(graph, region)
    torch.testing.assert_close(found[1].radius, exact[1].radius)
    assert not torch.allclose(found[3].radius, exact[3].radius, rtol=0.02)


def test_an_even_number_of_projections_takes_the_middle_of_two():
    x = torch.tensor([3.0, 1.0, 4.0, 10.0]).view(1, 4, 1)
    assert coap._median(x).item() == 3.5
    assert coap._median(x[:, :3]).item() == 3.0


@pytest.mark.parametrize("threat", UNCUT[:2], ids=lambda threat: threat.name)
def test_estimates_are_a_function_of_the_generator(threat):
    _, graph, x, spec = build("conv")
    region = threat.region(x)
    first, again, other = (
        COAP(projections=10, generator=generator(seed)).lower_bounds(graph, region, spec) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-3)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_estimates_reach_every_parameter(name, kind, eps):
    model, graph, x, spec = build(name)
    region = kind(eps=eps, clip=None).region(x)
    COAP(projections=20, generator=generator()).lower_bounds(graph, region, spec).sum().backward()
    for path, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.any(), path


def test_a_radius_has_a_gradient_through_the_projections():
    # the projections are drawn alike whatever the weights are, so the estimate is a smooth function of each of them
    torch.manual_seed(0)
    model, (_, shape) = mlp().double(), NETWORKS["mlp"]
    region = Linf(eps=0.1).region(torch.rand(1, *shape).double())

    def radius(weight: Tensor) -> Tensor:
        graph = trace(model, shape)
        changed = [node.op for node in graph.nodes]
        assert changed[3].weight.shape == weight.shape
        moved = graph.map(lambda t: weight if t is changed[3].weight else t)
        return COAP(projections=9, generator=generator()).boxes(moved, region)[3].radius.sum()

    weight = model[2].weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(radius, weight, eps=1e-7)


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        (L2(eps=0.5), "an l2 ball that a data range cuts: .* clip=None"),
        (L1(eps=0.5, clip=None), "a L1Ball: random projections support boxes, and l2 balls"),
        (RandomSegments(eps=0.5, count=3), "a SegmentUnion: .*give projections=None for exact bounds"),
    ],
)
def test_projections_refuse_other_regions(threat, words):
    _, graph, x, spec = build("mlp")
    with pytest.raises(ValueError, match=words):
        COAP(projections=10).lower_bounds(graph, threat.region(x), spec)


def test_there_must_be_a_projection():
    _, graph, x, _ = build("mlp")
    with pytest.raises(ValueError, match="projections is 0: take at least one random sum"):
        COAP(projections=0).boxes(graph, Linf(eps=0.1).region(x))


def by_layer(graph: Graph, found: list[Box], sums: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Sums of generators [B, r, n] behind two layers with a ReLU between them, which adds its own in a draw."""
    first, second = graph.nodes[1].op.weight, graph.nodes[3].op.weight
    low, high = found[1].lower, found[1].upper
    open_ = (low < 0) & (high > 0)
    slope = torch.where(open_, high / (high - low), (low >= 0).to(low.dtype))
    half = torch.where(open_, -slope * low / 2, 0.0)
    return (slope.unsqueeze(1) * (sums @ first.T) + half.unsqueeze(1) * draw(half)) @ second.T


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_projections_are_drawn_of_a_box(count):
    _, graph, x, _ = build("mlp")
    region = Linf(eps=0.1).region(x)
    found = COAP(projections=count, generator=generator()).boxes(graph, region)
    random = generator()
    start = x.new_empty(1, count, x.shape[1]).cauchy_(generator=random) * region.radius.unsqueeze(1)
    sums = by_layer(graph, found, start, lambda half: half.new_empty(1, count, half.shape[1]).cauchy_(generator=random))
    rows = sums.abs().sort(dim=1).values
    median = (rows[:, (count - 1) // 2] + rows[:, count // 2]) / 2
    torch.testing.assert_close(found[3].radius, median, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_projections_are_drawn_of_a_ball(count):
    """As many again stand for the input alone: their root mean square counts, besides the median of the others."""
    _, graph, x, _ = build("mlp")
    found = COAP(projections=count, generator=generator()).boxes(graph, L2(eps=0.6, clip=None).region(x))
    random = generator()
    noise = 0.6 * x.new_empty(1, count, x.shape[1]).normal_(generator=random)
    start = torch.cat([torch.zeros_like(noise), noise], dim=1)
    first = (noise @ graph.nodes[1].op.weight.T).square().mean(1).sqrt()
    torch.testing.assert_close(found[1].radius, first.expand_as(found[1].radius), rtol=1e-12, atol=1e-12)

    def draw(half: Tensor) -> Tensor:
        new = half.new_zeros(1, 2 * count, half.shape[1])
        new[:, :count].cauchy_(generator=random)
        return new

    free, ball = by_layer(graph, found, start, draw).split(count, dim=1)
    rows = free.abs().sort(dim=1).values
    median = (rows[:, (count - 1) // 2] + rows[:, count // 2]) / 2
    torch.testing.assert_close(found[3].radius, median + ball.square().mean(1).sqrt(), rtol=1e-12, atol=1e-12)
