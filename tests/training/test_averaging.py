"""PreciseBN."""

import torch
from torch import nn

from ctbench.training.averaging import precise_batch_norm


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 4, 4, generator=generator) + size for size in (8, 8, 3)]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3, momentum=0.1),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.BatchNorm1d(5, momentum=0.25),
        nn.Linear(5, 2),
    )
    model[0].running_mean.fill_(100.0)  # what was there before plays no part
    model[3].running_var.fill_(100.0)
    return model


def test_statistics_are_averages_of_batch_means_and_unbiased_variances():
    model, data = network(), batches()
    precise_batch_norm(model, data)
    means = torch.stack([x.mean((0, 2, 3)) for x in data]).mean(0)
    variances = torch.stack([x.var((0, 2, 3), unbiased=True) for x in data]).mean(0)
    torch.testing.assert_close(model[0].running_mean, means)
    torch.testing.assert_close(model[0].running_var, variances)
    # not those of all samples together: the batches lie far apart
    assert (torch.cat(data).var((0, 2, 3)) > 2 * model[0].running_var).all()


def test_inner_layers_see_the_statistics_of_their_batch():
    model, data = network(), batches()
    precise_batch_norm(model, data)
    inner = []
    for x in data:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        inner.append(model[2](((x - mean) / (variance + 1e-5).sqrt()).flatten(1)))
    torch.testing.assert_close(model[3].running_mean, torch.stack([z.mean(0) for z in inner]).mean(0))
    torch.testing.assert_close(model[3].running_var, torch.stack([z.var(0) for z in inner]).mean(0))


def test_momentum_is_restored_and_weights_stay():
    model = network()
    before = {name: value.clone() for name, value in model.named_parameters()}
    precise_batch_norm(model, batches())
    assert (model[0].momentum, model[3].momentum) == (0.1, 0.25)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert not model.training


def test_twice_is_as_good_as_once():
    once, twice = network(), network()
    precise_batch_norm(once, batches())
    precise_batch_norm(twice, batches()[:1])
    precise_batch_norm(twice, batches())
    assert all(torch.equal(a, b) for a, b in zip(once.buffers(), twice.buffers(), strict=True))


def test_a_network_without_batch_norm_sees_no_data():
    def none():
        raise AssertionError("no batch is needed")
        yield

    model = nn.Sequential(nn.Linear(3, 2)).train()
    precise_batch_norm(model, none())
    assert model.training
