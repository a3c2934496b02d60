"""Products of two values, values that are known to lie in an interval, and the networks made of them."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench import bounds
from ctbench.attacks import PGD
from ctbench.domains import backward, domain, interval, rounding, zonotope
from ctbench.graph import Graph, freeze, trace, walk_forward
from ctbench.graph.ops import Known, Product
from ctbench.networks import ViT
from ctbench.regions import L1, L2, Box, Linf, Region

PLACES = (0.0, 1e-300, 1e-9, 0.3, 1.0, 7.0, 1e6)


def ends(count: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Intervals of all sizes and signs, [N]."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(PLACES, dtype=torch.float64)

    def some() -> Tensor:
        picked = sizes[torch.randint(len(sizes), (count,), generator=generator)]
        return picked * torch.randn(count, generator=generator, dtype=torch.float64)

    first, second = some(), some()
    return torch.minimum(first, second).to(dtype), torch.maximum(first, second).to(dtype)


# ------------------------------------------------------------------------------------------------------ the op


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.2, 0.9)])
def test_planes_lie_around_the_product_and_touch_it(dtype, shares):
    first, second = ends(400, dtype, 0), ends(400, dtype, 1)
    (below, least, above, greatest), (other, nothing, other_above, zero) = Product().planes(first, second, *shares)
    assert nothing is None
    assert not zero.any()
    assert below.dtype == greatest.dtype == dtype
    steps = torch.linspace(0, 1, 11, dtype=torch.float64)
    x, y = (a.double() + steps.view(-1, 1) * (b.double() - a.double()) for a, b in (first, second))
    x, y = x.unsqueeze(0), y.unsqueeze(1)
    low = below.double() * x + other.double() * y + least.double()
    high = above.double() * x + other_above.double() * y + greatest.double()
    size = (x.abs() * y.abs()).amax((0, 1)) * (1e-14 if dtype == torch.float64 else 1e-5) + 1e-290
    assert (low <= x * y + size).all()
    assert (high >= x * y - size).all()
    gaps = (x * y - low).amin((0, 1)), (high - x * y).amin((0, 1))
    assert all((gap <= 4 * size).all() for gap in gaps)
    slopes = [(below, second), (above, second), (other, first), (other_above, first)]
    for slope, (begin, end) in slopes:  # so that the rounding of a step is bounded by |x| |y|
        rounding_of_ends = 1e-6 * torch.maximum(begin.abs(), end.abs())
        assert ((slope >= begin - rounding_of_ends) & (slope <= end + rounding_of_ends)).all()


def test_the_image_of_a_product_is_exact():
    first, second = ends(400, torch.float64, 2), ends(400, torch.float64, 3)
    least, greatest = Product().image(first, second)
    corners = torch.stack([x * y for x in first for y in second])
    assert torch.equal(least, corners.amin(0))
    assert torch.equal(greatest, corners.amax(0))


def test_a_product_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"values of the same shape, got \(2,\) and \(3,\): expand one"):
        Product().shape((2,), (3,))


def test_a_known_value_is_itself_where_its_bounds_are_narrow():
    op = Known(-2.0, 3.0)
    lower, upper = torch.tensor([-1.0, -9.0, 0.5, -2.5]), torch.tensor([2.0, 9.0, 40.0, 1.0])
    assert op.exact(lower, upper).tolist() == [True, False, False, False]
    low, high = op.image(lower, upper)
    assert low.tolist() == [-1.0, -2.0, 0.5, -2.0]
    assert high.tolist() == [2.0, 3.0, 3.0, 1.0]
    lines = op.tightest_lines(lower, upper)
    assert lines.lower_slope.tolist() == [1.0, 0.0, 0.0, 1.0]
    points = low + torch.linspace(0, 1, 11).unsqueeze(1) * (high - low)
    for slope in (0.0, 0.4, 1.0):
        lines = op.lines(lower, upper, torch.full_like(lower, slope), torch.full_like(lower, slope))
        assert (lines.lower_slope * points + lines.lower_offset <= points + 1e-6).all()
        assert (lines.upper_slope * points + lines.upper_offset >= points - 1e-6).all()


# ------------------------------------------------------------------------------------------------------ networks


class Attention(nn.Module):
    """A block of a transformer with a class token, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(4, 6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.token, self.norm = nn.Parameter(torch.randn(1, 1, 6)), nn.LayerNorm(6)
        self.mlp, self.head = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.size(0), -1, -1), self.embed(x)], 1)
        batch, rows, size = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, rows, 3, 2, size // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(size // 2)).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, rows, size))
        return self.head((x + self.mlp(x))[:, 0])


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], **options: object) -> None:
        super().__init__()
        self.layer = kind(4, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Steps(nn.Module):
    """Five steps of two features, and a recurrent layer."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer, self.head = kind(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.flatten(1)[:, :10].unflatten(1, (5, 2)))[0][:, -1])


def vit() -> nn.Module:
    """Four patches of three values."""
    network = ViT(patch=1, width=8, heads=2, hidden=8)
    return nn.Sequential(nn.Unflatten(2, (2, 2)), *network.layers((3, 2, 2), 3))


class Cells(nn.Module):
    """Cells called step by step, with their states."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.gru, self.lstm = nn.RNNCell(4, 5), nn.GRUCell(5, 5), nn.LSTMCell(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, state = self.rnn(x[:, 0]), None, None
        for step in range(1, 3):
            a = self.rnn(x[:, step], a)
            b = self.gru(a, b)
            state = self.lstm(b, state)
        return self.head(state[0])


def encoder(**options: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True, **options)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3))


