"""Branch and bound decides what an exact solver decides, and certifies nothing else."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from ctbench.domains import beta_crown, crown, pairs
from ctbench.graph import Graph, freeze, trace
from ctbench.regions import L2, Linf
from ctbench.results import Verdict
from ctbench.time_budget import Budget, OutOfTime
from ctbench.verify import Bound, BranchAndBound, Cascade, Findings, Milp, Problem, Stage, branch_and_bound, subproblems
from ctbench.verify.worst_case import worst_case

GENERATOR = torch.Generator()


class Skip(nn.Module):
    """A residual block of vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def conv() -> nn.Module:
    layers = [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)]
    return nn.Sequential(*layers)


def residual() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), Skip(6), nn.Linear(6, 3))


def problem(build, seed: int, eps: float, *, samples: int = 5, threat=Linf) -> Problem:
    torch.manual_seed(seed)
    model = build().double()
    for parameter in model.parameters():
        parameter.data *= 1.7
    x = torch.rand(samples, 4, dtype=torch.float64)
    graph = freeze(trace(model, (4,)), x)[0].detach()
    return Problem.of_labels(graph, x, graph(x).argmax(1), threat(eps=eps))


def single(given: Problem) -> Problem:
    """The same in single precision, with the exact one next to it."""
    spec, region = given.spec.float(), given.region.to(torch.float32)
    return Problem(given.net.to(torch.float32), given.x.float(), region, spec, double=given)


def decided(given: Problem, seconds: float, stage: Stage | None = None) -> Findings:
    given = replace(given, budget=Budget.of([seconds] * len(given)))
    return (stage or BranchAndBound())(given, GENERATOR)


VARIANTS = {
    "double": (BranchAndBound(), False, 10**9),
    "single": (BranchAndBound(), True, 10**9),
    "pairs": (BranchAndBound(pairs=5, batch_subproblems=4), True, 0),
    "fallback": (BranchAndBound(fallback=Milp(), batch_subproblems=4), True, 10**9),
}


@pytest.mark.parametrize("build", [mlp, conv, residual])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(10))
@torch.no_grad()
def test_it_decides_as_an_exact_solver(build, variant, seed, monkeypatch):
    stage, in_single, many = VARIANTS[variant]
    monkeypatch.setattr(branch_and_bound, "MANY", many)
    given = problem(build, seed, eps=0.15, samples=4)
    found = decided(single(given) if in_single else given, 20.0, stage)
    reached = given.margins(found.witness).amin(1)
    inner = crown.boxes(given.net, given.region)
    for index in range(len(given)):
        one = torch.tensor([index])
        exact = worst_case(
            given.net,
            given.region.take(one),
            int(given.net(given.x)[index].argmax()),
            [box.take(one) for box in inner],
            timeout=30.0,
        )
        assert exact.upper - exact.lower < 1e-5
        # what is open has its bound in the precision of the network
        assert found.bound[index] <= exact.upper + (1e-5 if in_single and exact.upper < 0 else 1e-9)
        assert (found.bound[index] > 0) == (exact.lower > 0) or abs(exact.lower) < 1e-3
        assert (reached[index] < 0) == (exact.upper < 0) or abs(exact.upper) < 1e-3


@torch.no_grad()
def test_pairs_are_chosen_where_a_search_takes_long(monkeypatch):
    monkeypatch.setattr(branch_and_bound, "MANY", 0)
    seen = []
    choose = pairs.choose
    monkeypatch.setattr(pairs, "choose", lambda *args, **options: seen.append(choose(*args, **options)) or seen[-1])
    decided(problem(mlp, 0, eps=0.4, samples=30), 20.0, BranchAndBound(pairs=5, batch_subproblems=4))
    assert len(seen) == 1
    assert seen[0], "there are pairs that gain something"


@pytest.mark.parametrize(
    "changes", [{"max_subproblems": 1}, {"max_elements": 1}, {"batch_subproblems": 1, "max_subproblems": 3}]
)
@torch.no_grad()
def test_what_is_given_up_is_not_certified(changes):
    given = problem(mlp, 0, eps=0.4, samples=30)
    found, whole = decided(given, 20.0, BranchAndBound(**changes)), decided(given, 20.0)
    assert not ((found.bound > 0) & ~(whole.bound > 0)).any()
    assert (found.bound > 0).sum() < (whole.bound > 0).sum()
    assert (found.bound <= whole.bound + 1e-9)[whole.bound <= 0].all()


