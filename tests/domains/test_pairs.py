"""Pairs of ReLUs: their support function is exact and never too small; what it adds to CROWN is sound, and a gain."""

import math

import pytest
import torch
from torch import Tensor, nn

from ctbench.domains import AlphaCrown, beta_crown, crown, pairs
from ctbench.domains.beta_crown import Multipliers
from ctbench.domains.linear_form import LinearForm
from ctbench.domains.pairs import Pairs, support
from ctbench.graph import Graph, freeze, trace, walk_forward
from ctbench.graph.ops import ReLU
from ctbench.regions import L2, Box, Linf, Region
from ctbench.specification import margin_rows

WAYS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
INDEX = torch.tensor([[0, 1]])

KINDS = {
    "any": lambda z: z,
    "loose": lambda z: z,
    "box": lambda z: torch.cat([z, z.amin(1, keepdim=True), z.amax(1, keepdim=True)], dim=1),
    "quadrant": lambda z: z - z.amin(1, keepdim=True) * torch.tensor([1.0, -1.0]) + 0.1,
    "one is stable": lambda z: z + torch.tensor([0.0, 9.0]),
    "segment": lambda z: z[..., :1].expand(-1, -1, 2) + torch.tensor([0.0, 0.4]),
    "level segment": lambda z: z * torch.tensor([1.0, 0.0]) - 0.3,
    "point": lambda z: z[:, :1].expand(-1, 2, -1),
    "origin": lambda z: z * 0,
}


def lower_bounds(
    graph: Graph, region: Region, spec: Tensor, inner: list[Box], chosen, *, steps: int, decay=0.98
) -> Tensor:
    """Lower bounds of S forms, [B, S], by lines and pairs of each form's own, without splits."""
    sample = torch.arange(len(spec)).repeat_interleave(spec.shape[1])
    boxes = {at: box.take(sample) for at, box in beta_crown.needed(graph, inner).items()}
    each = {at: part.take(sample) for at, part in chosen.items()}
    free = Multipliers.begin(graph, boxes).with_pairs(each)
    given = (graph, region.take(sample), spec.flatten(0, 1), boxes, free)
    found, _ = beta_crown.ascend(*given, steps=steps, chosen=each, decay=decay)
    return found.view(spec.shape[:2])


def octagons(kind: str, count: int = 30) -> Pairs:
    """Around random points; a box is one that has two of its corners, and a loose one has sides that bound nothing."""
    generator = torch.Generator().manual_seed(0)
    along = KINDS[kind](torch.randn(count, 6, 2, generator=generator).double()) @ WAYS.T
    lower, upper = along.amin(1, keepdim=True), along.amax(1, keepdim=True)
    loose = 3 * torch.randn(2, count, 1, 4, generator=generator).double().clamp(min=0) * (kind == "loose")
    return Pairs(INDEX.expand(count, 1, 2), lower - loose[0], upper + loose[1])