class Reduced(nn.Module):
    """A function of eight values as a layer before the last one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.layer, self.head = function, nn.Linear(12, 8), nn.LazyLinear(3)
        self.head(function(self.layer(torch.zeros(1, 12))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.layer(x.flatten(1))))


def norms(z: Tensor) -> Tensor:
    z = z.unflatten(1, (2, 4))
    return torch.cat([z.norm(dim=2), z.norm(1, 2), torch.linalg.vector_norm(z, 3, 1), z.norm(math.inf, 1)], 1)


def powers(z: Tensor) -> Tensor:
    exponents = torch.tensor([2.0, 3, 0.5, 1, -1, 2, 0, 1.5], device=z.device)
    return torch.cat([(z.abs() + 0.3) ** exponents, 2**z, F.normalize(z, p=1), z.logsumexp(1, True)], 1)


def masked_attention(z: Tensor) -> Tensor:
    rows = z.unflatten(1, (4, 2))
    scores = (rows @ rows.transpose(1, 2)).masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ rows).flatten(1)


class SequencesFirst(nn.Module):
    """A transformer and a recurrent layer whose batch is dimension 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.gru, self.head = nn.TransformerEncoderLayer(4, 2, 6, 0.0), nn.GRU(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.encoder(x.transpose(0, 1)))[0][-1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)),
    "group norm": lambda: nn.Sequential(
        nn.GroupNorm(1, 3), nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    ),
    "instance norm": lambda: nn.Sequential(
        nn.Conv1d(3, 4, 2), nn.InstanceNorm1d(4, affine=True), nn.Flatten(), nn.Linear(12, 3)
    ),
    "gates": lambda: nn.Sequential(nn.Linear(4, 8), nn.GLU(), nn.Flatten(), nn.Linear(12, 3)),
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1)),
    "log softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.LogSoftmax(1)),
    "attention": Attention,
    "multihead": Multihead,
    "encoder": encoder,
    "encoder with norms first": lambda: encoder(norm_first=True, activation="gelu"),
    "rnn": lambda: Recurrent(nn.RNN, num_layers=2, nonlinearity="relu"),
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM, bidirectional=True),
    "cells": Cells,
    "vit": vit,
    "products along axes": lambda: Reduced(lambda z: torch.cat([z.prod(1, True), z.unflatten(1, (2, 4)).prod(1)], 1)),
    "norms": lambda: Reduced(norms),
    "powers": lambda: Reduced(powers),
    "local response norm": lambda: nn.Sequential(
        nn.Conv1d(3, 5, 2), nn.LocalResponseNorm(3, alpha=0.5), nn.Flatten(), nn.Linear(15, 3)
    ),
    "sorted values": lambda: Reduced(lambda z: torch.cat([z.topk(3, 1)[0], z.sort(1).values[:, :2]], 1)),
    "roots of absolute values": lambda: Reduced(
        lambda z: torch.cat([z.abs().sqrt(), (z.square() + z.abs()) ** 1.5], 1)
    ),
    "masked attention": lambda: Reduced(masked_attention),
    "sequences first": SequencesFirst,
    "thresholds and uneven maxima": lambda: Reduced(
        lambda z: torch.cat([F.threshold(z, 0.1, 0.5), F.adaptive_max_pool1d(z.unsqueeze(1), 3).squeeze(1)], 1)
    ),
    "gru of 5 steps": lambda: Steps(nn.GRU),
    "lstm of 5 steps": lambda: Steps(nn.LSTM),
}
SHORT = [name for name in NETWORKS if "5 steps" not in name]  # the others have no op or node that these lack
SHAPE = (3, 4)
REGIONS: dict[str, Callable[[Tensor, float], Region]] = {
    "linf": lambda x, eps: Linf(eps=eps, clip=None).region(x),
    "l2": lambda x, eps: L2(eps=2 * eps, clip=None).region(x),
    "l1": lambda x, eps: L1(eps=5 * eps, clip=None).region(x),
}
DOMAINS = {"interval": {}, "zonotope": {}, "crown-ibp": {}, "crown": {}, "alpha-crown": {"steps": 2}}


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Graph, Tensor]:
    torch.manual_seed(3)
    model = NETWORKS[name]().to(dtype).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                module.weight.uniform_(-1, 1)  # negative factors turn intervals around
                module.bias.normal_()
    x = torch.randn(2, *SHAPE, dtype=torch.float64).to(dtype)
    return model, freeze(trace(model, SHAPE), x)[0], x


