"""IBP-R: its regulariser, by hand and in its gradient, and the region of its attack."""

import pytest
import torch
from torch import nn

from ctbench import attacks
from ctbench.domains import interval
from ctbench.graph import freeze, trace
from ctbench.methods.ibp import IBP
from ctbench.methods.ibp_r import IBPR, instability
from ctbench.methods.pgd import PGD
from ctbench.regions import Box, Linf

ATTACK = attacks.PGD(steps=3, restarts=2)
FIXED = attacks.PGD(steps=0)


def regulariser(setting):
    """R for each sample, from IBP's boxes."""
    net, logits = setting.frozen()
    return instability(net, interval.boxes(net, setting.batch(logits).region))


def test_the_regulariser_by_hand():
    """x + y in [-1, 2], x - y in [-2, 1]; then their sum, in [0, 3], less 1 and plus 1. The other sample is a point."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        model[2].weight.copy_(torch.ones(2, 2))
        model[0].bias.zero_()
        model[2].bias.copy_(torch.tensor([-1.0, 1.0]))
    lower, upper = torch.tensor([[-1.0, 0.0], [0.5, 0.0]]).double(), torch.tensor([[1.0, 1.0], [0.5, 0.0]]).double()
    graph = trace(model, (2,))
    boxes = interval.boxes(graph, Box(lower, upper))
    assert instability(graph, boxes).tolist() == [2 * 1 + 1 * 2 + 2 * 1 + 0, 0]


def test_a_network_without_relus_has_nothing_to_regularise():
    model, x = nn.Linear(3, 2).double(), torch.rand(4, 3).double()
    graph = freeze(trace(model, (3,)), x)[0]
    assert instability(graph, interval.boxes(graph, Linf(eps=0.1).region(x))).tolist() == [0] * 4


def test_without_weight_and_scale_it_is_adversarial_training(same_method):
    same_method(IBPR(weight=0.0, scale=1.0, attack=ATTACK), PGD(attack=ATTACK))


@pytest.mark.parametrize("scale", [0.5, 2.1])
def test_the_attack_searches_the_scaled_region_and_the_bounds_do_not(setting, scale):
    def region_at(scale):
        return Linf(eps=scale * setting.eps).region(setting.x)

    loss = setting.run(IBPR(weight=0.3, scale=scale, attack=ATTACK), region_at=region_at)
    attacked = setting.run(PGD(attack=ATTACK), region=region_at(scale))
    expected = attacked.per_sample + 0.3 * regulariser(setting)
    torch.testing.assert_close(loss.per_sample, expected, rtol=0, atol=1e-12)
    assert torch.equal(loss.correct, attacked.correct)
    for mine, boxes in zip(loss.boxes, setting.run(IBP()).boxes, strict=True):
        assert torch.equal(mine.lower, boxes.lower)
        assert torch.equal(mine.upper, boxes.upper)


@pytest.mark.parametrize("weight", [0.05, 1.0])
def test_gradients_equal_finite_differences(setting, weight):
    method = IBPR(weight=weight, scale=1.0, attack=FIXED)
    gradient = setting.gradient(method)
    for seed in (4, 5):
        torch.manual_seed(seed)
        direction = torch.randn_like(gradient)
        slope = (gradient * direction).sum().item()
        assert abs(slope) > 1e-3
        assert slope == pytest.approx(setting.slope(method, direction), rel=1e-5, abs=1e-7)
    # more than that of the adversarial point alone
    plain = setting.gradient(IBPR(weight=0.0, scale=1.0, attack=FIXED))
    assert (gradient - plain).norm() > 1e-2 * weight


def test_steps_along_the_regulariser_make_relus_stable(setting):
    def unstable() -> int:
        boxes = setting.run(IBP()).boxes
        net, _ = setting.frozen()
        inputs = [boxes[node.inputs[0]] for node in net.nodes if type(node.op).__name__ == "ReLU"]
        return sum(int(((box.lower < 0) & (box.upper > 0)).sum()) for box in inputs)

    before = unstable()
    optimizer = torch.optim.Adam(setting.model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        setting.run(IBPR(weight=10.0, scale=1.0, attack=FIXED)).per_sample.mean().backward()
        optimizer.step()
    assert unstable() < before / 2


def test_a_batch_that_cannot_scale_its_region_is_refused(setting):
    with pytest.raises(
        ValueError, match=r"the method takes 2\.1 times eps but the batch does not say .* give it region_at"
    ):
        setting.run(IBPR())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": -1.0}, "weight of ibp-r is -1"),
        ({"weight": float("nan")}, "weight of ibp-r is nan"),
        ({"scale": 0.0}, r"scale of ibp-r is 0\.0: it is a multiple of eps"),
        ({"scale": float("inf")}, "scale of ibp-r is inf"),
        ({"scale": float("nan")}, "scale of ibp-r is nan"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        IBPR(**fields)
