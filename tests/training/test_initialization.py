"""How weights start."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctbench.networks import weights
from ctbench.training.initialization import build


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 64, 5),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 1000),
        nn.ReLU(),
        nn.Linear(1000, 90),
    )


def test_shi_weights_have_the_standard_deviation_of_the_paper():
    model = build(network, initialization="shi", seed=0)
    for layer, fan_in in ((model[0], 8 * 25), (model[4], 64)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=0.03)
        assert abs(layer.weight.mean().item()) < 0.03 * layer.weight.std().item()
        # normal, not uniform: 4.6 % lie beyond two standard deviations, of a uniform distribution none
        beyond = (layer.weight.abs() > 2 * layer.weight.std()).double().mean().item()
        assert beyond == pytest.approx(0.0455, abs=0.01)


@pytest.mark.parametrize("initialization", ["shi", "kaiming"])
def test_biases_and_batch_norms_keep_the_start_of_torch(initialization):
    model = build(network, initialization=initialization, seed=0)
    for layer, fan_in in ((model[0], 8 * 25), (model[4], 64), (model[6], 1000)):
        assert 0.9 / math.sqrt(fan_in) < layer.bias.abs().max() <= 1 / math.sqrt(fan_in)
    assert torch.equal(model[1].weight, torch.ones(64))
    assert torch.equal(model[1].bias, torch.zeros(64))


def test_the_last_layer_keeps_the_start_of_torch_under_shi():
    weight = build(network, initialization="shi", seed=0)[6].weight
    assert 0.999 / math.sqrt(1000) < weight.abs().max() <= 1 / math.sqrt(1000)
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 1000), rel=0.01)


def test_kaiming_weights_are_uniform_up_to_the_bound_of_the_paper():
    model = build(network, initialization="kaiming", seed=0)
    for layer, fan_in in ((model[0], 8 * 25), (model[4], 64), (model[6], 1000)):
        bound = math.sqrt(6 / fan_in)
        assert 0.998 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("initialization", ["shi", "kaiming"])
def test_weights_are_a_function_of_the_seed_alone(initialization):
    first = build(network, initialization=initialization, seed=3).state_dict()
    torch.rand(7)
    again = build(network, initialization=initialization, seed=3).state_dict()
    other = build(network, initialization=initialization, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in ("0.weight", "0.bias", "4.weight", "6.weight"))


def test_the_global_random_state_is_left_as_it_was():
    before = torch.get_rng_state()
    build(network, initialization="shi", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def autoencoder() -> nn.Module:
    """Layers that are neither Conv2d nor Linear."""
    return nn.Sequential(
        nn.Conv1d(8, 64, 5),
        nn.Conv3d(4, 64, (3, 4, 5), groups=2),
        nn.ConvTranspose2d(32, 48, 4, stride=2, groups=2),
        Mixing(50, 40),
        nn.Linear(40, 10),
    )


FAN_INS = (8 * 5, 2 * 60, 16 * 4, 50)  # an output of the transposed convolution is a sum of 2 x 2 places of 16 channels


class Mixing(nn.Module):
    """A layer of a user."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out, features))
        self.shift = nn.Parameter(torch.zeros(1, out))


def test_every_layer_with_weights_is_drawn_by_its_own_fan_in():
    for initialization, spread in (
        ("shi", lambda fan: math.sqrt(2 * math.pi) / fan),
        ("kaiming", lambda fan: math.sqrt(2 / fan)),
    ):
        model = build(autoencoder, initialization=initialization, seed=0)
        for layer, fan_in in zip(model, FAN_INS, strict=False):
            assert layer.weight.std().item() == pytest.approx(spread(fan_in), rel=0.06)
        assert torch.equal(model[3].shift, torch.zeros(1, 40))


def test_an_output_of_a_transposed_convolution_is_a_sum_over_its_fan_in():
    layer = nn.ConvTranspose2d(32, 48, 4, stride=2, groups=2)
    (weight,) = weights(layer)
    with torch.no_grad():
        inside = F.conv_transpose2d(torch.ones(1, 32, 6, 6), torch.ones_like(layer.weight), stride=2, groups=2)[
            0, 0, 4, 4
        ]
    assert inside.item() == weight.fan_in == 64


def test_the_draws_of_convolutions_and_linear_layers_are_those_of_torch():
    drawn = build(network, initialization="kaiming", seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = network()
        for layer in (expected[0], expected[4], expected[6]):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    assert all(torch.equal(a, b) for a, b in zip(drawn.parameters(), expected.parameters(), strict=True))