@torch.no_grad()
def test_a_counterexample_that_does_not_replay_certifies_nothing():
    given = single(problem(mlp, 0, eps=0.4, samples=30))
    free = Cascade(stages=(BranchAndBound(),), timeout=20.0).decide(given, GENERATOR)
    refused = Cascade(
        stages=(BranchAndBound(),), timeout=20.0, replay=lambda x: torch.tensor([[1.0, 0.0, 0.0]]) * math.nan
    ).decide(given, GENERATOR)
    falsified = [place for place, decision in enumerate(free) if decision.verdict is Verdict.FALSIFIED]
    assert len(falsified) > 5
    assert {refused[place].verdict for place in falsified} == {Verdict.UNKNOWN}


@torch.no_grad()
def test_what_single_precision_proves_counts_only_in_double():
    """The exact network is another one, whose margins are less: what is closed has its bound."""
    given = problem(mlp, 0, eps=0.1, samples=30)
    shifted = replace(single(given), double=replace(given, net=lowered(given.net)))
    found, proved = decided(shifted, 5.0), decided(replace(given, net=lowered(given.net)), 5.0)
    assert ((found.bound > 0) <= (proved.bound > 0)).all()
    assert (found.bound > 0).sum() < (decided(single(given), 5.0).bound > 0).sum()


def lowered(net: Graph) -> Graph:
    """With weights that are a bit less."""
    return net.map(lambda tensor: tensor - 0.05)


@torch.no_grad()
def test_a_bound_that_is_infinite_or_not_positive_closes_nothing():
    bound = torch.tensor([torch.inf, torch.nan, 0.0, 1e-300], dtype=torch.float64)
    assert subproblems.is_positive(bound).tolist() == [False, False, False, True]


@torch.no_grad()
def test_each_sub_problem_has_the_pairs_of_its_sample():
    given = problem(mlp, 0, eps=0.4, samples=30)
    root, _, frontier = subproblems.begin(given, 0, 2**28)
    root, frontier = root.paired(frontier, 5)
    assert len(frontier.sample.unique()) > 3
    for at, chosen in root.search.pairs_of(frontier).items():
        assert torch.equal(chosen.lower, root.search.pairs[at].lower[frontier.sample])
        assert len(chosen.lower.unique(dim=0)) > 3


@torch.no_grad()
def test_a_fallback_that_cannot_tell_anything_is_not_asked():
    """An integer program takes boxes alone."""
    given = problem(mlp, 2, eps=0.3, samples=20, threat=L2)
    found = decided(given, 5.0, BranchAndBound(fallback=Milp()))
    assert torch.equal(found.bound > 0, decided(given, 5.0).bound > 0)
    assert (found.bound > 0).any()


@torch.no_grad()
def test_where_all_signs_are_known_another_stage_is_asked(monkeypatch):
    """Bounds that are never found leave leaves open, and those a sample."""
    monkeypatch.setattr(subproblems, "LEAF_STEPS", 0)
    given = problem(mlp, 0, eps=0.4, samples=30)
    alone = decided(given, 20.0, BranchAndBound(steps=0, root_steps=0))
    asked = decided(given, 20.0, BranchAndBound(steps=0, root_steps=0, fallback=Milp()))
    exact = decided(given, 20.0, Milp())
    assert ((asked.bound > 0) == (exact.bound > 0)).all()
    assert (alone.bound > 0).sum() < (exact.bound > 0).sum()


@dataclass(frozen=True, kw_only=True)
class Fragile(Milp):
    """Integer programs that raise for batches with a sample of these, by their first coordinate."""

    bad: tuple[float, ...]
    asked: list[int] = field(default_factory=list, repr=False)

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        self.asked.append(len(problem))
        for first in problem.x[:, 0].tolist():
            if first in self.bad:
                raise RuntimeError(f"out of\n  luck at {first}")
        return super().__call__(problem, generator)


