"""The clean pass: batch norms become the affine maps that torch computes."""

import copy

import pytest
import torch
from torch import nn

from ctbench.graph import freeze, trace
from ctbench.graph.ops import BatchNorm, Scale


def network(**options) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3, **options),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.BatchNorm1d(5, **options),
        nn.ReLU(),
        nn.Linear(5, 4),
    ).double()
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            if module.track_running_stats:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model


X = torch.rand(6, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
OPTIONS = {
    "usual": {},
    "momentum 0.3": {"momentum": 0.3},
    "average": {"momentum": None},
    "not affine": {"affine": False},
    "large eps": {"eps": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("steps", [1, 3])
def test_training_equals_torch_in_train_mode(name, steps):
    model, reference = network(**OPTIONS[name]), network(**OPTIONS[name]).train()
    model.eval()  # plays no part
    for step in range(steps):
        x, like = X * (step + 1), X * (step + 1)
        _, logits = freeze(trace(model, (2, 4, 4)), x, training=True)
        expected = reference(like)
        torch.testing.assert_close(logits, expected, rtol=1e-11, atol=1e-11)
    logits.square().sum().backward()
    expected.square().sum().backward()
    for (path, one), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9, msg=path)
    for (path, one), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, msg=path)
    assert not model.training


def test_num_batches_tracked_counts():
    model = network()
    graph = trace(model, (2, 4, 4))
    for _ in range(2):
        freeze(graph, X, training=True)
    freeze(graph, X)
    assert [model[1].num_batches_tracked.item(), model[5].num_batches_tracked.item()] == [2, 2]


def test_test_time_equals_torch_in_eval_mode():
    model, reference = network().train(), network().eval()
    before = copy.deepcopy(model.state_dict())
    graph, logits = freeze(trace(model, (2, 4, 4)), X)
    torch.testing.assert_close(logits, reference(X), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(graph(X * 2), reference(X * 2), rtol=1e-11, atol=1e-11)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


def test_a_frozen_graph_keeps_the_statistics_of_the_clean_batch():
    model, reference = network(), network().train()
    graph, _ = freeze(trace(model, (2, 4, 4)), X, training=True)
    assert not any(isinstance(node.op, BatchNorm) for node in graph.nodes)
    assert sum(isinstance(node.op, Scale) for node in graph.nodes) == 2
    reference(X)
    conv = reference[0](X)
    variance, mean = torch.var_mean(conv, (0, 2, 3), correction=0)
    scaled = (conv[:1] - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt()
    expected = scaled * reference[1].weight.view(-1, 1, 1) + reference[1].bias.view(-1, 1, 1)
    value = graph.nodes[2].op(graph.nodes[1].op(X[:1]))
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)


def test_the_statistics_are_not_detached():
    """The loss at another point is differentiated through the mean and the variance of the clean batch."""
    model, reference = network(), network().train()
    graph, _ = freeze(trace(model, (2, 4, 4)), X, training=True)
    other = X.flip(3)[:2] * 0.7
    graph(other).square().sum().backward()

    def normalise(module, clean, points):
        dims = [0, *range(2, clean.dim())]
        shape = (-1, *[1] * (clean.dim() - 2))
        mean, variance = clean.mean(dims), clean.var(dims, correction=0)
        factor = module.weight / (variance + module.eps).sqrt()
        return [(v - mean.view(shape)) * factor.view(shape) + module.bias.view(shape) for v in (clean, points)]

    clean, points = X, other
    for module in reference:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            clean, points = normalise(module, clean, points)
        else:
            clean, points = module(clean), module(points)
    points.square().sum().backward()
    for (path, one), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one.grad, expected.grad, rtol=1e-8, atol=1e-9, msg=path)
    assert model[0].weight.grad.abs().max() > 1e-3


def test_one_value_per_channel_is_too_few():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="more than one value per channel"):
        freeze(trace(model, (3,)), torch.rand(1, 3), training=True)


def test_a_batch_norm_without_running_statistics_has_no_test_time():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ValueError, match="track_running_stats=True"):
        freeze(trace(model, (3,)), torch.rand(4, 3))


def test_inputs_of_another_shape_are_refused():
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(1, 2, 2\), these have \(4,\)"):
        freeze(graph, torch.rand(3, 4))


def test_another_precision():
    model = network().float()
    graph, logits = freeze(trace(model, (2, 4, 4)), X.float())
    double = graph.to(torch.float64)
    assert double(X).dtype == torch.float64
    torch.testing.assert_close(double(X), logits.double(), rtol=1e-4, atol=1e-4)
    assert graph(X.float()).dtype == torch.float32
    assert model[0].weight.dtype == torch.float32


def test_a_detached_graph_gives_no_gradient_to_parameters():
    model = network()
    graph, logits = freeze(trace(model, (2, 4, 4)), X, training=True)
    detached = graph.detach()
    assert not detached(X).requires_grad
    torch.testing.assert_close(detached(X), logits, rtol=1e-11, atol=1e-11)
    x = X.clone().requires_grad_()
    detached(x).sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())
