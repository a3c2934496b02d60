"""Cases of a property as problems: many boxes in one batch, constraints on inputs, and rows of inputs and outputs."""

import time

import pytest
import torch
from tests.halfspaces import case, halfspaces, identity, of, tensor
from tests.stages import Custom
from torch import nn

from ctbench import time_budget
from ctbench.graph import Precisions
from ctbench.regions import Polytope
from ctbench.verify import Bound, Findings, InputSplit, Problem, property_graph, verify_property
from ctbench.verify.property_problems import groups
from ctbench.vnnlib import parse_vnnlib

SQUARE = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
SQUARE += "".join(f"(assert (<= -1 X_{i} 1))" for i in range(2))


def test_cases_with_single_rows_are_one_problem_with_many_boxes():
    seen = []

    def look(problem: Problem) -> Findings:
        seen.append(len(problem))
        return Findings()

    cases = [case((k / 100, 0), (k / 100, 1), halfspaces((1, 0, 0.5 - k))) for k in range(1, 600)]
    cases.append(case((0, 0), (1, 1), halfspaces((1, 0, 5)), halfspaces((0, 1, 5))))
    result = verify_property(identity(2), of(*cases), stages=(Custom(look=look),))
    assert (seen, result.verdict) == ([256, 256, 88], "unknown")
    # the bounds are those of single cases: 1.01 - 0.5 - 1, 2 / 100 + 0.5 - 2, ...
    result = verify_property(identity(2), of(*cases), stages=(Bound(domain="crown"),))
    assert result.bound == pytest.approx(599 / 100 + 0.5 - 599)


def test_each_case_of_a_batch_keeps_its_own_box_and_rows():
    holds = [case((k, 0), (k + 0.5, 1), halfspaces((-1, 0, k + 0.75)), halfspaces((0, 1, 0.5))) for k in range(40)]
    assert verify_property(identity(2), of(*holds)).verdict == "holds"
    for wrong in (0, 17, 39):
        cases = list(holds)
        cases[wrong] = case((wrong, 0), (wrong + 0.5, 1), halfspaces((-1, 0, wrong + 0.25)))
        result = verify_property(identity(2), of(*cases))
        assert result.verdict == "violated"
        x, y = result.counterexample
        assert wrong + 0.25 <= x[0] <= wrong + 0.5
        assert of(cases[wrong]).is_counterexample(x, y)


def test_cases_with_the_same_alternatives_are_one_problem():
    two = halfspaces((1, 0), (-1, -3))
    cases = [case((k,), (k + 1,), two) for k in range(5)] + [case((9,), (10,), halfspaces((1, -9), (-1, 9)))]
    assert [len(members) for members in groups(cases, 1)] == [5, 1]


def test_the_time_of_many_boxes_is_not_that_of_each():
    def slow(problem: Problem) -> Findings:
        while problem.budget.left.sum() > 0 and time.perf_counter() < stop:
            time.sleep(0.01)
            time_budget.check()
        return Findings()

    cases = [case((k,), (k + 1,), halfspaces((1, 5))) for k in range(100)]
    stop = time.perf_counter() + 20
    result = verify_property(identity(1), of(*cases), stages=(Custom(look=slow),), timeout=0.5)
    assert result.seconds < 5
    assert (result.verdict, result.open.name) == ("unknown", "TIME")


def test_constraints_on_inputs_decide():
    """max of x0 + x1 over the square is 2, and 0.5 where x0 + x1 <= 0.5."""
    row = "(assert (<= (+ X_0 X_1) 0.5))"
    for extra, bound, verdict in (
        ("", "1", "violated"),
        (row, "1", "holds"),
        (row, "0.51", "holds"),
        (row, "0.5", "violated"),
        (row, "0.49", "violated"),
        ("(assert (= X_0 X_1 0.25))", "0.51", "holds"),
        ("(assert (= X_0 (- X_1)))", "0.000001", "holds"),
        ("(assert (= X_0 (- X_1)))", "0", "violated"),
    ):
        prop = parse_vnnlib(f"{SQUARE}{extra}(assert (>= (+ Y_0 Y_1) {bound}))")
        result = verify_property(identity(2), prop, timeout=20.0)
        assert result.verdict == verdict, (extra, bound, result)
        if verdict == "violated":
            assert prop.is_counterexample(*result.counterexample)


