"""Bounds of any torch module in one call."""

import pytest
import torch
from torch import nn

import ctbench
from ctbench import bounds, margin_bounds


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).double()


X = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)).double()
Y = torch.tensor([0, 1, 2, 3, 1])


@pytest.mark.parametrize("domain", ["interval", "crown-ibp", "crown"])
def test_bounds_enclose_the_logits(domain):
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lower, upper = bounds(model, X, eps=0.1, domain=domain)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    points = (X + 0.1 * (2 * torch.rand(300, 5, 3).double() - 1)).clamp(0, 1)
    values = model.eval()(points.flatten(0, 1)).view(300, 5, 4)
    assert (lower <= values.amin(0)).all()
    assert (upper >= values.amax(0)).all()
    assert lower.shape == upper.shape == (5, 4)


@pytest.mark.parametrize("domain", ["interval", "crown-ibp", "crown"])
def test_margin_bounds_at_radius_zero_are_margins(domain):
    logits = network().eval()(X)
    expected = logits.gather(1, Y[:, None]) - logits
    torch.testing.assert_close(margin_bounds(network(), X, Y, eps=0.0, domain=domain), expected)
    assert (margin_bounds(network(), X, Y, eps=0.1, domain=domain) <= expected).all()


def test_margin_bounds_are_at_least_differences_of_bounds():
    lower, upper = bounds(network(), X, eps=0.1, domain="interval")
    separate = lower.gather(1, Y[:, None]) - upper
    separate.scatter_(1, Y[:, None], 0.0)
    assert (margin_bounds(network(), X, Y, eps=0.1, domain="interval") >= separate - 1e-12).all()


def test_the_range_of_the_data_is_kept_unless_it_is_open():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    x = torch.tensor([[0.95]]).double()
    assert bounds(model, x, eps=0.1).upper.item() == pytest.approx(1.0)
    assert bounds(model, x, eps=0.1, clip=None).upper.item() == pytest.approx(1.05)


def test_gradients_reach_the_inputs_and_the_parameters():
    model, x = network(), X.clone().requires_grad_()
    bounds(model, x, eps=0.05).lower.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_single_inputs():
    assert bounds(network(), X[:1], eps=0.1).lower.shape == (1, 4)


def test_errors():
    with pytest.raises(ValueError, match="eps is -1"):
        bounds(network(), X, eps=-1)
    with pytest.raises(ValueError, match="NaN"):
        bounds(network(), X * float("nan"), eps=0.1)
    with pytest.raises(ValueError, match="data range"):
        margin_bounds(network(), X * 255, Y, eps=0.1)
    with pytest.raises(ValueError, match="no domain is called 'zonotope3'"):
        bounds(network(), X, eps=0.1, domain="zonotope3")
    with pytest.raises(ValueError, match="label 4 of sample 2"):
        margin_bounds(network(), X, torch.tensor([0, 1, 4, 0, 0]), eps=0.1)
    with pytest.raises(ctbench.UnsupportedLayerError, match="Sigmoid"):
        bounds(nn.Sequential(network(), nn.Sigmoid()), X, eps=0.1)
