"""A bound that is NaN decides nothing, and says so: transformers whose bounds overflow, or lose all precision."""

import pytest
import torch
from torch import nn

import ctbench
from ctbench.networks import ViT
from ctbench.results import Open, StageFailedWarning, Verdict

EPS = 0.2


def transformer(*, offset: float, factor: float) -> nn.Module:
    """Class 0 has this offset, so that it wins everywhere; the projections of the attention have this factor."""
    torch.manual_seed(0)
    model = ViT().build((1, 8, 8), 10).eval()
    with torch.no_grad():
        model[-1].bias[0] += offset
        for path, parameter in model.named_parameters():
            if path.endswith("in_proj_weight"):
                parameter.mul_(factor)
    return model


@pytest.mark.parametrize("domain", ["crown-ibp", "crown"])
@pytest.mark.parametrize(("offset", "factor"), [(0.0, 1e18), (1e4, 1e18)], ids=["overflow", "robust, overflow"])
def test_a_bound_that_is_nan_is_unknown_and_said(domain, offset, factor):
    model, x = transformer(offset=offset, factor=factor), torch.rand(3, 1, 8, 8)
    stages = [ctbench.verify.Bound(domain=domain)]
    with pytest.warns(StageFailedWarning, match="the bound is NaN"):
        result = ctbench.certify(model, x, model(x).argmax(1), eps=EPS, stages=stages)
    assert [each.verdict for each in result] == [Verdict.UNKNOWN] * len(x)
    assert all(each.open is Open.ERROR for each in result)
    assert result.certified_accuracy == 0


def test_without_overflow_the_bound_that_covers_its_rounding_is_finite():
    model, x = transformer(offset=1e4, factor=1.0), torch.rand(3, 1, 8, 8)
    result = ctbench.certify(model, x, model(x).argmax(1), eps=EPS, stages=[ctbench.verify.Bound(domain="crown-ibp")])
    assert all(each.bound is not None and not each.failed for each in result)
