"""Comparisons, choices and whole numbers: values are torch's, bounds hold, and a tie proves nothing."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ctbench import bounds, verify
from ctbench.graph import UnsupportedLayerError, comparisons, freeze, trace
from ctbench.graph.functions import READINGS
from ctbench.regions import Box
from ctbench.verify import rationals
from ctbench.vnnlib import parse_vnnlib

FORWARDS = {
    "argmax": lambda z: z.argmax(1, keepdim=True),
    "argmin of rows": lambda z: torch.argmin(z.view(-1, 2, 3), 2),
    "places of the greatest": lambda z: z.topk(3, 1).indices,
    "an order": lambda z: torch.sort(z.view(-1, 2, 3), 2)[1],
    "place of the greatest": lambda z: torch.max(z, 1, keepdim=True)[1] + 10 * z.min(1, True).indices,
    "one hot": lambda z: F.one_hot(z.argmax(1), 6),
    "one hot of two": lambda z: F.one_hot(z[:, :2].argmax(1), 2),
    "greater or equal": lambda z: (z >= 0.2).float(),
    "greater": lambda z: (z[:, :3] > z[:, 3:]).to(torch.float64),
    "less": lambda z: (z < 0.1) | (z.le(-0.4)),
    "choice of values": lambda z: torch.where(z[:, :3] > z[:, 3:], z[:, :3], 1.0),
    "choice of two values": lambda z: torch.where(z < 0, -z, 2 * z),
    "filled": lambda z: z.masked_fill(z < 0, 0.25),
    "choice of numbers": lambda z: torch.where(z < 0, 0.1, 0.3) * z + torch.where(z < 0.5, 1, 2),
    "truth values": lambda z: ((z > 0) & (z < 1)).long() + (~((z > 0) | (z < -0.5))) * 2,
    "negation": lambda z: torch.logical_not(z < 0),
    "whole numbers and truth values": lambda z: (3 * z).long().bool(),
    "exclusive or": lambda z: torch.logical_xor(z > 0, z > 0.1),
    "whole numbers": lambda z: (3 * z).trunc() + (4 * z).int() + (5 * z).round(),
    "equal": lambda z: ((3 * z).round() == 1.0).float(),
    "not equal": lambda z: (3 * z).floor() != (2 * z).floor(),
    "thresholds": lambda z: F.threshold(z, 0.1, 20.0) + torch.threshold(z, -0.3, -0.3) + F.threshold(z, 0.5, 0.25),
    "count": lambda z: (z.view(-1, 2, 3) > 0).float().sum((1, 2)).unsqueeze(1),
}


class Forward(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.name = nn.Linear(6, 6), name

    def forward(self, x: Tensor) -> Tensor:
        return FORWARDS[self.name](self.layer(x))


@pytest.mark.parametrize("name", FORWARDS)
def test_values_and_bounds(name):
    model = Forward(name).double()
    x = 0.7 * torch.randn(500, 6, dtype=torch.float64)
    graph = freeze(trace(model, (6,)), x)[0]
    torch.testing.assert_close(graph(x), model(x).double().flatten(1), rtol=0, atol=1e-12)
    center = 0.4 * torch.randn(1, 6, dtype=torch.float64)
    for eps in (0.0, 0.2):
        box = Box(center - eps, center + eps)
        reached = model(torch.cat([box.sample(500)[:, 0], center])).double().flatten(1)
        for domain in ("interval", "zonotope", "crown-ibp", "crown", "alpha-crown"):
            lower, upper = bounds(model, box, domain=domain)
            assert (lower <= reached.amin(0) + 1e-12).all(), domain
            assert (upper >= reached.amax(0) - 1e-12).all(), domain
            if eps == 0:
                assert (upper - lower <= 1e-9).all(), domain


def test_a_softmax_before_a_choice_is_left_out():
    class Softmax(nn.Module):
        def __init__(self, axis: int) -> None:
            super().__init__()
            self.layer, self.axis = nn.Linear(6, 6), axis

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).view(-1, 3, 2).softmax(self.axis).transpose(1, 2).argmax(2)

    kinds = [{type(node.op).__name__ for node in trace(Softmax(axis), (6,)).nodes} for axis in (1, 2)]
    assert "CappedExp" not in kinds[0]
    assert "CappedExp" in kinds[1]  # the choice is among entries of different softmaxes


class Choice(nn.Module):
    """The place of the greatest of (x_0, x_1, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1)).argmax(1, keepdim=True)


