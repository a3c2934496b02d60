"""Fragmentation: between no neuron and the bounds of CROWN and intervals, by hand, and independent of the grouping."""

import pytest
import torch
from tests.analyses.networks import NETWORKS, inputs, network
from torch import nn

import ctbench
from ctbench.analyses import Fragmentation, NetworkOnInputs, fragmentation
from ctbench.regions import L2, Linf


def one_neuron(bias: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(bias)
    return model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threat", [Linf(eps=0.05), Linf(eps=0.3), L2(eps=0.5)])
def test_samples_find_no_more_than_crown_and_crown_no_more_than_intervals(name, threat):
    found = fragmentation(network(name), inputs(), threat=threat)
    sampled, crown, interval = (found.values(bound) for bound in ("sampled", "crown", "interval"))
    assert all(0 <= a <= b <= c <= 1 for a, b, c in zip(sampled, crown, interval, strict=True))
    assert found.mean("sampled") > 0
    layers = [name for name in found.quantities() if name.startswith("layer")]
    for layer in (layer for layer in layers if layer.endswith("sampled")):
        bounds = (layer, layer.replace("sampled", "crown"), layer.replace("sampled", "interval"))
        assert all(a <= b <= c for a, b, c in zip(*map(found.values, bounds), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_at_a_point_no_neuron_switches(name):
    found = fragmentation(network(name), inputs(), eps=0.0)
    assert [found.mean(bound) for bound in ("sampled", "crown", "interval")] == [0, 0, 0]


def test_a_neuron_that_reaches_0_does_not_switch():
    # on [0.3, 0.7] the pre-activation x - 0.3 is at least 0, and x - 0.5 changes its sign
    x = torch.full((1, 1), 0.5).double()
    for bias, share in ((-0.3, 0.0), (-0.7, 0.0), (-0.5, 1.0)):
        found = fragmentation(one_neuron(bias), x, threat=Linf(0.2, clip=None))
        assert found.mean("sampled") == share
        assert found.mean("interval") == (0.0 if share == 0 else 1.0) or bias == -0.7  # rounding of 0.5 + 0.2


def test_noise_is_clipped_at_eps_and_points_at_the_data_range():
    """Of standard normal noise clipped at 1, 16 % lies at each end: with 200 draws both ends are found."""
    x = torch.tensor([[0.05]]).double()
    share = fragmentation(one_neuron(-0.149), x, eps=0.1, draws=200).mean("sampled")
    assert share == 1, "the end x + eps = 0.15 is found"
    assert fragmentation(one_neuron(-0.151), x, eps=0.1, draws=200).mean("sampled") == 0, "nothing lies beyond it"
    assert fragmentation(one_neuron(0.01), x, eps=0.1, draws=200).mean("sampled") == 0, "below 0 there are no pixels"
    assert fragmentation(one_neuron(0.01), x, threat=Linf(0.1, clip=None), draws=200).mean("sampled") == 1


def test_more_draws_find_more_neurons_and_the_seed_decides():
    model, x = network("mlp"), inputs(30)
    few, many = (fragmentation(model, x, eps=0.2, draws=draws).mean("sampled") for draws in (2, 200))
    assert few < many
    assert fragmentation(model, x, eps=0.2).values("sampled") == fragmentation(model, x, eps=0.2).values("sampled")
    assert fragmentation(model, x, eps=0.2, seed=1).values("sampled") != fragmentation(model, x, eps=0.2).values(
        "sampled"
    )


def test_layers_weigh_as_many_neurons_as_they_have():
    found = fragmentation(network("mlp"), inputs(), eps=0.1)
    layers = [found.mean(f"layer {k}: sampled") for k in (1, 2)]
    assert found.mean("sampled") == pytest.approx((16 * layers[0] + 12 * layers[1]) / 28)


def test_parts_have_records_of_their_own():
    model, x = network("mlp"), inputs(300)
    pair = NetworkOnInputs.of(model, x)
    records = list(Fragmentation().records(pair, [Linf(eps=0.1)]))
    assert [(record.start, record.stop) for record in records] == [(0, 256), (256, 300)]
    shifted = NetworkOnInputs.of(model, x[256:], first=256)
    (again,) = Fragmentation().records(shifted, [Linf(eps=0.1)])
    assert again.points == records[1].points


def test_the_mode_of_the_network_is_of_no_matter():
    model = network("cnn")
    found = fragmentation(model, inputs(), eps=0.1).values("sampled")
    assert fragmentation(model.train(), inputs(), eps=0.1).values("sampled") == found
    assert model.training


def test_it_is_there_after_import_ctbench():
    found = ctbench.analyses.fragmentation(network("mlp").float(), inputs().float(), eps=0.1)
    assert 0 < found.mean("sampled") < 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="has no ReLU or other piecewise linear activation"):
        fragmentation(nn.Linear(2, 3), torch.rand(1, 2), eps=0.1)
    with pytest.raises(ValueError, match="draws is 1: neurons switch between at least 2 points"):
        Fragmentation(draws=1)
    with pytest.raises(ValueError, match=r"eps is -0\.1"):
        fragmentation(network("mlp"), inputs(), eps=-0.1)
    with pytest.raises(ValueError, match="there are 0 inputs"):
        fragmentation(network("mlp"), inputs()[:0], eps=0.1)
