"""Utilisation and states of ReLUs, per input and per layer."""

import pytest
import torch
from tests.analyses.networks import inputs, network, part
from torch import nn

from ctbench.analyses import States, states, utilisation
from ctbench.analyses.neurons import neuron_states, relus
from ctbench.domains import interval


def test_utilisation_by_hand():
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([-0.75, -0.5, -0.25, 0.0]))
        model[2].weight.fill_(1.0)
        model[2].bias.copy_(torch.tensor([0.0, -100.0]))
    found = utilisation(model, torch.tensor([[0.5], [1.0]]).double())
    # at 0.5 a pre-activation is exactly 0, which does not count as active
    assert found.values("layer 1: utilisation") == [2 / 4, 4 / 4]
    assert found.values("layer 2: utilisation") == [1 / 2, 1 / 2]
    assert found.values("utilisation") == pytest.approx([3 / 6, 5 / 6])
    assert found.values("utilisation, layers") == pytest.approx([1 / 2, 3 / 4])


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "dense", "max-pooled"])
def test_states_are_those_of_interval_boxes(name):
    model, x = network(name), inputs()
    found, net = states(model, x, eps=0.1), part(model, x).net
    region = part(model, x).region
    expected = neuron_states(net, region, boxes=interval.boxes(net, region))
    shares = [found.mean(f"region: {state}") for state in ("dead", "active", "unstable")]
    assert shares == pytest.approx(list(expected), abs=1e-12)
    assert found.mean("point: active") == pytest.approx(utilisation(model, x).mean("utilisation"), abs=1e-12)
    layers = [f"layer {k}: region: unstable" for k in range(1, len(relus(net)) + 1)]
    mean = sum(found.mean(layer) for layer in layers) / len(layers)
    assert found.mean("region: unstable, layers") == pytest.approx(mean, abs=1e-12)


def test_a_larger_region_leaves_fewer_neurons_stable():
    model, x = network("cnn"), inputs()
    unstable = [states(model, x, eps=eps).mean("region: unstable") for eps in (0.0, 0.05, 0.1, 0.3)]
    assert unstable == sorted(unstable)
    assert unstable[0] == 0 < unstable[-1]


def test_leaky_relus_count_and_other_activations_do_not():
    assert [type(node.op).__name__ for node in relus(part(network("leaky"), inputs()).net)] == ["LeakyReLU", "Clamp"]
    with pytest.raises(ValueError, match="the network has no ReLU"):
        states(nn.Sequential(nn.Linear(2, 3), nn.Sigmoid()), torch.rand(1, 2), eps=0.1)
    assert States.name == "states"
