"""CROWN-IBP and its loss fusion, on numbers of any size."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ctbench.graph import freeze, trace
from ctbench.methods import Batch
from ctbench.methods.crown_ibp import CrownIBP, chord, fused_cross_entropy
from ctbench.methods.ibp import IBP
from ctbench.regions import Linf
from ctbench.specification import robust_cross_entropy


def fused(lower, upper, inside):
    """The fused loss if the form's bound were its value at these margins."""
    shift = (-lower).amax(1, keepdim=True).clamp(min=0)
    return fused_cross_entropy(lower, upper, shift, (chord(lower, upper, shift) * inside).sum(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 30.0, 1000.0])
def test_the_fused_loss_is_above_the_loss_at_every_margin_of_the_box(size, dtype):
    generator = torch.Generator().manual_seed(0)
    ends = size * (2 * torch.rand(2, 400, 3, generator=generator, dtype=dtype) - 1)
    lower, upper = ends.amin(0), ends.amax(0)
    share = torch.rand(400, 3, generator=generator, dtype=dtype)
    share[:100], share[100:200] = 0, 1
    inside = lower + share * (upper - lower)
    loss, truth = fused(lower, upper, inside), robust_cross_entropy(inside)
    assert torch.isfinite(loss).all()
    assert (loss >= truth - 20 * torch.finfo(dtype).eps * max(1, size)).all()
    if 1 <= size <= 30:  # a chord is above exp, and meets it at both ends
        assert (loss[200:] > truth[200:]).all()
    torch.testing.assert_close(loss[:100], truth[:100])


def test_the_chord_by_hand():
    lower, upper = torch.tensor([[-1.0, 0.5]]).double(), torch.tensor([[2.0, 0.5]]).double()
    slope = chord(lower, upper, torch.zeros(1, 1).double())
    assert slope[0, 0].item() == pytest.approx((math.e - math.exp(-2)) / 3)
    assert slope[0, 1].item() == pytest.approx(math.exp(-0.5))  # a tangent, where there is no width
    loss = fused(lower, upper, torch.tensor([[1.0, 0.5]]).double()).item()
    assert loss == pytest.approx(math.log(1 + math.e - 2 * (math.e - math.exp(-2)) / 3 + math.exp(-0.5)))


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3, 1e4])
def test_huge_margins_have_finite_losses_and_gradients(setting, factor):
    with torch.no_grad():
        setting.model[-1].weight *= factor
    model, x = setting.model.float(), setting.x.float()
    net, logits = freeze(trace(model, (2, 3, 3)), x)
    batch = Batch(x, setting.y, Linf(eps=0.1).region(x), logits)
    result = CrownIBP()(net, batch)
    assert torch.isfinite(result.per_sample).all()
    if factor >= 1e3:
        assert result.per_sample.max() > 100  # exp of it is infinite in single precision
    result.per_sample.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def two_classes(setting):
    """The same network with two outputs: its first two."""
    torch.manual_seed(3)
    setting.model[-1] = nn.Linear(10, 2).double()
    setting.y.clamp_(max=1)


def test_with_two_classes_the_chord_alone_makes_it_looser(setting):
    two_classes(setting)
    fused, single = setting.run(CrownIBP()).per_sample, setting.run(CrownIBP(fused=False)).per_sample
    assert (fused >= single - 1e-12).all()
    assert (fused > single + 1e-6).any()


def test_with_interval_bounds_alone_fusion_is_never_looser(setting):
    fused, ibp = setting.run(CrownIBP(beta=0.0)).per_sample, setting.run(IBP()).per_sample
    assert (fused <= ibp + 1e-12).all()
    assert (fused < ibp - 1e-6).any()  # one form for all margins knows what they share
    two_classes(setting)
    torch.testing.assert_close(setting.run(CrownIBP(beta=0.0)).per_sample, setting.run(IBP()).per_sample)


def test_beta_mixes_the_bounds_of_each_margin(setting):
    losses = [setting.run(CrownIBP(fused=False, beta=beta)).per_sample for beta in (0.0, 0.5, 1.0)]
    lowest, highest = torch.stack(losses).amin(0), torch.stack(losses).amax(0)
    assert ((losses[1] > lowest) & (losses[1] < highest)).all()
    assert (losses[2] < losses[0]).any()  # the backward pass pays


def test_samples_are_correct_by_their_own_bounds(setting):
    for method in (CrownIBP(), CrownIBP(fused=False)):
        for eps in (0.0, 0.02):
            result = replace(setting, eps=eps).run(method)
            _, logits = setting.frozen()
            right = logits.argmax(1) == setting.y
            assert (result.correct <= right).all()
            if eps == 0:
                assert torch.equal(result.correct, right)
            assert (result.correct >= (result.per_sample < math.log(2))).all()


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_is_a_share(beta):
    with pytest.raises(ValueError, match=r"beta of crown-ibp is .*number from 0 to 1"):
        CrownIBP(beta=beta)


@pytest.mark.parametrize("width", [0.0, 1e-9, 3e-7, 9.9e-7, 1.01e-6, 1e-5])
def test_the_fused_loss_of_narrow_boxes(width):
    """Even if the width is too small to divide by, the chord and its gradient are those of exp."""
    low, high = torch.tensor([[0.3, -0.7]]).double().requires_grad_(), torch.tensor([[width, width]]).double()
    upper = (low.detach() + high).requires_grad_()
    slope = chord(low, upper, torch.zeros(1, 1).double())
    exact = (-low).exp() * (1 - high / 2 + high**2 / 6)  # of (exp(-l) - exp(-u)) / (u - l); the rest is below 1e-16
    torch.testing.assert_close(slope, exact, rtol=2e-13 if width < 1e-6 else 1e-12, atol=0)
    by_lower, by_upper = torch.autograd.grad(slope.sum(), [low, upper])
    torch.testing.assert_close(by_lower, -(-low).exp() * (1 / 2 - high / 6), rtol=1e-5, atol=0)
    torch.testing.assert_close(by_upper, -(-low).exp() * (1 / 2 - high / 3), rtol=1e-5, atol=0)
    loss = fused(low, upper, low)
    torch.testing.assert_close(loss, robust_cross_entropy(low), rtol=1e-13, atol=0)
