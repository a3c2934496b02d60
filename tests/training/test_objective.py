"""The gradient of a step: the same in one part and in several."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ctbench import attacks
from ctbench.graph import Graph, freeze, trace
from ctbench.methods import regularizers
from ctbench.methods.base import Batch
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3, MLP
from ctbench.training.objective import accumulate_gradients, cut
from ctbench.training.recipe import Recipe, StepSettings

SAMPLES = 11
CLEAN_START = PGD(attack=attacks.PGD(steps=3, clean_start=True))  # no random point plays a part


def clean_pass(recipe: Recipe, eps: float) -> tuple[nn.Module, Graph, Batch]:
    """A network in double precision, frozen on random images."""
    torch.manual_seed(0)
    model = recipe.network.build((1, 8, 8), 10, mean=(0.2,), std=(0.5,)).double()
    x, y = torch.rand(SAMPLES, 1, 8, 8, dtype=torch.float64), torch.arange(SAMPLES) % 10
    net, logits = freeze(trace(model, (1, 8, 8)), x, training=True)
    batch = Batch(x, y, replace(recipe.threat, eps=eps).region(x), logits, torch.Generator().manual_seed(0))
    return model, net, batch


def gradients(recipe: Recipe, eps: float = 0.04) -> tuple[list[torch.Tensor], dict[str, float]]:
    model, net, batch = clean_pass(recipe, eps)
    means = accumulate_gradients(model, net, batch, StepSettings(recipe, 0, 0, eps))
    return [p.grad for p in model.parameters()], {name: value.item() for name, value in means.items()}


def close(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("parts", [2, 3, SAMPLES, 30])
@pytest.mark.parametrize("method", [IBP(), CLEAN_START, Standard()], ids=lambda method: method.name)
@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_parts_give_the_gradient_of_the_whole(tiny, method, parts, weight):
    recipe = tiny(method=method, shi=0.0, l1=1e-3, robust_weight=weight)
    whole, means = gradients(recipe)
    in_parts, means_of_parts = gradients(replace(recipe, accumulate=parts))
    assert close(whole, in_parts)
    assert means_of_parts == pytest.approx(means, abs=1e-10)
    assert max(gradient.abs().max() for gradient in whole) > 0.01


@pytest.mark.parametrize("network", [CNN3(width=2), MLP(hidden=(7,))], ids=["batch norm", "plain"])
def test_the_gradient_goes_through_the_statistics_of_the_whole_batch(tiny, network):
    """The same as the gradient that torch computes of the whole loss at once, without any cut."""
    recipe = tiny(network=network, shi=0.0, robust_weight=0.7, accumulate=3)
    found, means = gradients(recipe)
    model, net, batch = clean_pass(recipe, 0.04)
    robust = recipe.method(net, batch).per_sample.mean()
    loss = 0.7 * robust + 0.3 * torch.nn.functional.cross_entropy(batch.logits, batch.y)
    assert means["loss"] == pytest.approx(loss.item(), abs=1e-12)
    assert close(found, list(torch.autograd.grad(loss, list(model.parameters()))))
    if network.name == "cnn3":
        # cut at the statistics, and not joined again, it would be another one
        apart = recipe.method(cut(net, batch)[0], batch).per_sample.mean()
        gradient = torch.autograd.grad(apart, list(model.parameters()), allow_unused=True)
        assert any(g is None or not torch.allclose(g, f) for g, f in zip(gradient, found, strict=True))


def test_the_regulariser_of_shi_is_the_mean_over_the_parts(tiny):
    recipe = tiny(shi=0.5, accumulate=2)
    _, means = gradients(recipe)
    _, net, batch = clean_pass(recipe, 0.04)
    expected = 0.0
    for part in torch.arange(SAMPLES).chunk(2):
        some = replace(batch, x=batch.x[part], y=batch.y[part], region=batch.region.take(part))
        expected += len(part) / SAMPLES * regularizers.shi(net, recipe.method(net, some).boxes).item()
    assert means["loss"] - means["robust_loss"] == pytest.approx(0.5 * (1 - 0.04 / 0.05) * expected, abs=1e-12)
    assert expected > 0.01


def test_only_what_the_clean_pass_has_made_is_cut(tiny):
    model, net, batch = clean_pass(tiny(), 0.04)
    cut_net, cut_batch, cut_tensors = cut(net, batch)
    assert len(cut_tensors) == 2 * 2 + 1  # factor and shift of two batch norms, and the logits
    assert all(leaf.grad_fn is None and torch.equal(leaf, tensor) for tensor, leaf in cut_tensors)
    assert cut_batch.logits is cut_tensors[-1][1]
    leaves = [leaf for _, leaf in cut_tensors[:-1]]
    reached = torch.autograd.grad(cut_net(batch.x).sum(), [*leaves, *model.parameters()], allow_unused=True)
    names = [*("leaf" for _ in leaves), *(name for name, _ in model.named_parameters())]
    norms = {"2.weight", "2.bias", "5.weight", "5.bias"}
    assert {name for name, gradient in zip(names, reached, strict=True) if gradient is None} == norms
