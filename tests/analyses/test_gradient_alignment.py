"""Cosines of gradients: 1 with oneself, and SABR without a box is adversarial training."""

import pytest
import torch
from tests.analyses.networks import inputs, labels, network
from torch import nn

from ctbench.analyses import GradientAlignment, gradient_alignment
from ctbench.analyses.gradient_alignment import cosine
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.standard import Standard
from ctbench.methods.taps import TAPS


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual"])
def test_a_gradient_is_aligned_with_itself(name):
    model, x, y = network(name), inputs(), labels()
    found = gradient_alignment(model, Standard(), x, y, eps=0.1)
    assert found.mean("standard") == pytest.approx(1, abs=1e-12)
    assert found.mean("adversarial") < 1 - 1e-6
    assert all(found.mean(q) == pytest.approx(1) for q in found.quantities() if q.endswith(": standard"))
    for method in (PGD(attack=SABR().attack), SABR(ratio=0.0)):
        assert gradient_alignment(model, method, x, y, eps=0.1).mean("adversarial") == pytest.approx(1, abs=1e-9)


def test_small_boxes_are_better_aligned_than_the_whole_region():
    model, x, y = network("cnn"), inputs(), labels()
    small, whole = (gradient_alignment(model, method, x, y, eps=0.1) for method in (SABR(ratio=0.05), IBP()))
    for quantity in ("standard", "adversarial"):
        assert small.mean(quantity) > whole.mean(quantity)
    sabr = gradient_alignment(model, SABR(ratio=1.0), x, y, eps=0.1)
    assert sabr.mean("standard") == pytest.approx(whole.mean("standard"), rel=1e-6)


def test_all_gradients_are_those_of_the_parameters():
    model, x, y = network("cnn"), inputs(), labels()
    found = gradient_alignment(model, TAPS(classifier_relus=1), x, y, eps=0.1)
    layers = {q.removeprefix("layer ").removesuffix(": standard") for q in found.quantities() if q.endswith("standard")}
    assert layers - {"standard"} == {path for path, _ in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batches_count_by_their_size():
    model, x, y = network("mlp"), inputs(130), labels(130)
    found = gradient_alignment(model, IBP(), x, y, eps=0.1)
    first, last = (
        gradient_alignment(model, IBP(), x[part], y[part], eps=0.1) for part in (slice(128), slice(128, 130))
    )
    mean = (128 * first.mean("standard") + 2 * last.mean("standard")) / 130
    assert found.mean("standard") == pytest.approx(mean, rel=1e-9)


def test_a_method_is_needed():
    with pytest.raises(ValueError, match="method is None: give a training method"):
        GradientAlignment()(network("mlp"), inputs(), labels(), eps=0.1)
    assert cosine(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])) == pytest.approx(24 / 25)
    frozen = network("mlp")
    for parameter in list(frozen.parameters())[:2]:
        parameter.requires_grad_(False)
    found = gradient_alignment(frozen, IBP(), inputs(), labels(), eps=0.1)
    assert len([q for q in found.quantities() if q.endswith(": standard")]) == 4
    assert isinstance(frozen, nn.Module)
