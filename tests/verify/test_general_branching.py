"""Branch and bound on the ranges of any activation: halves cover the whole, bounds hold where ranges hold, and what
CROWN leaves open is decided."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ctbench.domains import AlphaCrown, beta_crown
from ctbench.domains.beta_crown import Multipliers
from ctbench.graph import Graph, freeze, trace, walk_forward
from ctbench.graph.ops import ReLU, Sigmoid
from ctbench.regions import Box, Linf
from ctbench.time_budget import Budget
from ctbench.verify import BranchAndBound, Findings, Problem, branching, subproblems
from ctbench.verify.maxima import without_maxima
from ctbench.verify.subproblems import Root, Subproblems

GENERATOR = torch.Generator()
INPUTS = 3


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gated(nn.Module):
    """Products of two layers, and of matrices, whose entries are repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, 4), nn.Linear(INPUTS, 4)
        self.third, self.head = nn.Linear(4, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        gated = torch.tanh(self.first(x)) * self.second(x)
        mixed = gated.view(-1, 2, 2) @ self.third(gated).view(-1, 2, 2)
        return self.head(torch.cat([gated, mixed.flatten(1)], dim=1))


def mlp(activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 5), activation(), nn.Linear(5, 4), activation(), nn.Linear(4, 3))


class Greatest(nn.Module):
    """The greatest of groups of activated values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(INPUTS, 9), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).unflatten(1, (3, 3)).amax(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], float]] = {  # and by how much weights are larger than usual
    "relu": (lambda: mlp(nn.ReLU), 2.0),
    "leaky relu": (lambda: mlp(lambda: nn.LeakyReLU(0.1)), 2.0),
    "hardtanh": (lambda: mlp(nn.Hardtanh), 3.0),
    "sigmoid": (lambda: mlp(nn.Sigmoid), 8.0),
    "tanh": (lambda: mlp(nn.Tanh), 4.0),
    "gelu": (lambda: nn.Sequential(nn.Linear(INPUTS, 3), nn.GELU(), nn.Linear(3, 3)), 4.0),
    "sine": (lambda: mlp(lambda: Apply(torch.sin)), 3.5),
    "exponential": (lambda: mlp(lambda: Apply(lambda x: torch.exp(x / 4))), 2.5),
    "square": (lambda: mlp(lambda: Apply(torch.square)), 1.3),
    "products": (Gated, 2.0),
    "maxima": (Greatest, 2.0),
    "activated input": (lambda: nn.Sequential(nn.Sigmoid(), nn.Linear(INPUTS, 5), nn.Tanh(), nn.Linear(5, 3)), 4.0),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


@torch.no_grad()
def problem(name: str, *, eps: float, samples: int = 4, seed: int = 0) -> Problem:
    """That such a network says what it says all around some inputs."""
    build, size = NETWORKS[name]
    torch.manual_seed(seed)
    model = build().double()
    for parameter in model.parameters():
        parameter *= size
    x = torch.rand(samples, INPUTS, dtype=torch.float64)
    graph = freeze(trace(model, (INPUTS,)), x)[0].detach()
    return without_maxima(Problem.of_labels(graph, x, graph(x).argmax(1), Linf(eps=eps, clip=None)))


def grid(region: Box, count: int = 41) -> Tensor:
    """Points of boxes that are nowhere far apart, corners too: [count^3, B, 3]."""
    shares = torch.cartesian_prod(*[torch.linspace(0, 1, count, dtype=torch.float64)] * INPUTS)
    return region.lower + shares.unsqueeze(1) * (region.upper - region.lower)


def open_problem(name: str, *, eps: float = 0.4) -> Problem:
    """One sample whose margins are all negative somewhere, but only just: nothing is decided by bounds."""
    given = problem(name, eps=eps, samples=1)
    least = given.margins(grid(given.region)).flatten(1).amin(0)
    return replace(given, net=with_bias(given.net, given.spec[0], least + 1e-6))


def with_bias(net: Graph, spec: Tensor, shift: Tensor) -> Graph:
    """The network whose margins are less by `shift`, [S]."""
    last = net.nodes[-1]
    bias = last.op.bias - torch.linalg.lstsq(spec, shift.unsqueeze(1)).solution.squeeze(1)
    return replace(net, nodes=(*net.nodes[:-1], replace(last, op=replace(last.op, bias=bias))))


def decided(given: Problem, seconds: float, stage: BranchAndBound | None = None) -> Findings:
    return (stage or BranchAndBound())(replace(given, budget=Budget.of([seconds] * len(given))), GENERATOR)


def values(graph: Graph, x: Tensor) -> list[Tensor]:
    return walk_forward(graph, lambda node, *inputs: node.op(*inputs), x)


# ------------------------------------------------------------------------------------------------- sub-problems


def deep(root: Root, frontier: Subproblems, rounds: int) -> Subproblems:
    """Sub-problems after some splits; none is left out."""
    for _ in range(rounds):
        choice = branching.choose(root, frontier, 2)
        rest = frontier.take(~choice.is_splittable)
        halves = root.ascend(branching.halves(frontier, choice), 1)
        frontier = halves.join(rest) if len(rest) else halves
    return frontier


def holds(graph: Graph, free: Multipliers, x: Tensor) -> Tensor:
    """Which points [P, 3] have all known ranges of each sub-problem, [P, N] bool."""
    inside = torch.ones(len(x), len(next(iter(free.floors.values()))), dtype=torch.bool)
    reached = values(graph, x)
    for at, floor in free.floors.items():
        z = reached[at].flatten(1).unsqueeze(1)
        inside &= ((z >= floor.flatten(1) - 1e-12) & (z <= free.ceilings[at].flatten(1) + 1e-12)).all(-1)
    return inside


@each_network
@torch.no_grad()
def test_sub_problems_cover_the_region_and_their_bounds_hold_where_their_ranges_do(name):
    given = open_problem(name)
    root, _, frontier = subproblems.begin(given, 2, 2**28)
    assert len(frontier) == 2
    parts = deep(root, frontier, 4)
    assert len(parts) >= 8
    points = grid(given.region, 15)[:, 0]
    inside = holds(given.net, parts.free, points)
    for row in frontier.row.tolist():
        assert inside[:, parts.row == row].any(1).all(), "each point lies in a part"
    assert not inside[:, parts.row == frontier.row[0]].all(), "parts are less than the whole"
    random = parts.free.map(lambda value: value + 0.3 * torch.randn_like(value))
    margins = given.margins(points.unsqueeze(1))[:, 0][:, parts.row]  # [P, N]
    least = margins.masked_fill(~inside, torch.inf).amin(0)
    for free in (parts.free, random):
        bounds = root.proof.bounds(replace(parts, free=free)).values
        assert bounds.isfinite().all()
        assert (bounds <= least).all()


@pytest.mark.parametrize("name", ["sigmoid", "square", "products"])
@torch.no_grad()
def test_ranges_tighten_bounds(name):
    given = open_problem(name)
    root, _, frontier = subproblems.begin(given, 2, 2**28)
    parts = deep(root, frontier, 5)
    before, after = root.ascend(frontier, 30).bound, root.ascend(parts, 30).bound
    for row, bound in zip(frontier.row.tolist(), before, strict=True):
        assert after[parts.row == row].amin() > bound


@torch.no_grad()
def test_halves_share_the_value_at_which_they_are_split():
    given = open_problem("tanh")
    root, _, frontier = subproblems.begin(given, 0, 2**28)
    choice = branching.choose(root, frontier, 2)
    upper, lower = (branching.halves(frontier, choice).take(half) for half in torch.arange(2 * len(frontier)).chunk(2))
    flat = [
        torch.cat([image.flatten(1) for image in images.values()], dim=1)
        for images in (upper.free.floors, lower.free.ceilings)
    ]
    for image in flat:
        assert torch.equal(image.gather(1, choice.neuron.unsqueeze(1)).squeeze(1), choice.value)
        assert (image.isfinite().sum(1) == 1).all()


@torch.no_grad()
def test_weights_have_the_signs_that_ranges_allow():
    given = open_problem("tanh")
    root, _, frontier = subproblems.begin(given, 0, 2**28)
    parts = deep(root, frontier, 3)
    free = parts.free.map(torch.randn_like)
    relaxation = beta_crown.Relaxation.of(given.net, root.search.inner(parts), free, {})
    for at, weight in relaxation.admitted(free).weights.items():
        assert (free.floors[at].isfinite() | (weight <= 0)).all()
        assert (free.ceilings[at].isfinite() | (weight >= 0)).all()


def test_where_a_range_is_split():
    box = Box(torch.tensor([[-1.0, -8.0, 2.0]]), torch.tensor([[3.0, 1.0, 4.0]]))
    near = torch.tensor([[9.0, -2.0, 2.1]])
    assert branching.threshold([ReLU()], box, near)[0, :2].tolist() == [0.0, 0.0]
    assert branching.threshold([Sigmoid()], box, near).tolist() == [[2.5, -2.0, 2.25]], "not close to an end"
    assert branching.threshold([Sigmoid()], box).tolist() == [[0.0, -3.5, 3.0]], (
        "an inflection, if it is not near an end"
    )
    assert branching.threshold([Sigmoid(), ReLU()], box, near).tolist() == [[0.0, 0.0, 2.25]], "a kink comes first"


# ----------------------------------------------------------------------------------------------------- the search


@each_network
@torch.no_grad()
def test_a_bound_is_never_above_the_least_margin_of_a_grid(name):
    given = problem(name, eps=0.25)
    found = decided(given, 3.0, BranchAndBound(max_subproblems=30 if name == "gelu" else 200))
    least = given.margins(grid(given.region)).amin((0, 2))
    assert (found.bound <= least + 1e-12).all()  # a bound that is not positive is not rounded outward
    reached = given.margins(found.witness).amin(1)
    assert not ((reached < 0) & (found.bound > 0)).any()


@pytest.mark.parametrize(("name", "eps", "clear"), [("tanh", 0.3, 0.0), ("sine", 0.3, 0.01), ("products", 0.25, 0.2)])
@torch.no_grad()
def test_what_optimised_slopes_leave_open_is_decided(name, eps, clear):
    """The search proves samples that alpha-CROWN does not, and leaves only those open whose least margin is near 0."""
    given = problem(name, eps=eps, samples=12, seed=1)
    before = AlphaCrown(steps=20, intermediate=True).lower_bounds(given.proof.net, given.region, given.spec).amin(1)
    found = decided(given, 60.0, BranchAndBound(max_subproblems=400))
    falsified = given.margins(found.witness).amin(1) < 0
    least = given.margins(grid(given.region, 21)).amin((0, 2))
    assert ((found.bound > 0) & (before <= 0)).any()
    assert ((found.bound > 0) | falsified | (least < clear)).all()


@torch.no_grad()
def test_the_least_margin_of_a_monotone_network_is_approached():
    """tanh(5 x_1) + tanh(5 x_2) + 2.1 has its least value at a corner; lines alone are far from it."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    net[0].weight.copy_(5 * torch.eye(2))
    net[0].bias.zero_()
    net[2].weight.fill_(1.0)
    for offset, verdict in ((2.0, True), (1.9998, False)):
        net[2].bias.fill_(offset)
        x = torch.zeros(1, 2, dtype=torch.float64)
        graph = freeze(trace(net, (2,)), x)[0].detach()
        ones = torch.ones(1, 1, 1, dtype=torch.float64)
        found = decided(Problem(graph, x, Linf(eps=1.0, clip=None).region(x), ones), 20.0)
        exact = graph(-torch.ones_like(x)).item()
        assert (exact > 0) == verdict
        assert (found.bound.item() > 0) == verdict
        assert found.bound.item() <= exact


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "sine", "products"])
@torch.no_grad()
def test_a_planted_violation_is_never_certified(name):
    """The least margin of a fine grid is moved to just below 0: the network is wrong there."""
    given = problem(name, eps=0.3, samples=3, seed=3)
    points = grid(given.region, 31)
    for index in range(len(given)):
        one = given.select(torch.tensor([index]))
        least = one.margins(points[:, index : index + 1]).flatten(1).amin(0)
        lowered = replace(one, net=with_bias(one.net, one.spec[0], least + 1e-6))
        assert lowered.margins(points[:, index : index + 1]).amin() < 0
        assert not decided(lowered, 5.0, BranchAndBound(max_subproblems=200)).bound.item() > 0
