"""Zonotopes: equal to CROWN with parallel slopes, sound where terms are folded, and aware of what branches share."""

import pytest
import torch
from tests.small import conv
from torch import Tensor, nn

from ctbench.domains import Crown, Zonotope, interval, zonotope
from ctbench.domains.relaxations import parallel
from ctbench.domains.zonotope import NO_TERM, ZonotopeSet
from ctbench.graph import Graph, freeze, trace
from ctbench.graph.ops import Add
from ctbench.regions import L2, Box, Linf
from ctbench.specification import margin_rows

SHAPE, BATCH = (2, 6, 6), 3


class Branches(nn.Module):
    """A sum of branches of unequal depth, and a concatenation with what both came from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.deeper = (nn.Conv2d(i, 3, 3, padding=1) for i in (2, 3, 3))
        self.short = nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(6, 4, 3, stride=2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.deeper(torch.relu(self.deep(x))) + torch.relu(self.short(x))
        y = torch.relu(self.last(torch.cat([y, x], dim=1)))
        return self.head(y.flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 10), nn.ReLU(),
        nn.Linear(10, 4),
    )  # fmt: skip


def smooth() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(72, 12), nn.Tanh(), nn.Linear(12, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.Sigmoid(),
        nn.Linear(8, 4),
    )  # fmt: skip


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.MaxPool2d(1), nn.ReLU(), nn.Flatten(),
        nn.Linear(4, 4),
    )  # fmt: skip


WITHOUT_MAXIMA = {"mlp": mlp, "conv": conv, "branches": Branches, "smooth": smooth}
NETWORKS = WITHOUT_MAXIMA | {"pooled": pooled}


def build(name: str) -> tuple[Graph, Tensor, Tensor]:
    """A frozen network, inputs, and the margins with two arbitrary forms."""
    torch.manual_seed(4)
    model = NETWORKS[name]().double()
    x = torch.rand(BATCH, *SHAPE, dtype=torch.float64)
    spec = torch.cat([margin_rows(torch.tensor([0, 2, 3]), 4, dtype=x.dtype), torch.randn(BATCH, 2, 4).double()], dim=1)
    return freeze(trace(model, SHAPE), x)[0].detach(), x, spec


def read_by_relaxations(graph: Graph) -> list[int]:
    return [node.inputs[0] for node in graph.nodes if node.op.relaxed]


def least_sampled(graph: Graph, region: Box, spec: Tensor) -> Tensor:
    points = region.sample(300, torch.Generator().manual_seed(0))
    points[:150] = torch.where(points[:150] > region.center, region.upper, region.lower)
    return torch.einsum("nbk,bsk->nbs", graph(points.flatten(0, 1)).unflatten(0, points.shape[:2]), spec).amin(0)


@pytest.mark.parametrize("clip", [(0.0, 1.0), None], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("name", WITHOUT_MAXIMA)
def test_the_papers_bounds_are_those_of_crown_with_parallel_slopes(name, clip):
    graph, x, spec = build(name)
    region = Linf(eps=0.1, clip=clip).region(x)
    expected = Crown(slope=parallel, pure=True).boxes(graph, region)
    found = Zonotope(pure=True).boxes(graph, region)
    for at in read_by_relaxations(graph):
        torch.testing.assert_close(found[at].lower, expected[at].lower, rtol=0, atol=1e-9)
        torch.testing.assert_close(found[at].upper, expected[at].upper, rtol=0, atol=1e-9)
    bound = Zonotope(pure=True).lower_bounds(graph, region, spec)
    dual = Crown(slope=parallel).lower_bounds(graph, region, spec, inner=expected)
    torch.testing.assert_close(bound, dual, rtol=0, atol=1e-9)
    inside = Zonotope(pure=True).lower_bounds(graph, region, spec, inner=expected)
    torch.testing.assert_close(inside, dual, rtol=0, atol=1e-9)


def test_a_relu_by_hand():
    # z = x + 1/2 in [-1/2, 3/2]: slope 3/4, error 3/4 * 1/2 / 2 = 3/16, relu(z) in 3/4 (x + 1/2) + 3/16 +- 3/16
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(torch.relu(x + 0.5))

    graph = trace(Net().double(), (1,))
    region = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    box = Zonotope(pure=True).boxes(graph, region)[2]
    assert (box.lower.item(), box.upper.item()) == pytest.approx((-3 / 8, 3 / 2))
    assert zonotope.boxes(graph, region)[2].lower.item() == 0


@pytest.mark.parametrize("fold", [None, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_and_bounds_are_sound_and_never_looser_than_intervals(name, fold):
    graph, x, spec = build(name)
    for eps in (0.03, 0.2):
        region = Linf(eps=eps).region(x)
        for box, plain in zip(Zonotope(fold=fold).boxes(graph, region), interval.boxes(graph, region), strict=True):
            assert (box.lower >= plain.lower - 1e-12).all()
            assert (box.upper <= plain.upper + 1e-12).all()
        bound = Zonotope(fold=fold).lower_bounds(graph, region, spec)
        assert (bound >= interval.lower_bounds(graph, region, spec) - 1e-12).all()
        least = least_sampled(graph, region, spec)
        for pure in (True, False):
            assert (Zonotope(fold=fold, pure=pure).lower_bounds(graph, region, spec) <= least).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_fewer_error_terms_are_looser(name):
    graph, x, spec = build(name)
    region = Linf(eps=0.05).region(x)
    means = [Zonotope(fold=fold, pure=True).lower_bounds(graph, region, spec).mean() for fold in (1, 20, 60, None)]
    assert means == sorted(means)
    assert means[0] < means[-1] - 1e-2
    all_kept = Zonotope(fold=1000).lower_bounds(graph, region, spec)
    torch.testing.assert_close(all_kept, zonotope.lower_bounds(graph, region, spec), rtol=0, atol=0)


def zonotope_of(terms: list[list[int]]) -> ZonotopeSet:
    """Random generators for these error terms, none for -1."""
    index = torch.tensor(terms)
    generators = torch.randn(*index.shape, 2, 3).double() * (index >= 0)[:, :, None, None]
    return ZonotopeSet(torch.randn(len(terms), 2, 3).double(), generators, index, torch.rand(len(terms), 2, 3).double())


def test_folding_keeps_the_box_and_the_greatest_terms():
    torch.manual_seed(0)
    whole = zonotope_of([[0, 1, 2, 3, 4], [7, 8, 9, -1, -1]])
    folded = whole.folded(2)
    torch.testing.assert_close(folded.box.lower, whole.box.lower)
    torch.testing.assert_close(folded.box.upper, whole.box.upper)
    size = whole.generators.abs().sum((2, 3))
    greatest = whole.terms.gather(1, size.topk(2, dim=1).indices)
    assert torch.equal(folded.terms, greatest)
    forms = torch.randn(2, 20, 2, 3).double()
    assert (folded.minimum(forms) <= whole.minimum(forms) + 1e-12).all()
    assert (folded.minimum(forms) < whole.minimum(forms) - 0.1).float().mean() > 0.5
    assert whole.folded(5) is whole
    with pytest.raises(ValueError, match="fold is 0: keep at least one error term"):
        Zonotope(fold=0).boxes(build("mlp")[0], Linf(eps=0.1).region(torch.rand(BATCH, *SHAPE).double()))


def test_the_minimum_is_reached_and_not_passed():
    torch.manual_seed(0)
    z = zonotope_of([[0, 1, 2, 3]])
    form = torch.randn(1, 1, 2, 3).double()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4)
    values = torch.einsum("ne,echw->nchw", signs, z.generators.unsqueeze(2)[0]).squeeze(1) + z.center
    least = (values * form[0]).sum((1, 2)).min() - (z.radius * form[0].abs()).sum()
    assert z.minimum(form).item() == pytest.approx(least.item())


def test_a_sum_joins_equal_terms_and_keeps_the_others_apart():
    torch.manual_seed(0)
    first, second = zonotope_of([[0, 1, 5], [2, 3, -1]]), zonotope_of([[1, 0], [3, 9]])
    joined = zonotope._image(Add(), None, 0, first, second)
    rows = joined.terms.tolist()
    assert [sorted(set(row) - {NO_TERM}) for row in rows] == [[0, 1, 5], [2, 3, 9]]

    def generator(sample: int, term: int) -> Tensor:
        return joined.generators[sample, rows[sample].index(term)]

    torch.testing.assert_close(generator(0, 0), first.generators[0, 0] + second.generators[0, 1])
    torch.testing.assert_close(generator(0, 1), first.generators[0, 1] + second.generators[0, 0])
    torch.testing.assert_close(generator(0, 5), first.generators[0, 2])
    torch.testing.assert_close(generator(1, 2), first.generators[1, 0])
    torch.testing.assert_close(generator(1, 3), first.generators[1, 1] + second.generators[1, 0])
    torch.testing.assert_close(generator(1, 9), second.generators[1, 1])
    torch.testing.assert_close(joined.generators.sum(1), first.generators.sum(1) + second.generators.sum(1))
    torch.testing.assert_close(joined.radius, first.radius + second.radius)


def test_what_branches_share_cancels():
    class Cancel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.last = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.front(x))
            return self.last(2 * y - y - y)

    torch.manual_seed(0)
    graph, x = trace(Cancel().double(), (5,)), torch.rand(4, 5).double()
    region = Linf(eps=0.3).region(x)
    spec = margin_rows(torch.tensor([0, 1, 0, 1]), 2, dtype=x.dtype)
    exact = torch.einsum("bk,bsk->bs", graph(x), spec)
    torch.testing.assert_close(zonotope.lower_bounds(graph, region, spec), exact)
    assert (interval.lower_bounds(graph, region, spec) < exact - 0.1).all()


def test_a_maximum_that_one_entry_dominates_is_exact():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 1)).double()
    x = torch.tensor([[[[0.1, 0.9], [0.2, 0.3]]], [[[0.5, 0.45], [0.2, 0.3]]]]).double()
    graph, region = trace(model, (1, 2, 2)), Linf(eps=0.1).region(x)
    box = Zonotope(pure=True).boxes(graph, region)[2]
    assert (box.lower[0].item(), box.upper[0].item()) == pytest.approx((0.8, 1.0))
    # the greatest lower bound is 0.4, and another entry reaches 0.55: 0.5 +- 0.1, and up to 0.15 more
    assert (box.lower[1].item(), box.upper[1].item()) == pytest.approx((0.4, 0.75))


def test_another_region_is_taken_as_its_hull():
    graph, x, spec = build("conv")
    ball = L2(eps=0.2).region(x)
    bound = zonotope.lower_bounds(graph, ball, spec)
    torch.testing.assert_close(bound, zonotope.lower_bounds(graph, ball.hull, spec))
    layer = nn.Linear(5, 4).double()
    x, form = torch.rand(BATCH, 5).double(), spec @ layer.weight
    exact = (spec @ layer(x).unsqueeze(2)).squeeze(2) - 0.2 * form.norm(dim=2)  # one layer needs no hull
    torch.testing.assert_close(zonotope.lower_bounds(trace(layer, (5,)), L2(eps=0.2, clip=None).region(x), spec), exact)