@pytest.fixture
def leafless(monkeypatch) -> Problem:
    """Thirty samples; branch and bound without steps gets stuck in some of them, and asks the fallback."""
    monkeypatch.setattr(subproblems, "LEAF_STEPS", 0)
    return problem(mlp, 0, eps=0.4, samples=30)


@torch.no_grad()
def test_a_fallback_that_raises_fails_for_the_samples_that_it_raises_for_alone(leafless):
    search = BranchAndBound(steps=0, root_steps=0)
    alone, good = decided(leafless, 20.0, search), decided(leafless, 20.0, replace(search, fallback=Milp()))
    assert good.failed == [{}] * 30
    won = ((good.bound > 0) & ~(alone.bound > 0)).nonzero().flatten().tolist()
    assert len(won) > 1
    bad = won[1]
    fallback = Fragile(bad=(leafless.x[bad, 0].item(),))
    found = decided(leafless, 20.0, replace(search, fallback=fallback))
    expected = good.bound > 0
    expected[bad] = False
    assert torch.equal(found.bound > 0, expected)
    assert [index for index, failed in enumerate(found.failed) if failed] == [bad]
    assert found.failed[bad] == {"milp": f"RuntimeError: out of luck at {fallback.bad[0]}"}
    assert fallback.asked[0] > 1, "samples are asked about together"


@torch.no_grad()
def test_a_fallback_that_always_raises_is_told_of_and_the_search_goes_on(leafless):
    search, fallback = BranchAndBound(steps=0, root_steps=0), Fragile(bad=tuple(leafless.x[:, 0].tolist()))
    found = decided(leafless, 20.0, replace(search, fallback=fallback))
    assert torch.equal(found.bound > 0, decided(leafless, 20.0, search).bound > 0)
    failed = [index for index, failed in enumerate(found.failed) if failed]
    assert 0 < len(failed) < 30
    assert set(fallback.asked) > {1}
    generator = torch.Generator().manual_seed(0)
    stages = (replace(search, fallback=fallback, batch_size=30),)
    decisions = Cascade(stages=stages).decide(leafless, generator)
    assert [index for index, decision in enumerate(decisions) if decision.failed] == failed
    assert {stage for decision in decisions for stage in decision.failed} == {"milp"}
    left = [decision for decision in decisions if decision.verdict is Verdict.UNKNOWN and decision.failed]
    assert left
    assert all(decision.reason.startswith("milp: RuntimeError: out of luck") for decision in left)


@dataclass(frozen=True, kw_only=True)
class Odd(Milp):
    """Integer programs that do something else first."""

    look: Callable[[Problem], Findings | None] = field(repr=False)

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        return self.look(problem) or super().__call__(problem, generator)


def too_many(problem: Problem) -> None:
    if len(problem) > 1:
        raise RuntimeError("too many at once")


def out_of_memory(problem: Problem) -> None:
    if len(problem) > 1:
        raise torch.OutOfMemoryError("out of memory")


def not_a_number(problem: Problem) -> Findings:
    return Findings(bound=torch.full((len(problem),), math.nan, dtype=torch.float64))


def misshapen(problem: Problem) -> Findings:
    return Findings(bound=torch.ones(len(problem), 2, dtype=torch.float64))


@torch.no_grad()
@pytest.mark.parametrize(
    ("look", "message", "helps"),
    [
        (too_many, "RuntimeError: too many at once", True),
        (out_of_memory, None, True),
        (not_a_number, "the bound is NaN", False),
        (misshapen, r"ValueError: the stage gave bounds of shape .*", False),
    ],
)
def test_what_a_fallback_does_wrong_is_told_and_proves_nothing(leafless, look, message, helps):
    search = BranchAndBound(steps=0, root_steps=0)
    found = decided(leafless, 20.0, replace(search, fallback=Odd(look=look)))
    expected = decided(leafless, 20.0, replace(search, fallback=Milp()) if helps else search)
    assert torch.equal(found.bound > 0, expected.bound > 0)
    told = {text for failed in found.failed for text in failed.values()}
    assert len(told) == (message is not None)
    assert all(re.fullmatch(message, text) for text in told)


