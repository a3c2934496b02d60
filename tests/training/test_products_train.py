"""Networks with layer norm and with attention train with bounds: the loss falls, and CROWN certifies samples."""

from dataclasses import replace

import pytest
import torch

import ctbench
from ctbench.recipes import digits
from ctbench.training import train


@pytest.mark.parametrize(("name", "epochs", "eps"), [("digits_layernorm_sabr", 6, 0.01), ("digits_vit_sabr", 8, 0.005)])
def test_a_network_with_products_trains_with_bounds_and_certifies(name, epochs, eps, tmp_path):
    recipe = getattr(digits, name)()
    recipe = replace(
        recipe,
        epochs=epochs,
        threat=replace(recipe.threat, eps=eps),
        ramp=replace(recipe.ramp, start=1, end=4),
        optimizer=replace(recipe.optimizer, milestones=()),
    )
    metrics = list[dict[str, float]]()
    run = train(recipe, out=tmp_path / "run", quiet=True, on_epoch=lambda values, model: metrics.append(values))
    assert metrics[-1]["robust_loss"] < metrics[0]["robust_loss"]
    assert metrics[-1]["natural_accuracy"] > 0.5
    x, y = recipe.dataset.load().test[torch.arange(20)]
    result = ctbench.certify(run.model, x, y, eps=eps, stages=[ctbench.verify.Bound(domain="crown")])
    assert result.certified_accuracy > 0.3
