"""Propagation tightness: 1 where intervals are exact, in (0, 1] elsewhere, and true radii of stable networks."""

import pytest
import torch
from tests.analyses.networks import NETWORKS, inputs, labels, network, part
from torch import nn

from ctbench.analyses import tightness
from ctbench.analyses.tightness import Gate, Pick, exact_radii, interval_radii, locally_affine
from ctbench.graph.ops import ReLU
from ctbench.networks import Normalize
from ctbench.regions import L2, Linf


@pytest.mark.parametrize("name", [*NETWORKS, "sorted"])
def test_the_local_network_is_the_network_at_its_input_and_has_its_gradients(name):
    model, x = network(name), inputs()
    some = part(model, x, labels())
    local = locally_affine(some.net, x)
    nudge = 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    change = local(x + nudge) - local(x)
    assert torch.allclose(change, some.net(x + nudge) - some.net(x), atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda z: some.net(z).sum(0), x)  # [K, B, *shape]
    rows = torch.einsum("bsk,kb...->bs...", some.spec, jacobian)
    expected = (rows.abs() * some.region.hull.radius.unsqueeze(1)).flatten(2).sum(2)
    assert torch.allclose(exact_radii(local, some.region.hull, some.spec), expected, rtol=1e-9)


@pytest.mark.parametrize("name", [*NETWORKS, "sorted"])
def test_it_lies_between_0_and_1(name):
    found = tightness(network(name), inputs(), labels(), eps=0.1).values("tightness")
    assert all(0 < value <= 1 + 1e-12 for value in found)
    assert min(found) < 1


def test_one_affine_layer_is_exact_and_so_is_a_network_with_one_path():
    one = nn.Sequential(Normalize([0.2, 0.3], [0.5, 0.4]), nn.Flatten(), nn.Linear(72, 4)).double()
    assert tightness(one, inputs(), labels(), eps=0.1).values("tightness") == pytest.approx([1] * 6, abs=1e-12)
    path = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 3)).double()
    with torch.no_grad():
        for layer in path[::2]:
            layer.bias.fill_(0.3)
            layer.weight.copy_(torch.linspace(0.5, -2, len(layer.weight)).unsqueeze(1))
    x, y = torch.full((1, 1), 0.5).double(), torch.tensor([1])
    assert tightness(path, x, y, eps=0.1).mean("tightness") == pytest.approx(1, abs=1e-12)


def test_weights_of_one_sign_are_exact():
    model = network("mlp")
    with torch.no_grad():
        for layer in (layer for layer in model if isinstance(layer, nn.Linear)):
            layer.weight.abs_()
        model[-1].weight[1:].neg_()  # so that each margin of class 0 has weights of one sign
    found = tightness(model, inputs(), torch.zeros(6, dtype=torch.long), eps=0.1)
    assert found.values("tightness") == pytest.approx([1] * 6, abs=1e-12)


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "dense", "max-pooled"])
def test_it_is_the_quotient_of_true_radii_where_no_neuron_is_unstable(name):
    found = tightness(network(name), inputs(), labels(), eps=1e-7, at_eps=True)
    assert found.values("at eps") == pytest.approx(found.values("tightness"), rel=1e-5)
    at_eps = tightness(network(name), inputs(), labels(), eps=0.3, at_eps=True)
    assert at_eps.values("at eps") != pytest.approx(at_eps.values("tightness"), rel=1e-2)


def test_a_relu_is_on_at_0():
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.zero_()
    some = part(model, torch.zeros(1, 1).double())
    assert locally_affine(some.net, some.x).nodes[2].op.slope.item() == 1
    assert ReLU().slopes(*2 * [torch.zeros(1)])[0].item() == 0, "otherwise than the op's own slopes at its kink"


def test_radii_by_hand():
    """f = (relu(x), -relu(x)) . (1, -1): the paths add up exactly, but intervals count both."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    weights = [[[1.0], [1.0]], [[1.0, -0.5], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]
    with torch.no_grad():
        for layer, weight in zip(model[::2], weights, strict=True):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.fill_(1.0)
    some = part(model, torch.full((1, 1), 0.5).double(), torch.zeros(1, dtype=torch.long))
    local = locally_affine(some.net, some.x)
    assert exact_radii(local, some.region.hull, some.spec).item() == pytest.approx(0.1 * 1.5)
    assert interval_radii(local, some.region.hull, some.spec).item() == pytest.approx(0.1 * 2.5)


def test_the_ops_around_an_input_have_adjoints():
    generator = torch.Generator().manual_seed(3)
    gate = Gate(torch.randn(2, 5, generator=generator).double())
    pick = Pick(torch.randint(3, (2, 1, 5), generator=generator), 3)
    for op, shape in ((gate, (2, 5)), (pick, (2, 3, 5))):
        x, a = torch.randn(shape, generator=generator).double(), torch.randn(2, 4, 5, generator=generator).double()
        forward = (a * op(x).unsqueeze(1)).sum(2)
        assert torch.allclose((op.adjoint(a) * x.unsqueeze(1)).flatten(2).sum(2), forward)
        assert torch.allclose(op.magnitude(x.abs()), op.map(torch.abs)(x.abs()))
        assert op.shape(x.shape[1:]) == (5,)


def test_radii_are_clipped_with_the_data_range():
    model, dark = network("mlp"), torch.zeros(1, 2, 6, 6).double()
    radii = [exact_radii(locally_affine(p.net, dark), p.region.hull, p.spec) for p in (
        part(model, dark, threat=Linf(eps=0.1)), part(model, dark, threat=Linf(eps=0.1, clip=None)))]  # fmt: skip
    assert torch.allclose(2 * radii[0], radii[1])


def test_other_regions_are_refused():
    with pytest.raises(ValueError, match="the threat model is l2: tightness divides radii of boxes"):
        tightness(network("mlp"), inputs(), labels(), threat=L2(eps=0.1))


def test_margins_without_radii_have_no_tightness():
    with pytest.raises(ValueError, match="eps is 0: the radii of margins are 0"):
        tightness(network("mlp"), inputs(), labels(), eps=0.0)
