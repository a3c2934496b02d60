"""PreciseBN and SWA."""

import pytest
import torch
from torch import nn

from ctbench.training.averaging import SWA, averaged, precise_batch_norm


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


def test_pooled_statistics_are_those_of_all_samples_together():
    model, data = network(), batches()
    precise_batch_norm(model, data, "pooled")
    x = torch.cat(data)
    torch.testing.assert_close(model[0].running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, x.var((0, 2, 3), unbiased=True))
    inner = []
    for x in data:  # an inner layer sees inputs that were normalised batch by batch
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        inner.append(model[2](((x - mean) / (variance + 1e-5).sqrt()).flatten(1)))
    torch.testing.assert_close(model[3].running_mean, torch.cat(inner).mean(0))
    torch.testing.assert_close(model[3].running_var, torch.cat(inner).var(0))
    assert model[3].running_var.dtype == torch.float32
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(("start", "every", "steps"), [(0, 1, [1, 2, 3]), (2, 3, [13, 16, 19]), (1.5, 10, [18, 28])])
def test_the_steps_whose_weights_are_averaged(start, every, steps):
    """Five steps an epoch, counted once they are done."""
    swa, end = SWA(start=start, every=every), steps[-1]
    taken = [step for step in range(1, end + 1) if swa.taken(step, 5) > swa.taken(step - 1, 5)]
    assert taken == steps
    assert swa.taken(end, 5) == len(steps)


def test_the_average_counts_all_weights_equally():
    model, seen, averages = network(), [], {}
    for count in range(1, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
        seen.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        averages = averaged(averages, model, count)
    assert averages.keys() == seen[0].keys()
    for name, average in averages.items():
        torch.testing.assert_close(average, torch.stack([weights[name] for weights in seen]).mean(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": -1}, "start is -1: it must be an epoch >= 0"),
        ({"start": float("nan")}, "start is nan: it must be an epoch >= 0"),
        ({"start": 1, "every": 0}, "every is 0: it must be a number of steps >= 1"),
    ],
)
def test_an_average_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SWA(**fields)
