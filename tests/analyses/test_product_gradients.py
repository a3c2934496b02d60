"""Gradients of a product of means and of a mean of products (Theorem 1 of TAPS)."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tests.analyses.networks import inputs, labels, network

from ctbench.analyses import ProductGradients, product_gradients
from ctbench.methods.base import Method, RobustLoss


def test_with_one_sample_a_batch_the_two_losses_are_the_same():
    found = product_gradients(network("cnn"), inputs(), labels(), eps=0.1, batches=4, batch_size=1)
    assert found.mean("ratio") == pytest.approx(1, abs=1e-6)
    assert found.mean("difference of means") == pytest.approx(0, abs=1e-6)
    assert found.mean("variance, product of means") > 0


@dataclass(frozen=True, kw_only=True)
class Weighed(Method):
    """The first logit times the sign of a sample, + where its label is even."""

    name: ClassVar[str] = "weighed-in-a-test"

    def __call__(self, net, batch):
        logits = net(batch.x)
        return RobustLoss(logits[:, 0] * (1 - 2 * (batch.y % 2)), correct=logits[:, 0] > 0)


def test_the_variance_is_that_of_its_own_loss():
    """All samples are one input, so losses differ in their signs s alone: a = s z, b = s z.

    The mean of products is the mean of s^2 z^2 = z^2 in each batch, and has no variance. The product of means is
    (mean of s)^2 z^2, which has.
    """
    x, y = inputs()[:1].repeat(6, 1, 1, 1), torch.tensor([0, 1, 0, 1, 0, 1])
    asked = ProductGradients(first=Weighed(), second=Weighed(), batches=32, batch_size=3)
    found = asked(network("cnn"), x, y, eps=0.1)
    assert found.mean("variance, mean of products") == pytest.approx(0, abs=1e-9)
    assert found.mean("variance, product of means") > 1e-6


def test_one_repeated_input_has_no_variance():
    x, y = inputs()[:1].repeat(5, 1, 1, 1), labels()[:1].repeat(5)
    found = ProductGradients(batches=3, batch_size=4)(network("cnn"), x, y, eps=0.1)
    assert found.mean("variance, mean of products") == pytest.approx(0, abs=1e-9)


def test_the_seed_decides_which_batches_are_drawn():
    model = network("cnn")
    ratios = [
        product_gradients(model, inputs(), labels(), eps=0.1, seed=seed, batches=3, batch_size=2).mean("ratio")
        for seed in (0, 0, 1)
    ]
    assert ratios[0] == ratios[1] != ratios[2]


def test_few_batches_are_refused():
    with pytest.raises(ValueError, match="there are 1 batches of 16 samples: give at least 2"):
        ProductGradients(batches=1)
