"""The limits of methods that papers state, at the ends of their ranges, in loss and in gradient."""

import pytest
import torch

from ctbench import attacks
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.mart import MART, boosted_cross_entropy
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.taps import TAPS

ATTACK = attacks.PGD(steps=3, restarts=2)


@pytest.mark.parametrize(
    "method",
    [SABR(ratio=1.0), MTLIBP(alpha=1.0), CCIBP(alpha=1.0), ExpIBP(alpha=1.0), CrownIBP(fused=False, beta=0.0)],
    ids=lambda method: method.name,
)
def test_the_certified_end_is_ibp(same_method, method):
    same_method(method, IBP())


@pytest.mark.parametrize(
    "method",
    [
        SABR(ratio=0.0, attack=ATTACK),
        MTLIBP(alpha=0.0, attack=ATTACK),
        CCIBP(alpha=0.0, attack=ATTACK),
        ExpIBP(alpha=0.0, attack=ATTACK),
    ],
    ids=lambda method: method.name,
)
def test_the_other_end_is_adversarial_training(same_method, method):
    same_method(method, PGD(attack=ATTACK))


@pytest.mark.parametrize("method", [SABR(), MTLIBP(), CCIBP(), ExpIBP()], ids=lambda method: method.name)
def test_between_the_ends_it_is_neither(setting, method):
    loss = setting.run(method).per_sample
    assert (loss < setting.run(IBP()).per_sample - 1e-3).all()
    assert (loss > setting.run(PGD()).per_sample + 1e-3).any()


def test_expressive_losses_lie_in_their_order(setting):
    """Exp-IBP <= MTL-IBP, the geometric and the arithmetic mean; CC-IBP <= MTL-IBP, by convexity."""
    mtl, cc, exp = (setting.run(kind(alpha=0.3, attack=ATTACK)).per_sample for kind in (MTLIBP, CCIBP, ExpIBP))
    assert (exp < mtl).all()
    assert (cc < mtl).all()


@pytest.mark.parametrize("multi", [True, False], ids=["multi", "single"])
def test_taps_on_all_of_the_region_is_staps_with_the_whole_box(setting, multi):
    taps = TAPS(multi_estimator=multi, attack=attacks.PGD(steps=3))
    staps = SABR(ratio=1.0, inner=taps, attack=attacks.PGD(steps=0, clean_start=True))
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    # the attack of SABR draws a start that it does not use: also draw it for TAPS alone
    torch.rand(1, *setting.x.shape, generator=generators[0], dtype=setting.x.dtype)
    expected, found = setting.run(taps, generator=generators[0]), setting.run(staps, generator=generators[1])
    torch.testing.assert_close(found.per_sample, expected.per_sample, rtol=0, atol=1e-9)
    assert torch.equal(found.correct, expected.correct)


def test_taps_with_an_affine_classifier_is_ibp_in_value(setting):
    taps = setting.run(TAPS(classifier_relus=0, product=False))
    ibp = setting.run(IBP())
    torch.testing.assert_close(taps.per_sample, ibp.per_sample, rtol=0, atol=1e-9)
    assert torch.equal(taps.correct, ibp.correct)
    # and in gradient: every corner moves with its own face
    torch.testing.assert_close(
        setting.gradient(TAPS(classifier_relus=0, product=False)), setting.gradient(IBP()), rtol=0, atol=1e-9
    )


def test_mart_without_consistency_is_its_boosted_cross_entropy(setting):
    net, logits = setting.frozen()
    attack = attacks.PGD(steps=0, clean_start=True)
    boosted = MART(weight=0.0, attack=attack)(net, setting.batch(logits)).per_sample
    torch.testing.assert_close(boosted, boosted_cross_entropy(logits, setting.y))
