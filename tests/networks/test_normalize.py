"""Normalize: values, copies and files of the network, and errors."""

import math

import pytest
import torch

from ctbench.networks import Normalize


def test_values_by_hand():
    layer = Normalize([0.5, 0.0], [0.25, 2.0])
    x = torch.tensor([[[[1.0]], [[1.0]]]])
    assert layer(x).flatten().tolist() == [2.0, 0.5]


def test_inputs_without_space():
    assert Normalize([0.5, 0.0], [0.25, 2.0], spatial=0)(torch.ones(1, 2)).tolist() == [[2.0, 0.5]]


def test_buffers_follow_the_network_and_are_saved_but_not_trained():
    layer = Normalize([0.5], [0.25])
    assert not list(layer.parameters())
    assert layer.state_dict().keys() == {"mean", "std"}
    assert layer.mean.shape == layer.std.shape == (1, 1, 1)
    assert layer.double()(torch.rand(2, 1, 3, 3, dtype=torch.float64)).dtype == torch.float64


def test_repr_shows_the_constants():
    assert repr(Normalize([0.1307], [0.3081])) == "Normalize([0.1307], [0.3081])"


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.0], "every std above 0"),
        ([0.5], [-1.0], "every std above 0"),
        ([math.nan], [1.0], "every value must be finite"),
        ([0.5], [math.inf], "every value must be finite"),
        ([0.5, 0.5], [1.0], "mean has 2 values and std has 1; give one of each per channel"),
        ([], [], "mean has 0 values"),
    ],
)
def test_errors(mean: list[float], std: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)