def specification(like: Tensor) -> Tensor:
    both = torch.tensor([[1.0, -1, 0], [0, 1, -1], [-1, 0, 1], [1, 0, 0], [0, -1, 0]], dtype=like.dtype)
    return both.expand(len(like), -1, -1)


def hard_points(graph: Graph, region: Region, x: Tensor, spec: Tensor) -> Tensor:
    """Sampled, extreme and attacked points, [N, B, *SHAPE]."""
    generator = torch.Generator().manual_seed(0)
    sampled, hull = region.sample(60, generator), region.hull
    corners = region.project(torch.where(sampled > hull.center, hull.upper, hull.lower))
    which = torch.arange(len(x)).repeat(spec.shape[1])
    rows = spec.transpose(0, 1).flatten(0, 1)

    def objective(points: Tensor) -> Tensor:
        return -(graph(points.flatten(0, 1)).unflatten(0, points.shape[:2]) * rows).sum(-1)

    worst = PGD(steps=6, clean_start=True)(objective, region.take(which), x[which], generator)
    return torch.cat([sampled, corners, worst.unflatten(0, (spec.shape[1], len(x)))])


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_no_point_of_the_region_violates_a_bound(name, dtype):
    model, graph, x = build(name, dtype)
    graph, spec = graph.detach(), specification(x)
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)
    loose = 1e-9 if dtype == torch.float64 else 2e-4
    for kind, eps in (("linf", 0.02), ("linf", 0.3), ("l2", 0.05), ("l1", 0.05))[:: 1 if dtype == torch.float64 else 2]:
        region = REGIONS[kind](x, eps)
        points = hard_points(graph, region, x, spec)
        reached = [
            value.unflatten(0, points.shape[:2])
            for value in walk_forward(graph, lambda node, *values: node.op(*values), points.flatten(0, 1))
        ]
        lowest = torch.einsum("nbk,bsk->nbs", reached[-1], spec).amin(0)
        for method, options in DOMAINS.items():
            if method != "alpha-crown":  # whose boxes are those of CROWN
                boxes = domain(method).boxes(graph, region)
            for node, box, seen in zip(graph.nodes, boxes, reached, strict=True):
                size = loose * (1 + seen.abs().amax(0))
                assert (seen.amin(0) >= box.lower - size).all(), (kind, method, node.name)
                assert (seen.amax(0) <= box.upper + size).all(), (kind, method, node.name)
            bound = domain(method, **options).lower_bounds(graph, region, spec, inner=boxes)
            assert (bound <= lowest + loose * (1 + lowest.abs())).all(), (kind, method)


@pytest.mark.parametrize("name", SHORT)
def test_radius_zero_is_exact_and_gradients_reach_every_parameter(name):
    model, graph, x = build(name)
    spec, region = specification(x), REGIONS["linf"](x, 0.0)
    exact = torch.einsum("bk,bsk->bs", model(x), spec).detach()
    for method, options in DOMAINS.items():
        model.zero_grad()
        found = domain(method, **options).lower_bounds(graph, region, spec)
        torch.testing.assert_close(found.detach(), exact, rtol=1e-9, atol=1e-9, msg=method)
        found.sum().backward()
        around = domain(method, **options).lower_bounds(graph, REGIONS["linf"](x, 0.02), spec)
        model.zero_grad()
        around.sum().backward()
        for path, parameter in model.named_parameters():
            assert parameter.grad is not None, (method, path)
            assert torch.isfinite(parameter.grad).all(), (method, path)
            assert parameter.grad.abs().sum() > 0 or "bias" in path or "hh" in path, (method, path)


