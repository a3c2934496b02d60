"""The synthetic distributions are those of the formulas, and samples are functions of the seed."""

import math

import pytest
import torch

from ctbench.datasets import Separable, Spheres


def test_spheres_have_their_radii_and_no_direction_of_their_own():
    data = Spheres(dimension=10, samples=20_000, inner_radius=3.0, margin=2.0).load()
    x, y = data.train[:]
    assert x.shape == (20_000, 10)
    torch.testing.assert_close(x.norm(dim=1), 3.0 + 2.0 * y)
    assert abs(y.double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(len(y))
    directions = (x / x.norm(dim=1, keepdim=True)).double()
    assert directions.mean(0).abs().max() < 4 / math.sqrt(10 * len(y))
    torch.testing.assert_close(directions.T @ directions / len(y), torch.eye(10).double() / 10, atol=5e-3, rtol=0)


def test_separable_data_have_two_first_coordinates_and_noise():
    x, y = Separable(dimension=50, samples=20_000, margin=6.0, sigma=2.0).load().train[:]
    assert torch.equal(x[:, 0], 6.0 * (2 * y - 1))
    noise = x[:, 1:].double()
    assert abs(noise.std().item() - 2.0) < 0.01
    assert noise.mean(0).abs().max() < 5 * 2 / math.sqrt(len(y))
    assert (noise.T @ noise / len(y) - 4 * torch.eye(49)).abs().max() < 0.2


def test_the_class_lies_in_the_direction_of_the_signal():
    spheres = Spheres(dimension=4, samples=100, inner_radius=3.0, margin=2.0)
    x, y = spheres.load().train[:]
    other = x - 2.0 * spheres.signal(x, y)
    torch.testing.assert_close(other.norm(dim=1), 5.0 - 2.0 * y)
    separable = Separable(dimension=4, samples=100, margin=3.0)
    x, y = separable.load().train[:]
    other = x - 6.0 * separable.signal(x, y)
    assert torch.equal(other[:, 0], -x[:, 0])
    assert torch.equal(other[:, 1:], x[:, 1:])


@pytest.mark.parametrize("kind", [Spheres, Separable])
def test_samples_are_functions_of_the_seed_and_test_samples_of_nothing_else(kind):
    small, large = (kind(dimension=5, samples=count, test_samples=50, seed=3).load() for count in (10, 20))
    again, other = (kind(dimension=5, samples=10, test_samples=50, seed=seed).load() for seed in (3, 4))
    assert torch.equal(small.train.inputs, again.train.inputs)
    assert torch.equal(small.test.inputs, large.test.inputs)
    assert not torch.equal(small.train.inputs, other.train.inputs)
    assert not torch.equal(small.test.inputs, other.test.inputs)
    assert not torch.equal(small.test.inputs[:10], small.train.inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spheres(dimension=1, samples=5), "dimension is 1"),
        (lambda: Spheres(dimension=3, samples=0), "samples 0"),
        (lambda: Spheres(dimension=3, samples=5, seed=-1), "seed -1"),
        (lambda: Spheres(dimension=3, samples=5, margin=0.0), "margin is 0.0: it must be a number > 0"),
        (lambda: Spheres(dimension=3, samples=5, inner_radius=math.inf), "inner_radius is inf"),
        (lambda: Separable(dimension=3, samples=5, sigma=math.nan), "sigma is nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
