"""CROWN-IBP with the best bound over all layers: of which bounds it is the best, and that it holds at branches."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import ctbench
from ctbench.attacks import PGD
from ctbench.domains import crown, crown_ibp, interval
from ctbench.graph import Graph, split, trace
from ctbench.methods import Batch, Method
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.regions import L2, Box, Linf, Region
from ctbench.specification import margin_rows


class Residual(nn.Module):
    """A block with an identity shortcut around two layers, and one with a layer in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep, self.deeper = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.long, self.short, self.last = nn.Linear(8, 5), nn.Linear(8, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.deeper(torch.relu(self.deep(x))) + x)
        return self.last(torch.relu(self.long(x)) + self.short(x))


class Branching(nn.Module):
    """Three readers of one node, joined by a concatenation and a maximum; no affine layer at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)
        self.both = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        left, right = torch.tanh(self.left(x)), torch.relu(self.right(x))
        return self.both(torch.cat([left, x, right], dim=1)) + torch.maximum(left, right)


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    )


WIDE = Linf(eps=0.3)
NETWORKS: dict[str, Callable[[], nn.Module]] = {"chain": chain, "residual": Residual, "branching": Branching}


@dataclass(frozen=True)
class Case:
    model: nn.Module
    graph: Graph
    x: Tensor
    y: Tensor

    def bounds(self, region: Region) -> tuple[Tensor, Tensor, Tensor]:
        """By intervals, at the input, and the best over all layers."""
        spec = margin_rows(self.y, 4, dtype=torch.float64)
        best = crown_ibp.CrownIBP(every_layer=True).lower_bounds(self.graph, region, spec)
        plain = (domain.lower_bounds(self.graph, region, spec) for domain in (interval, crown_ibp))
        return *plain, best


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    model = NETWORKS[request.param]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            # as torch makes them, networks are all but constant and CROWN's bounds are best at the input
            parameter *= 2
    x = torch.rand(20, 6, dtype=torch.float64)
    return Case(model, trace(model, (6,)).detach(), x, torch.arange(20) % 4)


@pytest.mark.parametrize("threat", [Linf(eps=0.02), WIDE, L2(eps=0.3)], ids=repr)
def test_it_is_below_neither_intervals_nor_the_bound_at_the_input(case, threat):
    by_intervals, at_input, best = case.bounds(threat.region(case.x))
    assert (best >= at_input).all()
    assert (best >= by_intervals - 1e-12).all()


def test_layers_between_give_bounds_of_their_own(case):
    by_intervals, at_input, best = case.bounds(WIDE.region(case.x))
    assert (best > torch.maximum(by_intervals, at_input) + 1e-3).any()


@pytest.mark.parametrize("threat", [Linf(eps=0.002), Linf(eps=0.02), WIDE, L2(eps=0.3)], ids=repr)
def test_no_point_violates_it(case, threat):
    region, generator = threat.region(case.x), torch.Generator().manual_seed(0)
    spec = margin_rows(case.y, 4, dtype=torch.float64)
    _, _, best = case.bounds(region)
    reached = [region.sample(100, generator)]
    for row in spec.unbind(1):

        def objective(points: Tensor, row: Tensor = row) -> Tensor:
            return -(case.graph(points.flatten(0, 1)).unflatten(0, points.shape[:2]) * row).sum(2)

        reached.append(PGD(steps=20)(objective, region, case.x, generator)[None])
    points = torch.cat(reached)
    outputs = case.graph(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    lowest = torch.einsum("nbk,bsk->nbs", outputs, spec).amin(0)
    assert (lowest >= best - 1e-9).all()


def cuts(graph: Graph) -> list[int]:
    """The nodes behind the input that every branch goes through."""
    behind = range(1, len(graph.nodes))
    return [at for at in behind if all(min(node.inputs) >= at for node in graph.nodes[at + 1 :])]


def test_it_is_the_best_of_the_bounds_of_the_networks_behind_each_node(case):
    """Cut at a node, the back has CROWN's bound over the node's box; within branches there are more bounds yet."""
    region, spec = WIDE.region(case.x), margin_rows(case.y, 4, dtype=torch.float64)
    inner, places = interval.boxes(case.graph, region), cuts(case.graph)
    bounds = [crown.lower_bounds(split(case.graph, at)[1], inner[at], spec, inner=inner[at:]) for at in places]
    _, at_input, best = case.bounds(region)
    reference = torch.stack([at_input, *bounds]).amax(0)
    if len(places) == len(case.graph.nodes) - 1:
        torch.testing.assert_close(best, reference, rtol=0, atol=1e-12)
    else:
        assert (best >= reference - 1e-12).all()
    if isinstance(case.model, Residual):
        assert (best > reference + 1e-3).any()


def test_values_by_hand():
    """|x| and -|x| over [-1, 3], as relu(x) + relu(-x): intervals are exact for the first, CROWN for the second."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        model[0].bias.zero_()
        model[2].bias.zero_()
    box = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    best, plain = (
        ctbench.bounds(model, box, domain="crown-ibp", every_layer=every_layer) for every_layer in (True, False)
    )
    assert plain.lower[0].tolist() == pytest.approx([-1.0, -3.0])
    assert best.lower[0].tolist() == pytest.approx([0.0, -3.0])
    assert best.upper[0].tolist() == pytest.approx([3.0, 0.0])


def test_boxes_that_are_given_are_used(case):
    region, spec = WIDE.region(case.x), margin_rows(case.y, 4, dtype=torch.float64)
    tight = crown.boxes(case.graph, region)
    _, _, best = case.bounds(region)
    better = crown_ibp.CrownIBP(every_layer=True).lower_bounds(case.graph, region, spec, inner=tight)
    assert (better > best + 1e-6).any()
    nothing = [Box(box.lower - 1e6, box.upper + 1e6) for box in interval.boxes(case.graph, region)]
    worse = crown_ibp.CrownIBP(every_layer=True).lower_bounds(case.graph, region, spec, inner=nothing)
    assert (worse < best - 1).all()


def test_it_is_an_option_of_margin_bounds(case):
    _, _, best = case.bounds(Linf(eps=0.1).region(case.x))
    found = ctbench.margin_bounds(case.model, case.x, case.y, eps=0.1, domain="crown-ibp", every_layer=True)
    wrong = torch.arange(4) != case.y.unsqueeze(1)
    torch.testing.assert_close(found[wrong].view(20, 3), best)
    with pytest.raises(ValueError, match="crown-ibp takes no every; it takes slope, every_layer"):
        ctbench.margin_bounds(case.model, case.x, case.y, eps=0.1, domain="crown-ibp", every=True)


@pytest.mark.parametrize("case", ["residual"], indirect=True)
def test_it_is_an_option_of_the_training_method(case):
    batch = Batch(case.x, case.y, WIDE.region(case.x), case.graph(case.x))

    def loss(method: Method) -> Tensor:
        return method(case.graph, batch).per_sample

    looser = torch.minimum(loss(IBP()), loss(CrownIBP(fused=False)))
    for best, other in (
        (loss(CrownIBP(fused=False, every_layer=True)), looser),
        (loss(CrownIBP(every_layer=True)), loss(CrownIBP())),
    ):
        assert (best <= other + 1e-12).all()
        assert (best < other - 1e-3).any()
