"""Growth rates of boxes op by op, and the histogram of centres, against interval boxes."""

import math

import pytest
import torch
from tests.analyses.networks import NETWORKS, inputs, network, part
from torch import nn

from ctbench.analyses import BoxGrowth, Centres, box_growth, centres
from ctbench.domains import interval


@pytest.mark.parametrize("name", NETWORKS)
def test_rates_are_quotients_of_mean_radii(name):
    model, x = network(name), inputs()
    found, some = box_growth(model, x, eps=0.2, shares=(0.5,)), part(model, x)
    boxes = interval.boxes(some.net, some.region)  # 0.1 = 0.5 * 0.2
    radii = [float(box.radius.mean()) for box in boxes]
    assert found.mean("whole", x=0.5) == pytest.approx(radii[-1] / radii[0])
    for at, node in enumerate(some.net.nodes):
        if len(node.inputs) == 1:
            rate = found.mean(f"layer {at}: {type(node.op).__name__.lower()}", x=0.5)
            assert rate == pytest.approx(radii[at] / radii[node.inputs[0]])


@pytest.mark.parametrize("name", ["mlp", "cnn", "pooled", "leaky"])
def test_in_a_chain_the_whole_is_the_product(name):
    found = box_growth(network(name), inputs(), eps=0.1)
    for share in BoxGrowth().shares:
        product = found.mean("affine", x=share) * found.mean("activations", x=share)
        assert found.mean("whole", x=share) == pytest.approx(product)


def test_a_linear_layer_grows_boxes_by_its_absolute_weights_at_any_radius():
    model = nn.Sequential(nn.Linear(3, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 4.0]]))
    found = box_growth(model, torch.full((2, 3), 0.5).double(), eps=0.1, shares=(0.1, 1.0))
    assert [found.mean("whole", x=share) for share in (0.1, 1.0)] == pytest.approx([5, 5])


def test_small_boxes_grow_by_the_share_of_active_neurons():
    found = box_growth(network("mlp"), inputs(), eps=1e-6, shares=(1.0,))
    assert 0 < found.mean("activations", x=1.0) < 1


def test_the_histogram_has_the_centres():
    model, x = network("cnn"), inputs()
    found, some = centres(model, x, eps=0.1, bins=7), part(model, x)
    values = interval.boxes(some.net, some.region)[-3].center.flatten()
    assert found.mean("share below 0") == pytest.approx(float((values < 0).double().mean()))
    assert found.mean("mean") == pytest.approx(float(values.mean()))
    assert found.mean("standard deviation") == pytest.approx(float(values.std(correction=0)))
    counts, edges = torch.histogram(values, 7)
    places = [place for place in found.places() if place is not None]
    assert places == pytest.approx(((edges[1:] + edges[:-1]) / 2).tolist())
    width = float(edges[1] - edges[0])
    densities = [found.mean("density", x=place) for place in places]
    assert densities == pytest.approx((counts / len(values) / width).tolist())
    assert math.fsum(densities) * width == pytest.approx(1)


def test_exponents_of_a_power():
    model = nn.Sequential(nn.Linear(3, 2)).double()
    found = box_growth(model, torch.full((2, 3), 0.5).double(), eps=0.1, shares=(0.1, 0.4, 1.0))
    assert list(found.exponents("whole").values()) == pytest.approx([0, 0], abs=1e-9)
    assert list(found.exponents("whole")) == pytest.approx([0.2, math.sqrt(0.4)])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="eps is 0: boxes of no radius do not grow"):
        box_growth(network("mlp"), inputs(), eps=0.0)
    with pytest.raises(ValueError, match=r"shares are \(0.0, 1.0\)"):
        BoxGrowth(shares=(0.0, 1.0))
    with pytest.raises(ValueError, match="bins is 0"):
        Centres(bins=0)
    with pytest.raises(ValueError, match="the network has no activation"):
        centres(nn.Linear(2, 3), torch.rand(1, 2), eps=0.1)
