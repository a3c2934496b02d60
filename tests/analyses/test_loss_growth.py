"""The loss over lambda: growing, above the attack, and equal to the clean loss of small boxes."""

import pytest
import torch
import torch.nn.functional as F
from tests.analyses.networks import NETWORKS, inputs, labels, network

from ctbench.analyses import LossGrowth, loss_growth

SHARES = (1e-9, 0.1, 0.5, 1.0)


def losses(found, quantity):
    return torch.tensor([found.values(quantity, x=share) for share in found.places()], dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("pure", [False, True])
def test_bounds_are_above_the_attack_and_meet_at_a_point(name, adversarial, pure):
    model, x, y = network(name), inputs(), labels()
    found = loss_growth(model, x, y, eps=0.1, shares=SHARES, adversarial=adversarial, pure=pure)
    interval, crown, attack, clean = (losses(found, name) for name in ("interval", "crown", "attack", "clean"))
    assert bool((attack <= interval + 1e-12).all() & (attack <= crown + 1e-12).all())
    assert torch.allclose(clean, F.cross_entropy(model(x), y, reduction="none").expand_as(clean))
    assert torch.allclose(interval[0], crown[0], atol=1e-6)
    assert torch.allclose(interval[0], attack[0], atol=1e-6)
    if not adversarial:
        assert bool((interval.diff(dim=0) >= -1e-12).all()), "larger boxes have larger losses"
        assert torch.allclose(interval[0], clean[0], atol=1e-6)
        assert bool((clean <= attack + 1e-12).all())
    if not pure:
        assert bool((crown <= interval + 1e-12).all())


def test_boxes_around_adversarial_points_have_larger_losses_and_are_the_region_at_1():
    model, x, y = network("cnn"), inputs(), labels()
    clean, adversarial = (
        loss_growth(model, x, y, eps=0.1, shares=(0.1, 1.0), adversarial=choice) for choice in (False, True)
    )
    assert adversarial.mean("interval", x=0.1) > clean.mean("interval", x=0.1)
    assert adversarial.mean("interval", x=1.0) == pytest.approx(clean.mean("interval", x=1.0), rel=1e-9)


def test_intervals_of_wide_boxes_are_far_above_crown_and_grow_faster():
    found = loss_growth(network("cnn"), inputs(), labels(), eps=0.3, shares=(0.5, 1.0))
    assert found.mean("interval", x=1.0) > 1.2 * found.mean("crown", x=1.0)
    exponents = [*found.exponents("interval").values(), *found.exponents("crown").values()]
    assert exponents[0] > exponents[1] > 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="eps is 0: boxes of no radius do not grow"):
        loss_growth(network("cnn"), inputs(), labels(), eps=0.0)
    with pytest.raises(ValueError, match=r"shares are \(2.0,\): boxes around adversarial points lie in the region"):
        LossGrowth(shares=(2.0,), adversarial=True)
    with pytest.raises(ValueError, match=r"shares are \(\)"):
        LossGrowth(shares=())
