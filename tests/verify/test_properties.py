"""Properties: what is appended to a network says what the property says, and no verdict about it is wrong."""

import math

import pytest
import torch
from tests.halfspaces import STAGES, case, halfspaces, identity, of, tensor
from tests.stages import Custom
from torch import nn

from ctbench.attacks import Attack
from ctbench.graph import Precisions
from ctbench.networks import MLP
from ctbench.onnx import load_onnx, save_onnx
from ctbench.verify import (
    FAST_STAGES,
    BranchAndBound,
    Falsify,
    Findings,
    InputSplit,
    Problem,
    property_graph,
    verify_property,
)
from ctbench.vnnlib import Case, Halfspaces, VnnlibError, parse_vnnlib

THIRD, TENTH = 1 / 3, 0.1  # neither is a number in single precision


def test_outputs_are_the_greatest_row_of_each_alternative():
    unsafe = (
        halfspaces((1, 0, -0.5), (0, 1, -0.25), (-1, -1, 1)),
        halfspaces((1, -1, 0)),
        halfspaces((0, 0, -2), (2, 0, 0)),
    )
    network = Precisions.of(identity(2), tensor((0, 0)))
    graph = property_graph(network.search, unsafe, network.like)
    y = tensor((1, 0), (0.5, 0.25), (0, 3), (-1, 0.125))
    assert graph(y).tolist() == [[0.5, 1, 2], [0.25, 0.25, 1], [2.75, -3, 0], [1.875, -1.125, -2]]
    assert graph.classes == 3