@torch.no_grad()
def test_a_fallback_that_raises_and_then_runs_out_of_time_is_told_of(leafless):
    def look(problem: Problem) -> None:
        too_many(problem)
        raise OutOfTime

    found = decided(leafless, 20.0, BranchAndBound(steps=0, root_steps=0, fallback=Odd(look=look)))
    assert {text for failed in found.failed for text in failed.values()} == {"RuntimeError: too many at once"}


def test_a_stage_that_proves_nothing_is_not_asked():
    with pytest.raises(ValueError, match="whose bounds are not proofs"):
        BranchAndBound(fallback=Bound(domain="crown"))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_subproblems": 0},
        {"max_subproblems": 0},
        {"max_elements": 0},
        {"candidates": 0},
        {"steps": -1},
        {"root_steps": -1},
    ],
)
def test_numbers_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError, match="must be >= 1, and steps and root_steps >= 0"):
        BranchAndBound(**changes)


@torch.no_grad()
def test_a_sample_is_decided_alone_as_in_a_batch():
    given = single(problem(conv, 3, eps=0.3, samples=12))
    together = decided(given, 20.0).bound
    alone = torch.cat([decided(given.select(torch.tensor([index])), 20.0).bound for index in range(12)])
    assert ((together > 0) == (alone > 0)).all()


@torch.no_grad()
def test_a_sample_without_time_is_not_certified_by_what_was_closed_before():
    given = problem(mlp, 0, eps=0.4, samples=30)
    found = decided(given, 20.0)
    hurried = decided(given, 0.0)
    assert not ((hurried.bound > 0) & ~(found.bound > 0)).any()
    assert (found.bound > 0).sum() > (hurried.bound > 0).sum()


@torch.no_grad()
def test_time_is_kept():
    start = time.perf_counter()
    decided(problem(mlp, 0, eps=0.5, samples=10), 0.05)
    assert time.perf_counter() - start < 10


@torch.no_grad()
def test_a_network_with_nan_certifies_nothing():
    given = problem(mlp, 0, eps=0.01)
    broken = given.net.map(lambda tensor: torch.full_like(tensor, torch.nan) if tensor.shape == (10, 4) else tensor)
    found = decided(replace(given, net=broken), 1.0)
    assert not (found.bound > 0).any()


@torch.no_grad()
def test_a_network_without_activations_is_bounded_once():
    given = problem(lambda: nn.Linear(4, 3), 0, eps=0.1)
    found = BranchAndBound()(given, GENERATOR)
    exact = crown.lower_bounds(given.net, given.region, given.spec).amin(1)
    torch.testing.assert_close(found.bound, exact)


@torch.no_grad()
def test_points_outside_a_round_region_falsify_nothing():
    given = problem(mlp, 0, eps=0.6, samples=20, threat=L2)
    found = decided(given, 5.0)
    torch.testing.assert_close(given.region.project(found.witness), found.witness)
    assert (given.margins(found.witness).amin(1) < 0).any()


@torch.no_grad()
def test_sub_problems_of_large_networks_are_split_few_at_a_time(monkeypatch):
    given, sizes = problem(mlp, 0, eps=0.4, samples=10), []
    values = sum(math.prod(node.shape) for node in given.net.nodes)
    split = BranchAndBound._split

    def seen(self, part, *arguments):
        sizes.append(len(part))
        return split(self, part, *arguments)

    monkeypatch.setattr(BranchAndBound, "_split", seen)
    for at_once, most in ((3 * values, 3), (1, 1)):
        monkeypatch.setattr(branch_and_bound, "AT_ONCE", at_once)
        decided(given, 20.0)
        assert max(sizes) == most
        sizes.clear()


@torch.no_grad()
def test_no_bound_is_computed_of_no_sub_problem(monkeypatch):
    sizes, bounds = [], beta_crown.bounds_at

    def counted(graph, region, spec, *arguments):
        sizes.append(len(spec))
        return bounds(graph, region, spec, *arguments)

    monkeypatch.setattr(beta_crown, "bounds_at", counted)
    decided(problem(mlp, 0, eps=0.4, samples=10), 5.0)
    assert sizes
    assert 0 not in sizes