def test_a_network_on_a_polytope_agrees_with_its_samples():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    grid = torch.cartesian_prod(torch.linspace(-1, 1, 401), torch.linspace(-1, 1, 401)).double()
    inside = grid[(grid[:, 0] + 2 * grid[:, 1] <= 0.25) & (grid[:, 1] >= grid[:, 0] - 0.5)]
    text = SQUARE + "(assert (<= (+ X_0 (* 2 X_1)) 0.25))(assert (>= X_1 (- X_0 0.5)))"
    most = net(inside)[:, 0].max().item()
    assert most < net(grid)[:, 0].max().item() - 0.01  # the constraints matter
    for stages in ((Bound(domain="crown"), InputSplit()), None):
        options = {} if stages is None else {"stages": stages}
        above = verify_property(net, parse_vnnlib(f"{text}(assert (>= Y_0 {most + 0.01:.9f}))"), **options)
        below = verify_property(net, parse_vnnlib(f"{text}(assert (>= Y_0 {most - 0.01:.9f}))"), **options)
        assert (above.verdict, below.verdict) == ("holds", "violated")


def test_the_region_of_constraints_is_a_polytope_in_both_precisions():
    seen = []

    def look(problem: Problem) -> Findings:
        seen.append(problem)
        return Findings()

    prop = parse_vnnlib(SQUARE + "(assert (<= X_0 X_1))(assert (>= Y_0 5))")
    verify_property(identity(2, torch.float32), prop, stages=(Custom(look=look),))
    for problem, dtype in ((seen[0], torch.float32), (seen[0].proof, torch.float64)):
        assert isinstance(problem.region, Polytope)
        assert problem.region.rows.dtype == dtype
        assert problem.region.rows.tolist() == [[[1, -1]]]


def test_rows_of_inputs_and_outputs_read_both():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2) * 0.5)
        net[0].bias.copy_(torch.tensor([0.25, 0.0]))
    for row, verdict in (
        ("(>= Y_0 (+ X_0 0.8))", "holds"),  # 0.5 x + 0.25 >= x + 0.8 iff x <= -1.1
        ("(>= Y_0 (+ X_0 0.7))", "violated"),
        ("(and (<= Y_1 X_1) (>= Y_1 0.6))", "holds"),
        ("(and (<= Y_1 X_1) (>= Y_1 0.4))", "violated"),
    ):
        prop = parse_vnnlib(f"{SQUARE}(assert {row})")
        result = verify_property(net, prop, timeout=20.0)
        assert result.verdict == verdict, row
        if verdict == "violated":
            assert prop.is_counterexample(*result.counterexample)


def test_a_counterexample_is_a_point_of_single_precision_where_there_is_one():
    result = verify_property(identity(1), of(case((0.1,), (0.7,), halfspaces((1, -0.3)))))
    x, _ = result.counterexample
    assert x.float().double() == x
    assert 0.1 <= x.item() <= 0.3


def test_another_implementation_that_disagrees_is_asked():
    asked = []

    def replay(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        return x + 5

    result = verify_property(identity(1), of(case((0,), (1,), halfspaces((1, -0.5)))), replay=replay, timeout=2.0)
    assert (result.verdict, len(asked) > 0) == ("unknown", True)


def test_rows_of_outputs_and_inputs_make_one_margin():
    network = Precisions.of(identity(2), tensor((0, 0)))
    assert property_graph(network.search, (halfspaces((1, 0, 0, 0, 0)),), network.like).classes == 1
