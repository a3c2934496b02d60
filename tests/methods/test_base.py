"""Shared by all methods: the returned loss, and the checks of fields."""

import pytest
import torch

from ctbench.methods.base import RobustLoss
from ctbench.methods.ibp_r import IBPR
from ctbench.methods.mtl_ibp import MTLIBP


@pytest.mark.parametrize(
    ("losses", "correct"),
    [(torch.zeros(3), torch.tensor(3)), (torch.zeros(3), torch.zeros(3)), (torch.zeros(()), torch.tensor(True))],
    ids=["a count", "numbers", "a mean"],
)
def test_a_loss_is_of_samples(losses, correct):
    with pytest.raises(ValueError, match=r"give a loss for each sample, \[B\], and whether it is correct, \[B\] of"):
        RobustLoss(losses, correct)


@pytest.mark.parametrize("value", [None, "0.5", float("nan"), -0.1])
def test_a_field_is_a_number(value):
    with pytest.raises(ValueError, match=f"alpha of mtl-ibp is {value}: it is a share, give a number from 0 to 1"):
        MTLIBP(alpha=value)
    with pytest.raises(ValueError, match=f"weight of ibp-r is {value}: it must be a number >= 0"):
        IBPR(weight=value)