HEAD = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"


@pytest.mark.parametrize(
    ("box", "unsafe", "verdict"),
    [
        (((0.5, 1), (-1, 0.4)), "(>= Y_0 0.5)", "holds"),
        (((0.5, 1), (-1, 0.6)), "(>= Y_0 0.5)", "violated"),
        (((0.5, 0.5), (0.5, 0.5)), "(>= Y_0 0.5)", "unknown"),  # a tie, which ONNX breaks for the first entry
        (((0.5, 0.5), (0.5, 0.5)), "(<= Y_0 0)", "violated"),
    ],
)
def test_properties_of_choices(box, unsafe, verdict):
    asserts = "".join(f"(assert (>= X_{i} {low}))(assert (<= X_{i} {high}))" for i, (low, high) in enumerate(box))
    prop = parse_vnnlib(f"{HEAD}{asserts}(assert {unsafe})")
    assert verify.verify_property(Choice().double(), prop, timeout=5.0).verdict == verdict


def test_every_reading_has_an_example():
    readings = {target: one for target, one in READINGS.items() if one.__module__ == comparisons.__name__}
    trees = (fx.symbolic_trace(Forward(name)).graph.nodes for name in FORWARDS)
    shown = {readings.get(node.target) for nodes in trees for node in nodes}
    missing = {target: one for target, one in readings.items() if one not in shown}
    assert not missing


def test_exact_values():
    model = Forward("one hot").double()
    x = torch.randn(6, dtype=torch.float64)
    graph = freeze(trace(model, (6,)), x.unsqueeze(0))[0]
    assert rationals.forms(graph, x, torch.eye(6, dtype=torch.float64)) == model(x.unsqueeze(0))[0].tolist()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda z: (z == 0.5).float(), "may not be whole: compare them by >= or <="),
        (lambda z: z.bool().float(), r"compare them with a number, e\.g\. x > 0"),
        (lambda z: torch.cat([z] * 60, 1).argmax(1, keepdim=True), "at most 300"),
        (lambda z: z.argmax(), "name the dimension"),
        (lambda z: z.to(torch.int8), "give torch.int64 or torch.bool"),
        (lambda z: F.one_hot(z.argmax(1)), "give the number of classes"),
    ],
)
def test_what_is_refused(forward, message, monkeypatch):
    monkeypatch.setitem(FORWARDS, "refused", forward)
    with pytest.raises(UnsupportedLayerError, match=message):
        trace(Forward("refused"), (6,))


@pytest.mark.parametrize("join", [operator.and_, operator.or_, operator.xor, torch.logical_and])
def test_a_truth_value_that_is_joined_can_be_used_again(join):
    """Far from the random inputs of a check, too, where both truth values are alike."""

    class Joined(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first, second = x > 0.1, x < 10
            return 2 * first.to(x.dtype) + join(first, second).to(x.dtype)

    x = torch.tensor([[-3.0, 0.05, 0.2, 9.0, 11.0, 20.0]]).double()
    assert torch.equal(trace(Joined(), (6,))(x), Joined()(x))


@pytest.mark.parametrize(("threshold", "value"), [(0.0, -float("inf")), (float("nan"), 0.0), (1e308, -1e308)])
def test_a_threshold_has_finite_numbers(threshold, value):
    with pytest.raises(UnsupportedLayerError, match="give smaller numbers"):
        trace(nn.Sequential(nn.Threshold(threshold, value)), (3,))
