"""The region of the attack of MTL-IBP, CC-IBP and Exp-IBP, and their fields."""

import pytest
import torch

from ctbench import attacks
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.regions import Linf

KINDS = [MTLIBP, CCIBP, ExpIBP]


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_attack_has_a_larger_loss_and_leaves_the_bounds(setting, kind):
    scaled = {"region_at": lambda scale: Linf(eps=scale * setting.eps).region(setting.x)}
    attack = attacks.PGD(steps=5)
    wide, plain = kind(alpha=0.2, attack=attack, attack_scale=2.0), kind(alpha=0.2, attack=attack)
    assert setting.run(wide, **scaled).per_sample.mean() > setting.run(plain, **scaled).per_sample.mean() + 0.01
    for one, other in zip(setting.run(wide, **scaled).boxes, setting.run(plain).boxes, strict=True):
        assert torch.equal(one.lower, other.lower)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_cannot_scale_its_region_is_refused(setting, kind):
    with pytest.raises(
        ValueError, match=r"the method takes 1\.5 times eps but the batch does not say .* give it region_at"
    ):
        setting.run(kind(attack_scale=1.5))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_exp_ibp_has_finite_gradients_where_the_loss_vanishes(setting, alpha):
    with torch.no_grad():
        setting.model[-1].bias[0] += 1000.0
    setting.y.zero_()
    method = ExpIBP(alpha=alpha)
    assert (setting.run(method).per_sample >= 0).all()
    assert torch.isfinite(setting.gradient(method)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_checked(kind):
    with pytest.raises(ValueError, match=f"alpha of {kind.name} is 1.1"):
        kind(alpha=1.1)
    with pytest.raises(ValueError, match="attack_scale is 0"):
        kind(attack_scale=0.0)