def test_alternatives_of_one_row_need_no_maximum():
    network = Precisions.of(identity(2), tensor((0, 0)))
    graph = property_graph(network.search, (halfspaces((1, -1, 0.5)), halfspaces((0, 1, 0))), network.like)
    assert len(graph.nodes) == len(network.search.nodes) + 1
    assert graph(tensor((0.25, 1))).tolist() == [[-0.25, 1]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_and_offsets_are_exact_in_double_precision(dtype):
    network = Precisions.of(identity(2, dtype), torch.zeros(1, 2))
    op = property_graph(network.search, (halfspaces((THIRD, -TENTH, TENTH)),), network.like).nodes[-1].op
    assert torch.equal(op.weight, tensor((THIRD, -TENTH)).to(dtype))
    assert torch.equal(op.bias, tensor(TENTH).to(dtype))


def test_an_offset_below_single_precision_decides():
    """1 + 1e-9 is 1 in single precision."""
    holds = of(case((1,), (2,), halfspaces((1, 1e-9 - 1))))
    assert verify_property(identity(1), holds).verdict == "holds"
    assert verify_property(identity(1, torch.float32), holds, stages=FAST_STAGES).verdict == "unknown"
    assert verify_property(identity(1, torch.float32), holds).verdict == "holds"
    violated = of(case((1,), (2,), halfspaces((1, -1e-9 - 1))))
    assert verify_property(identity(1, torch.float32), violated).verdict == "violated"


def test_rows_of_another_network_are_refused():
    network = Precisions.of(identity(2), tensor((0, 0)))
    with pytest.raises(ValueError, match=r"takes 3 features, its input has shape \(2,\)"):
        property_graph(network.search, (halfspaces((1, 0, 0, 0)),), network.like)


# Verdicts


def test_offsets_count():
    unit = ((0.0,), (1.0,))
    holds = verify_property(identity(1), of(case(*unit, halfspaces((1, 0.5)))))
    assert (holds.verdict, holds.stage, holds.counterexample) == ("holds", "interval", None)
    assert holds.bound == pytest.approx(0.5)
    violated = verify_property(identity(1), of(case(*unit, halfspaces((1, -0.5)))))
    assert (violated.verdict, violated.stage) == ("violated", "pgd")
    x, y = violated.counterexample
    assert x.dtype == y.dtype == torch.float64
    assert x.item() == y.item() <= 0.5


def test_a_conjunction_is_refuted_by_any_row():
    box = ((0.6, 0.0), (1.0, 1.0))
    both = halfspaces((1, 0, -0.5), (0, 1, -0.5))  # y_0 <= 0.5 and y_1 <= 0.5
    result = verify_property(identity(2), of(case(*box, both)))
    assert (result.verdict, result.bound) == ("holds", pytest.approx(0.1))
    either = (halfspaces((1, 0, -0.5)), halfspaces((0, 1, -0.5)))
    assert verify_property(identity(2), of(case(*box, *either))).verdict == "violated"


def test_a_conjunction_is_violated_only_where_all_rows_are():
    wide = halfspaces((1, 0, -0.5), (-1, 0, 0.4))  # 0.4 <= y_0 <= 0.5
    found = verify_property(identity(2), of(case((0, 0), (1, 1), wide)))
    assert found.verdict == "violated"
    assert 0.4 <= found.counterexample[1][0] <= 0.5
    none = halfspaces((1, 0, -0.4), (-1, 0, 0.5))  # y_0 <= 0.4 and y_0 >= 0.5
    assert verify_property(identity(2), of(case((0, 0), (1, 1), none)), stages=STAGES).verdict == "unknown"


def strictly(*rows: tuple[float, ...]) -> Halfspaces:
    edges = torch.ones(len(rows), dtype=torch.bool)
    return Halfspaces(tensor(*rows)[:, :-1], tensor(*rows)[:, -1], edges)


def test_the_edge_of_an_unsafe_set_is_a_counterexample_unless_it_is_strict():
    """At x = 0 the output is on the edge."""
    result = verify_property(identity(1), of(case((0,), (1,), halfspaces((1, 0)))))
    assert (result.verdict, result.stage) == ("violated", "pgd")
    assert [value.tolist() for value in result.counterexample] == [[0], [0]]
    result = verify_property(identity(1), of(case((0,), (1,), strictly((1, 0)))), stages=STAGES)
    assert (result.verdict, result.bound) == ("unknown", 0)
    assert verify_property(identity(1), of(case((1e-6,), (1,), halfspaces((1, 0))))).verdict == "holds"


@pytest.mark.parametrize("stage", [InputSplit(), BranchAndBound()])
def test_searches_find_edges(stage):
    """y = -relu(x), y >= 0: wherever the ReLU is off."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(-1.0)
    net = nn.Sequential(nn.ReLU(), layer).double()
    box = ((-1.0,), (2.0,))
    assert verify_property(net, of(case(*box, halfspaces((-1, 0)))), stages=(stage,)).verdict == "violated"
    assert verify_property(net, of(case(*box, strictly((-1, 0)))), stages=(stage,), timeout=1.0).verdict == "unknown"


def test_an_attack_keeps_the_edge_that_it_found_in_an_earlier_round():
    points = iter(tensor((0,), (0.5,), (0.25,)))

    class Scripted(Attack):
        name = "scripted"

        def __call__(self, objective, region, x, generator):
            return next(points).view(1, 1)

    falsify = Falsify(attack=Scripted())
    result = verify_property(identity(1), of(case((0,), (1,), halfspaces((1, 0)))), stages=(falsify,))
    assert result.verdict == "violated"
    assert list(points) == []


VARIABLES = "(declare-const X_0 Real)(declare-const Y_0 Real)"
UNIT = "(assert (<= X_0 0))(assert (>= X_0 -1))"
TENTHS = "(assert (<= X_0 1))(assert (>= X_0 0))(assert (>= (+ (* 0.1 Y_0) (* 0.2 Y_0) (* -0.3 Y_0)) {}))"
EITHER = "(assert (or (and (<= X_0 -1)(>= X_0 -2)) (and (<= X_0 2)(>= X_0 1))))"


@pytest.mark.parametrize(
    ("asserts", "right"),
    [
        ("(assert (< X_0 0.5))(assert (>= X_0 0.5))(assert (>= Y_0 0))", "holds"),  # no input
        ("(assert (< X_0 0.5))(assert (> X_0 0.5))(assert (>= Y_0 0))", "holds"),
        ("(assert (<= X_0 0.5))(assert (>= X_0 0.5))(assert (>= Y_0 0))", "violated"),
        ("(assert (< X_0 0.5))(assert (>= X_0 0))(assert (>= Y_0 0.5))", "holds or unknown"),
        ("(assert (< X_0 0.5))(assert (>= X_0 0))(assert (>= Y_0 0.499999))", "violated"),
        ("(assert (<= X_0 0.5))(assert (>= X_0 0))(assert (>= Y_0 0.5))", "violated"),
        ("(assert (<= X_0 0.5))(assert (>= X_0 0))(assert (> Y_0 0.5))", "holds or unknown"),
        ("(assert (<= X_0 0))(assert (>= X_0 1))(assert (>= Y_0 0))", "error"),
        ("(assert (<= X_0 0))(assert (>= Y_0 0))", "error"),  # unbounded
        ("(assert (= X_0 0))(assert (>= Y_0 0))", "violated"),
        (UNIT, "error"),  # nothing about outputs
        (UNIT + "(assert (<= 1 2))", "violated"),
        (UNIT + "(assert (<= 2 1))", "holds"),
        (UNIT + "(assert (< 1 1))", "holds"),
        (UNIT + "(assert (<= 1 1))", "violated"),
        (UNIT + "(assert (<= X_0 X_0))(assert (<= Y_0 -2))", "holds"),
        (UNIT + "(assert (< X_0 X_0))(assert (<= Y_0 0))", "holds"),  # never
        (UNIT + "(declare-const X_0 Real)(assert (<= Y_0 -2))", "error"),
        (UNIT + "(declare-const X_2 Real)(assert (<= Y_0 -2))", "error"),
        (UNIT + "(assert (<= (* Y_0 Y_0) -2))", "error"),
        (UNIT + "(assert (<= Y_0 X_0))", "violated"),
        (UNIT + "(assert (< Y_0 X_0))", "holds or unknown"),
        (UNIT + "(assert (<= Y_0 (- X_0 0.25)))", "holds"),
        (EITHER + "(assert (<= Y_0 0))(assert (>= Y_0 -0.5))", "holds"),
        (EITHER + "(assert (>= Y_0 1.5))", "violated"),
        # x = 1/3 is one, but no float64 number of the box
        ("(assert (<= (* 3 X_0) 1))(assert (>= X_0 0))(assert (>= Y_0 0.3333333333333333149))", "violated or unknown"),
        ("(assert (<= X_0 (+ 0.1 0.2)))(assert (>= X_0 0))(assert (>= Y_0 0.30000000000000003))", "holds or unknown"),
        ("(assert (<= X_0 1e-400))(assert (>= X_0 -1e-400))(assert (>= Y_0 1e-300))", "holds or unknown"),
        ("(assert (<= X_0 1e400))(assert (>= X_0 0))(assert (>= Y_0 1))", "error"),
        (TENTHS.format("0.0000000001"), "holds"),
        (TENTHS.format("0"), "violated"),
        ("(assert (<= X_0 0.1))(assert (>= X_0 0.1))(assert (>= Y_0 0.05))", "violated"),
        ("(assert (<= X_0 0.1))(assert (>= X_0 0.1))(assert (>= Y_0 0.15))", "holds"),
        (
            "(assert (<= X_0 0.1))(assert (>= X_0 0.1))(assert (> Y_0 0.1))",
            "holds or unknown",
        ),  # but not for 0.1's float64
    ],
)
def test_odd_but_legal_properties(asserts: str, right: str):
    try:
        prop = parse_vnnlib(VARIABLES + asserts)
    except VnnlibError:
        assert right == "error"
        return
    found = verify_property(identity(1), prop, timeout=1.0)
    assert found.verdict in right.split(" or ")
    if found.counterexample is not None:
        assert prop.is_counterexample(*found.counterexample)


def test_cancelling_coefficients_of_great_outputs():
    """0.1 + 0.2 - 0.3 is 0, and 5.5e-17 in float64."""
    great = identity(1)
    great.weight.data.fill_(1e17)
    assert verify_property(great, parse_vnnlib(VARIABLES + TENTHS.format("1"))).verdict == "holds"


def test_a_case_that_holds_at_once_does_not_hide_another():
    never, near = halfspaces((0, 1)), halfspaces((1, -0.5))
    for cases, verdict in (
        ((case((0,), (1,), never),), "holds"),
        ((case((0,), (1,), never), case((0,), (1,), near)), "violated"),
        ((case((0,), (1,), never, near),), "violated"),
        ((case((0,), (1,), never), case((1,), (2,), near)), "holds"),
    ):
        assert verify_property(identity(1), of(*cases), timeout=2.0).verdict == verdict
    found = verify_property(identity(1), of(case((0,), (1,), never)))
    assert (found.stage, found.bound, found.reason) == ("", None, "")


def test_a_proof_is_about_the_box_around():
    """0.3 is above the nearest float64 number, which a box of nearest numbers would leave out."""
    prop = parse_vnnlib(VARIABLES + "(assert (<= X_0 0.3))(assert (>= X_0 0.1))(assert (>= Y_0 1))")
    seen = []

    def look(problem: Problem) -> Findings:
        seen.append(problem)
        return Findings(witness=tensor((9,)))

    found = verify_property(identity(1), prop, stages=(Custom(look=look),))
    assert found.verdict == "unknown"
    (problem,) = seen
    assert problem.region.upper.item() == math.nextafter(0.3, 1)
    assert problem.region.lower.item() == math.nextafter(0.1, 0)
    points, is_counterexample = problem.proof.rule.select(torch.tensor([0, 0]))(tensor((0.4,), (0,)))
    assert points.flatten().tolist() == [0.3, 0.1]  # 0.3 in float64 is below 0.3, and 0.1 above
    assert is_counterexample.tolist() == [False, False]


def test_all_cases_must_hold():
    near, far = halfspaces((1, -0.5)), halfspaces((1, -10))
    first = case((1,), (2,), near)
    assert verify_property(identity(1), of(first, case((3,), (4,), near))).verdict == "holds"
    result = verify_property(identity(1), of(first, case((3,), (4,), far), case((20,), (30,), far)))
    assert result.verdict == "violated"
    assert 3 <= result.counterexample[0].item() <= 4
    tie = case((0.5,), (4,), strictly((1, -0.5)))
    result = verify_property(identity(1), of(first, tie, case((3,), (4,), near)), timeout=2.0)
    assert (result.verdict, result.bound) == ("unknown", 0)


def test_the_bound_is_the_least_of_all_cases():
    unsafe = halfspaces((1, 0))
    cases = [case((lower,), (9,), unsafe) for lower in (3, 1, 2)]
    assert verify_property(identity(1), of(*cases)).bound == pytest.approx(1)

    def silent(problem: Problem) -> Findings:
        return Findings() if problem.region.lower.item() == 1 else Findings(bound=tensor(0.5))

    assert verify_property(identity(1), of(*cases), stages=(Custom(look=silent, batch_size=1),)).bound is None


def test_a_counterexample_lies_in_the_box_in_double_precision():
    """0.7 in single precision is below 0.7, and 0.1 above 0.1."""
    prop = of(case((0.1, 0.7), (0.1, 0.7), halfspaces((0, -1, 0.7 - 1e-9))))
    result = verify_property(identity(2, torch.float32), prop)
    assert result.verdict == "violated"
    assert result.counterexample[0].tolist() == [0.1, 0.7]
    assert prop.is_counterexample(*result.counterexample)


def test_inputs_are_in_c_order_of_the_shape(tmp_path):
    """The network's output is the pixel in row 1, column 0; which is 0.5 or more, whatever the others are."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[0.0, 0, 1, 0]])
    model = nn.Sequential(nn.Flatten(), layer)
    prop = of(case((0, 0, 0.5, 0), (1, 1, 1, 1), halfspaces((1, -0.25))))
    assert verify_property(model, prop, input_shape=(1, 2, 2)).verdict == "holds"
    save_onnx(model, tmp_path / "model.onnx", (1, 2, 2))
    read = load_onnx(tmp_path / "model.onnx")
    assert verify_property(read, prop).verdict == "holds"
    prop = of(case((0, 0.5, 0, 0), (1, 1, 1, 1), halfspaces((1, -0.25))))
    result = verify_property(read, prop)
    assert result.verdict == "violated"
    assert result.counterexample[0].shape == (1, 2, 2)


def test_a_point_next_to_a_box_of_tiny_numbers_is_no_counterexample():
    """The numbers of the box are smaller than any of double precision: 0, which stands for them, does not lie in it."""
    steep = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        steep.weight.fill_(1e300)
    text = """(declare-const X_0 Real) (declare-const Y_0 Real)
    (assert (>= X_0 0.{0}1)) (assert (<= X_0 0.{0}2)) (assert (<= Y_0 {1}))"""
    tiny = text.format("0" * 329, "0." + "0" * 30 + "5")
    assert verify_property(steep, parse_vnnlib(tiny), timeout=5.0).verdict != "violated"


def test_a_network_without_numbers_of_its_own():
    assert verify_property(nn.ReLU(), of(case((-1,), (1,), halfspaces((1, THIRD))))).verdict == "holds"


GRID = torch.cartesian_prod(*[torch.linspace(0, 1, 41, dtype=torch.float64)] * 2)


def random_case(generator: torch.Generator, outputs: int) -> Case:
    """A box in the plane, and one to three conjunctions of one to three rows."""
    center, radius, *sizes = (torch.rand(2, generator=generator, dtype=torch.float64) for _ in range(5))
    counts = [1 + int(3 * float(size[0])) for size in sizes]
    unsafe = []
    for count in counts[: 1 + int(3 * float(sizes[0][1]))]:
        rows = torch.randn(count, outputs, generator=generator, dtype=torch.float64)
        unsafe.append(Halfspaces(rows, torch.rand(count, generator=generator, dtype=torch.float64)))
    return Case(2 * center - 1 - radius / 2, 2 * center - 1 + radius / 2, tuple(unsafe))


def test_no_verdict_contradicts_a_dense_grid():
    generator = torch.Generator().manual_seed(1)
    seen = {"holds": 0, "violated": 0, "unknown": 0}
    for trial in range(40):
        torch.manual_seed(trial)
        model = MLP(hidden=(8, 6)).build((2,), 3).to((torch.float32, torch.float64)[trial % 2])
        prop = of(*(random_case(generator, 3) for _ in range(1 + trial % 3)))
        result = verify_property(model, prop, stages=STAGES, timeout=None)
        seen[result.verdict] += 1
        exact = model.double()
        if result.verdict == "holds":
            for one in prop.cases:
                points = one.lower + GRID * (one.upper - one.lower)
                assert not one.violated(exact(points)).any(), trial
        if result.verdict == "violated":
            x, y = result.counterexample
            assert torch.allclose(y, exact(x.unsqueeze(0))[0], rtol=0, atol=1e-12)
            assert prop.is_counterexample(x, y), trial
    assert min(seen["holds"], seen["violated"]) > 8, seen