@pytest.mark.parametrize("name", SHORT)
def test_bounds_that_certify_are_lower_by_their_rounding(name):
    """Losses are positive and small, and cover a network in single precision as soon as they are scaled to it."""
    _, graph, x = build(name)
    graph, spec, region = graph.detach(), specification(x), REGIONS["linf"](x, 0.02)
    for method in DOMAINS:
        options = {"steps": 0} if method == "alpha-crown" else {}  # at a kink rounding decides how slopes ascend
        plain = domain(method, **options).lower_bounds(graph, region, spec)
        certified = domain(method, **options).lower_bounds(graph.rounded_outward(), region, spec)
        assert (certified < plain).all(), method
        assert (certified > plain - 1e-6 * (1 + plain.abs())).all(), method


def plain_mccormick(graph: Graph, region: Region, spec: Tensor) -> Tensor:
    """CROWN with the first plane of McCormick for every product, over interval boxes."""
    boxes = interval.boxes(graph, region)
    lines = backward.all_lines(graph, boxes)
    for at, node in enumerate(graph.nodes):
        if isinstance(node.op, Product):
            lines[at] = node.op.planes(*(backward.ends(boxes[i]) for i in node.inputs), 0.0, 0.0)
    form = backward.back_to_input(graph, backward.LinearForm(spec, 0.0), backward.by_lines(lines), None)
    return torch.maximum(form.minimum(region), interval.lower_bounds(graph, region, spec, inner=boxes))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("layer norm", 1.4),
        ("attention", 5.0),
        ("gru of 5 steps", 2.5),
        ("multihead", 1.1),
        ("vit", 70.0),
        ("lstm of 5 steps", 1.06),
    ],
)
def test_bounds_are_tighter_than_planes_of_mccormick_over_intervals(name, factor):
    """How far bounds lie below the values at the centre, on average over five random networks."""
    lost = torch.zeros(2, dtype=torch.float64)
    for seed in range(5):
        torch.manual_seed(seed)
        model = NETWORKS[name]().double().eval()
        x = torch.randn(1, *SHAPE, dtype=torch.float64)
        graph = freeze(trace(model, SHAPE), x)[0].detach()
        region, spec = REGIONS["linf"](x, 0.02), specification(x)
        center = torch.einsum("bk,bsk->bs", graph(x), spec)
        tight = domain("alpha-crown", steps=5).lower_bounds(graph, region, spec)
        lost += torch.stack([(center - plain_mccormick(graph, region, spec)).mean(), (center - tight).mean()])
    assert lost[0] > factor * lost[1]


def test_a_product_of_one_value_with_itself_is_a_square():
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    graph = trace(Squared(), (2,))
    region = Box(torch.tensor([[-1.0, 2.0]]).double(), torch.tensor([[2.0, 3.0]]).double())
    boxes = interval.boxes(freeze(graph, region.center)[0], region)
    assert boxes[-1].lower.tolist() == [[0.0, 4.0]]
    assert boxes[-1].upper.tolist() == [[4.0, 9.0]]


def test_zonotopes_know_what_both_factors_share():
    """z (1 - z) for z in [0, 1]: independent factors would give [0, 1]."""

    class Logistic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (1 - x)

    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    graph = freeze(trace(Logistic(), (1,)), x)[0]
    box = zonotope.Zonotope(pure=True).boxes(graph, Linf(0.5).region(x))[-1]
    assert box.lower.item() == pytest.approx(0.0)
    assert box.upper.item() == pytest.approx(0.25)


def test_the_rounding_of_a_product_covers_its_corners():
    first, second = ends(200, torch.float64, 5), ends(200, torch.float64, 6)
    x, y = (torch.maximum(a.abs(), b.abs()) for a, b in (first, second))
    cost = rounding._value(Product(), (200,), x.unsqueeze(0), y.unsqueeze(0))
    assert (cost >= 2.0**-53 * x * y).all()


@torch.no_grad()
def test_single_precision_keeps_the_small_ends_of_large_exponentials():
    """The centre of a sum of exponentials is far above its lower end."""

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (torch.softmax(1.3 * x @ x.mT, -1) @ x).flatten(1)

    torch.manual_seed(0)
    center = torch.randn(20, 4, 3)
    box = Box(center - 1, center + 1)
    lower, upper = bounds(Attention(), box, domain="interval")
    corners = torch.where(torch.rand(30, 20, 4, 3) < 0.5, box.lower, box.upper)
    outputs = Attention()(corners.flatten(0, 1)).view(30, 20, 12)
    assert (lower <= outputs + 1e-5).all()
    assert (outputs <= upper + 1e-5).all()