def weights(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randn(2, count, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind(0)


def points_of(octagon: Pairs, fine: int) -> Tensor:
    """Points of single octagons that are nowhere far apart, on both axes, too, and others: [B, fine, fine, 2]."""
    (l1, l2, ls, lg), (u1, u2, us, ug) = (x.squeeze(1).unsqueeze(-1).unbind(1) for x in (octagon.lower, octagon.upper))
    shares = torch.linspace(0, 1, fine - 1, dtype=l1.dtype)
    first = torch.cat([l1 + shares * (u1 - l1), torch.zeros_like(l1).clamp(l1, u1)], dim=1)
    low = torch.maximum(torch.maximum(l2, ls - first), first - ug).unsqueeze(-1)
    high = torch.minimum(torch.minimum(u2, us - first), first - lg).unsqueeze(-1)
    high = torch.maximum(low, high)  # rounding of a segment's ends
    second = torch.cat([low + shares * (high - low), torch.zeros_like(low).clamp(low, high)], dim=-1)
    return torch.stack([first.unsqueeze(-1).expand_as(second), second], dim=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_support_function_is_that_of_a_dense_grid(kind):
    octagon, fine = octagons(kind), 150
    z = points_of(octagon, fine)
    along, step = z @ WAYS.T, (octagon.upper - octagon.lower).amax(-1) / (fine - 2)
    inside = ((along >= octagon.lower.unsqueeze(1) - 1e-12) & (along <= octagon.upper.unsqueeze(1) + 1e-12)).all(-1)
    for seed in range(3):
        a, b = weights(len(z), seed)
        values = (z.relu() * a.unsqueeze(1)).sum(-1) - (z * b.unsqueeze(1)).sum(-1)
        grid = values.masked_fill(~inside, -math.inf).amax((1, 2))
        h = support(octagon, a, b).squeeze(1)
        assert (h >= grid - 1e-12).all()
        assert (h <= grid + 3 * (a.abs() + b.abs()).sum((1, 2)) * step.squeeze(1) + 1e-12).all()


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_only_raises_the_support_function(kind, size):
    octagon = octagons(kind, count=3000)
    rough = Pairs(octagon.index, *(size * corner.float() for corner in (octagon.lower, octagon.upper)))
    apart = 1e-6 * rough.upper[..., :2].abs().sum(-1, keepdim=True)  # so that rounding has made none empty
    rough.lower[..., 2:] -= apart
    rough.upper[..., 2:] += apart
    exact = Pairs(octagon.index, rough.lower.double(), rough.upper.double())
    a, b = (weight.float() for weight in weights(3000))
    assert (support(rough, a, b).double() >= support(exact, a.double(), b.double())).all()


def test_without_numbers_for_bounds_there_is_none_for_the_support_function():
    a, b = weights(1)
    for side in range(8):
        octagon = octagons("any", count=1)
        (octagon.lower, octagon.upper)[side // 4][..., side % 4] = math.nan
        assert support(octagon, a, b).isnan().all()
    octagon.upper[:] = math.inf
    assert not support(octagon, a, b).isfinite().any()


@pytest.mark.parametrize("way", range(4))
def test_a_side_may_be_missing(way):
    a, b = weights(30)
    octagon, open_ = octagons("any"), octagons("any")
    octagon.upper[..., way] = 99.0
    open_.upper[..., way] = math.inf
    torch.testing.assert_close(support(open_, a, b), support(octagon, a, b))


def test_gradients():
    a, b = (weight.requires_grad_() for weight in weights(30))
    octagon = octagons("any")
    assert torch.autograd.gradcheck(lambda a, b: support(octagon, a, b), (a, b))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_known_sign_cuts_the_octagon(sign):
    octagon = octagons("any")
    a, b = weights(30)
    z = points_of(octagon, 60).flatten(1, 2)
    box = Box(octagon.lower[:, 0, :2].clone(), octagon.upper[:, 0, :2].clone())
    if sign > 0:
        box.lower[:, 0] = box.lower[:, 0].clamp(min=0).minimum(box.upper[:, 0])
    else:
        box.upper[:, 0] = box.upper[:, 0].clamp(max=0).maximum(box.lower[:, 0])
    known = (z[..., 0] >= box.lower[:, :1]) & (z[..., 0] <= box.upper[:, :1])
    values = ((z.relu() * a).sum(-1) - (z * b).sum(-1)).masked_fill(~known, -math.inf)
    cut, whole = support(octagon.within(box), a, b).squeeze(1), support(octagon, a, b).squeeze(1)
    assert (cut >= values.amax(1) - 1e-12).all()
    assert (cut <= whole).all()
    assert (cut < whole - 1e-3).any()


def test_any_shares_and_slopes_are_sound_and_none_are_the_lines():
    count, generator = 50, torch.Generator().manual_seed(0)
    # three neurons in three pairs; each pair's octagon is around the same points
    z = torch.randn(count, 200, 3, generator=generator, dtype=torch.float64)
    index = torch.tensor([[0, 1], [2, 0], [1, 2]])
    along = z[:, :, index] @ WAYS.T
    trio = Pairs(index.expand(count, 3, 2), along.amin(1), along.amax(1))
    lower, upper = z.amin(1), z.amax(1)
    lines = ReLU().lines(lower, upper, torch.rand(count, 3, generator=generator).double(), ReLU().chord(lower, upper))
    shares, slopes, c = (torch.randn(count, 3, k, generator=generator).double() for k in (2, 2, 1))
    form = LinearForm(c.mT, 0.3)
    found = pairs.relaxed(form, lines, trio, shares, slopes).dense()
    exact = (z.relu() @ c).squeeze(-1) + 0.3
    assert (found.constant + (z * found.coefficients).sum(-1) <= exact + 1e-12).all()
    none, plain = pairs.relaxed(form, lines, trio, 0 * shares, slopes).dense(), form.relaxed(lines)
    torch.testing.assert_close(none.coefficients, plain.coefficients, rtol=0, atol=0)
    torch.testing.assert_close(none.constant, plain.constant, rtol=0, atol=0)


class Skip(nn.Module):
    """A residual block of images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(i, 3, 3, padding=1) for i in (1, 3))
        self.last = nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x.view(-1, 1, 3, 3)))
        return self.last(torch.relu(x + self.second(x)).flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 14), nn.ReLU(), nn.Linear(14, 12), nn.ReLU(), nn.Linear(12, 3))


def problem(build=mlp, threat=Linf, *, samples: int = 3) -> tuple[Graph, Region, Tensor, list[Box]]:
    torch.manual_seed(0)
    model, x = build().double(), torch.rand(samples, 9, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.data *= 2.5
    graph, logits = freeze(trace(model, (9,)), x)
    region = threat(eps=0.2 if threat is Linf else 0.4).region(x)
    spec = margin_rows(logits.argmax(1), 3, dtype=torch.float64)
    return graph.detach(), region, spec, crown.boxes(graph.detach(), region)


@pytest.mark.parametrize("threat", [Linf, L2])
@pytest.mark.parametrize("build", [mlp, Skip])
def test_octagons_and_bounds_hold_at_sampled_inputs(build, threat):
    graph, region, spec, inner = problem(build, threat)
    chosen = pairs.choose(graph, region, spec, inner, most=30)
    assert len(chosen) == 2
    x = region.sample(300, torch.Generator().manual_seed(0))  # [300, B, 9]
    states = walk_forward(graph, lambda node, *inputs: node.op(*inputs), x.flatten(0, 1))
    for at, part in chosen.items():
        z = states[at].view(300, len(spec), -1).transpose(0, 1)  # [B, 300, node]
        z = torch.stack([z.gather(2, one.unsqueeze(1).expand(-1, 300, -1)) for one in part.index.unbind(2)], dim=-1)
        along = z @ WAYS.T
        assert (along >= part.lower.unsqueeze(1) - 1e-9).all()
        assert (along <= part.upper.unsqueeze(1) + 1e-9).all()
        a, b = torch.randn(2, *part.index.shape, dtype=torch.float64)
        values = (z.relu() * a.unsqueeze(1)).sum(-1) - (z * b.unsqueeze(1)).sum(-1)
        assert (values <= support(part, a, b).unsqueeze(1) + 1e-9).all()
    margins = (states[-1].view(300, len(spec), 1, -1) * spec).sum(-1)
    found = lower_bounds(graph, region, spec, inner, chosen, steps=40)
    assert (found <= margins.amin(0)).all()
    alone = lower_bounds(graph, region, spec, inner, {}, steps=40)
    assert (found > alone).all()
    assert (found - alone).mean() > 1e-2


def test_without_pairs_it_is_alpha_crown():
    graph, region, spec, inner = problem()
    for steps in (0, 10):
        expected = AlphaCrown(steps=steps).lower_bounds(graph, region, spec, inner=inner)
        torch.testing.assert_close(lower_bounds(graph, region, spec, inner, {}, steps=steps), expected)


@torch.no_grad()
def test_a_pair_is_exact_where_no_bound_by_single_neurons_is():
    # -relu(x_1 + x_2) - relu(x_1 - x_2) on [-1, 1]^2 is least at (1, 0), where it is -2; but both triangles
    # have y = 1.5 over z = 1, which is -3, so that no bound made of triangles is above that
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    model[0].weight.data[:] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    model[2].weight.data[:] = -1.0
    x, spec = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    graph = freeze(trace(model, (2,)), x)[0].detach()
    region = Linf(eps=1.0, clip=None).region(x)
    inner = crown.boxes(graph, region)
    alone = AlphaCrown(steps=100).lower_bounds(graph, region, spec, inner=inner)
    torch.testing.assert_close(alone.item(), -3.0)
    found = lower_bounds(graph, region, spec, inner, pairs.choose(graph, region, spec, inner), steps=200)
    assert -2.01 < found.item() <= -2.0


@torch.no_grad()
def test_bounds_come_closer_to_the_exact_minimum_and_stay_below():
    from ctbench.verify.worst_case import minimum

    graph, region, spec, inner = problem()
    alone = AlphaCrown(steps=300).lower_bounds(graph, region, spec, inner=inner)
    found = lower_bounds(graph, region, spec, inner, pairs.choose(graph, region, spec, inner), steps=300, decay=0.99)
    exact = torch.empty_like(found)
    for index in range(len(spec)):
        one = torch.tensor([index])
        boxes = [box.take(one) for box in inner]
        for row, form in enumerate(spec[index]):
            exact[index, row] = minimum(graph, region.take(one), form, boxes, timeout=30.0).upper
    assert (found <= exact + 1e-9).all()
    assert (found - alone).sum() > 0.2 * (exact - alone).sum()


def test_pairs_that_gain_nothing_are_not_chosen():
    model = nn.Sequential(nn.Linear(9, 9, bias=False), nn.ReLU(), nn.Linear(9, 3)).double()
    model[0].weight.data[:] = torch.eye(9)  # each neuron has an input of its own: octagons are boxes
    x = torch.zeros(1, 9, dtype=torch.float64)
    graph, region = freeze(trace(model, (9,)), x)[0].detach(), Linf(eps=1.0, clip=None).region(x)
    spec = margin_rows(torch.tensor([0]), 3, dtype=torch.float64)
    assert pairs.choose(graph, region, spec, crown.boxes(graph, region)) == {}


def test_the_neurons_that_lose_most_are_paired(monkeypatch):
    graph, region, spec, inner = problem()
    every = pairs.choose(graph, region, spec, inner, most=3)
    monkeypatch.setattr(pairs, "NEURONS", 6)
    few = pairs.choose(graph, region, spec, inner, most=99)
    assert few.keys() == every.keys()
    for part in few.values():
        assert all(1 < len(index.unique()) <= 6 for index in part.index)


def test_octagons_do_not_depend_on_the_memory_there_is():
    graph, region, spec, inner = problem(Skip)
    much, little = (pairs.choose(graph, region, spec, inner, most=7, memory=memory) for memory in (2**28, 1))
    for at, part in much.items():
        assert torch.equal(part.index, little[at].index)
        torch.testing.assert_close(part.lower, little[at].lower)
        torch.testing.assert_close(part.upper, little[at].upper)


def test_no_pair_at_all_cannot_be_asked_for():
    with pytest.raises(ValueError, match="choose at least one pair"):
        pairs.choose(*problem(), most=0)
