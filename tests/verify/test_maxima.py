"""Branch and bound splits which entry of a maximum is the greatest: maxima as ReLUs are the same function, and what
planes around maxima leave open is decided as it is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ctbench.domains import crown
from ctbench.graph import freeze, trace
from ctbench.graph.ops import Max
from ctbench.regions import Linf
from ctbench.time_budget import Budget
from ctbench.verify import BranchAndBound, Findings, Problem, rationals, verify_property
from ctbench.verify.maxima import without_maxima
from ctbench.verify.worst_case import minimum
from ctbench.vnnlib import parse_vnnlib

INPUTS = 3


class Groups(nn.Module):
    """The greatest entry of each of some groups of values, between two layers."""

    def __init__(self, entries: int, groups: int = 3, activation: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(INPUTS, entries * groups), nn.Linear(groups, 3)
        self.entries, self.activation = entries, activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.first(x)).unflatten(1, (self.entries, -1)).amax(1))


@torch.no_grad()
def problem(model: nn.Module, *, eps: float, samples: int = 6, seed: int = 0) -> Problem:
    """That such a network, with large weights, says what it says all around some inputs."""
    model = model.double()
    for parameter in model.parameters():
        parameter *= 3
    x = torch.rand(samples, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    graph = freeze(trace(model, (INPUTS,)), x)[0].detach()
    return Problem.of_labels(graph, x, graph(x).argmax(1), Linf(eps=eps, clip=None))


def decided(given: Problem, most: int = 1000, seconds: float = 30.0) -> Findings:
    limited = replace(given, budget=Budget.of([seconds] * len(given)))
    return BranchAndBound(max_subproblems=most)(limited, torch.Generator())


def least_margins(given: Problem, count: int = 41) -> Tensor:
    """The least margins of points of the boxes that are nowhere far apart, [B]."""
    shares = torch.cartesian_prod(*[torch.linspace(0, 1, count, dtype=torch.float64)] * INPUTS).unsqueeze(1)
    box = given.region.hull
    return given.margins(box.lower + shares * (box.upper - box.lower)).amin((0, 2))


POOLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "a padded pool": (nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(8, 2)), (2, 4, 3)),
    "a pool of an odd number": (nn.Sequential(nn.MaxPool1d(5, 2), nn.Flatten(), nn.Linear(6, 2)), (2, 9)),
    "groups": (Groups(7), (INPUTS,)),
    "groups of one": (Groups(1), (INPUTS,)),
}


@pytest.mark.parametrize("name", POOLS)
@torch.no_grad()
def test_maxima_as_relus_are_exactly_the_same_function(name):
    model, shape = POOLS[name]
    torch.manual_seed(0)
    x = torch.randn(3, *shape, dtype=torch.float64)
    x[2] = x[2].round()  # entries that are equal
    graph = freeze(trace(model.double(), shape), x)[0].detach()
    labels = torch.zeros(3, dtype=torch.long)
    changed = without_maxima(Problem.of_labels(graph, x, labels, Linf(0.1, clip=None))).net
    assert any(isinstance(node.op, Max) for node in graph.nodes)
    assert not any(isinstance(node.op, Max) for node in changed.nodes)
    forms = torch.eye(graph.classes, dtype=torch.float64)
    for point in x:
        assert rationals.forms(changed, point, forms) == rationals.forms(graph, point, forms)


def test_both_precisions_are_written_without_maxima():
    model, x, y = Groups(3), torch.rand(2, INPUTS), torch.tensor([0, 1])
    graph = freeze(trace(model, (INPUTS,)), x)[0].detach()
    double = Problem.of_labels(graph.to(torch.float64), x.double(), y, Linf(0.1))
    changed = without_maxima(Problem.of_labels(graph, x, y, Linf(0.1), double=double))
    for each, dtype in ((changed, torch.float32), (changed.proof, torch.float64)):
        assert not any(isinstance(node.op, Max) for node in each.net.nodes)
        assert each.net(each.x).dtype == dtype
    relus = without_maxima(double)
    assert without_maxima(relus) is relus


@pytest.mark.parametrize(("entries", "eps"), [(2, 0.3), (5, 0.2), (5, 0.4)])
@torch.no_grad()
def test_networks_of_maxima_are_decided_like_by_integer_programs(entries, eps):
    """A maximum of affine functions has no other neuron to split: planes alone leave most of these samples open."""
    torch.manual_seed(entries)
    given = problem(Groups(entries), eps=eps)
    found = decided(given)
    falsified = given.margins(found.witness).amin(1) < 0
    proof = given.proof
    inner = crown.boxes(proof.net, proof.region)
    for sample in range(len(given)):
        region, boxes = proof.region.take(torch.tensor([sample])), [box.take(torch.tensor([sample])) for box in inner]
        least = [minimum(proof.net, region, form, boxes, timeout=20.0) for form in proof.spec[sample]]
        assert falsified[sample] == (min(each.upper for each in least) < 0)
        assert (found.bound[sample] > 0) == (min(each.lower for each in least) > 0)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@torch.no_grad()
def test_a_bound_is_never_above_the_least_margin_of_a_grid(activation):
    torch.manual_seed(0)
    given = problem(Groups(3, activation=activation), eps=0.2)
    found, least = decided(given, 200, 5.0), least_margins(given)
    assert (found.bound <= least + 1e-12).all()
    assert ((found.bound > 0) | (given.margins(found.witness).amin(1) < 0)).sum() >= 4


@torch.no_grad()
def test_a_planted_violation_is_never_certified():
    """The least margin of a fine grid is moved to just below 0."""
    torch.manual_seed(1)
    given = problem(Groups(3, activation=nn.Tanh), eps=0.2, samples=3)
    least = least_margins(given)
    for sample in range(len(given)):
        one = given.select(torch.tensor([sample]))
        last = one.net.nodes[-1]
        bias = last.op.bias.clone()
        bias[one.net(one.x).argmax(1)] -= least[sample] + 1e-6
        nodes = (*one.net.nodes[:-1], replace(last, op=replace(last.op, bias=bias)))
        lowered = replace(one, net=replace(one.net, nodes=nodes))
        assert least_margins(lowered).item() < 0
        assert not decided(lowered, 200, 5.0).bound.item() > 0


def test_a_property_of_several_rows_is_proved_by_the_search():
    """Unsafe if both |x| <= 0.1 and |x - 1| <= 0.4, of a network of 21 inputs, which are not split."""
    net = nn.Linear(21, 2).double()
    with torch.no_grad():
        net.weight.zero_()
        net.weight[:, 0] = torch.tensor([1.0, 1.0], dtype=torch.float64)
        net.bias.copy_(torch.tensor([0.0, -1.0], dtype=torch.float64))
    inputs = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} -3))(assert (<= X_{i} 3))" for i in range(21))
    rows = ("(<= Y_0 0.1)", "(>= Y_0 -0.1)", "(<= Y_1 0.4)", "(>= Y_1 -0.4)")
    text = f"{inputs}(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (and {' '.join(rows)}))"
    result = verify_property(net, parse_vnnlib(text), stages=(BranchAndBound(),), timeout=20.0)
    assert result.verdict == "holds"
