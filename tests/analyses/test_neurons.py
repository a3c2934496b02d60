"""Shares of dead, active and unstable neurons: by hand, with ties, and with the bounds of several domains."""

import pytest
import torch
from torch import nn

from ctbench.analyses.neurons import NeuronStates, neuron_states
from ctbench.domains import coap, crown, interval
from ctbench.graph import Graph, freeze, trace
from ctbench.methods.base import Batch, RobustLoss
from ctbench.networks import MLP
from ctbench.regions import L2, FirstCoordinate, Linf, RandomSegments
from ctbench.training.monitoring import bound_statistics


def by_hand(bias: list[float]) -> Graph:
    """Neurons x_1 + b."""
    model = nn.Sequential(nn.Linear(2, len(bias)), nn.ReLU(), nn.Linear(len(bias), 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0]] * len(bias)))
        model[0].bias.copy_(torch.tensor(bias))
    return freeze(trace(model, (2,)), torch.zeros(1, 2).double())[0]


def test_by_hand():
    x = torch.tensor([[0.0, 5.0], [1.0, -5.0]]).double()
    # at x_1 = 0 all neurons lie in b -+ 1, at x_1 = 1 in b + 1 -+ 1
    states = neuron_states(by_hand([-3.0, -1.5, 0.5, 1.25, 3.0]), FirstCoordinate(eps=1.0).region(x))
    assert states == NeuronStates(dead=3 / 10, active=5 / 10, unstable=2 / 10)


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_a_tie_is_unstable(bias):
    region = FirstCoordinate(eps=abs(bias)).region(torch.zeros(1, 2).double())
    assert neuron_states(by_hand([bias, 5.0, 6.0, -7.0]), region) == (1 / 4, 2 / 4, 1 / 4)


def deep() -> tuple[Graph, torch.Tensor]:
    torch.manual_seed(3)
    x = torch.rand(7, 6).double()
    return freeze(trace(MLP(hidden=(9, 8, 5)).build((6,), 3).double(), (6,)), x)[0], x


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.3), RandomSegments(eps=0.7, count=3)])
def test_neurons_that_switch_are_unstable_and_tighter_bounds_leave_fewer(threat):
    net, x = deep()
    region = threat.region(x)
    points = region.sample(500, torch.Generator().manual_seed(4))
    inputs = [node.inputs[0] for node in net.nodes if type(node.op).__name__ == "ReLU"]
    values = [Graph(net.nodes[: at + 1])(points.flatten(0, 1)).view(500, 7, -1) for at in inputs]
    signs = torch.cat(values, dim=2) > 0
    switching = (signs.any(0) & ~signs.all(0)).double().mean().item()
    by_bounds = {
        "crown": neuron_states(net, region),
        "coap": neuron_states(net, region, boxes=coap.boxes(net, region)),
        "interval": neuron_states(net, region, boxes=interval.boxes(net, region)),
    }
    assert by_bounds["crown"] == neuron_states(net, region, boxes=crown.boxes(net, region))
    assert 0 < switching <= by_bounds["crown"].unstable < by_bounds["interval"].unstable
    assert switching <= by_bounds["coap"].unstable
    for states in by_bounds.values():
        assert sum(states) == pytest.approx(1, abs=1e-15)
        assert states.active <= signs.all(0).double().mean().item()


def test_each_neuron_counts_as_much_as_any_other():
    """The layers have 9, 8 and 5 neurons, so the mean over all neurons is not the mean of the layers' means."""
    net, x = deep()
    region = Linf(eps=0.1).region(x)
    boxes = interval.boxes(net, region)
    inner = [boxes[node.inputs[0]] for node in net.nodes if type(node.op).__name__ == "ReLU"]
    whole = torch.cat([(box.lower <= 0) & (box.upper >= 0) for box in inner], dim=1)
    assert whole.shape == (7, 22)
    assert neuron_states(net, region, boxes).unstable == pytest.approx(whole.double().mean().item(), abs=1e-15)


def test_a_network_without_relus_is_refused():
    net = freeze(trace(nn.Linear(2, 3), (2,)), torch.zeros(1, 2))[0]
    with pytest.raises(ValueError, match="has no ReLU"):
        neuron_states(net, Linf(eps=0.1).region(torch.zeros(1, 2)))


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0, -2.0])
def test_training_and_analyses_count_the_same_neurons(bias):
    """Both take a tie as unstable: a pre-activation in [-2, 0] or [0, 2] for a bias of -1 or 1."""
    net, x = by_hand([bias, 5.0, -7.0]), torch.zeros(1, 2).double()
    region = FirstCoordinate(eps=1.0).region(x)
    boxes, y = interval.boxes(net, region), torch.zeros(1, dtype=torch.long)
    batch = Batch(x, y, region, net(x))
    metrics = bound_statistics(net, batch, RobustLoss(x.sum(1), y > 0, boxes, False))
    states = neuron_states(net, region, boxes)
    assert {name: value.item() for name, value in metrics.items()} == {
        f"{state}_relus": share for state, share in states._asdict().items()
    }
    assert states.dead == (2 / 3 if bias == -2.0 else 1 / 3)
