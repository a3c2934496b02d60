"""Which parameters are weights."""

import torch
from torch import nn

from ctbench.methods.regularizers import l1
from ctbench.networks import weights


class Owner(nn.Module):
    """A module of a user, with a matrix, and with parameters that are not weights."""

    def __init__(self) -> None:
        super().__init__()
        self.in_weight = nn.Parameter(torch.ones(3, 2))
        self.bias = nn.Parameter(torch.ones(3))
        self.factor_weight = nn.Parameter(torch.ones(3, 1, 1))
        self.shift = nn.Parameter(torch.ones(2, 3))
        self.inner = nn.Linear(3, 4)


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(weight.values.shape) for weight in weights(model)]


def test_layers_of_torch_have_a_weight_in_any_dimension():
    layers = nn.Sequential(
        nn.Conv1d(1, 2, 3),
        nn.Conv3d(1, 2, 3),
        nn.ConvTranspose1d(4, 2, 3),
        nn.ConvTranspose3d(4, 2, 3),
        nn.Bilinear(2, 3, 5),
        nn.Linear(1, 7),
    )
    assert shapes(layers) == [(2, 1, 3), (2, 1, 3, 3, 3), (4, 2, 3), (4, 2, 3, 3, 3), (5, 2, 3), (7, 1)]


def test_norms_slopes_and_embeddings_have_none():
    assert not weights(nn.Sequential(nn.BatchNorm2d(4), nn.LayerNorm((4, 4)), nn.RMSNorm((4, 4)), nn.GroupNorm(2, 4)))
    assert not weights(nn.Sequential(nn.PReLU(4), nn.Embedding(5, 3)))


def test_a_module_of_a_user_has_those_that_it_calls_weights():
    owner = Owner()
    assert shapes(owner) == [(3, 2), (4, 3)]
    assert torch.isclose(l1(owner), 6 + owner.inner.weight.abs().sum())


def test_a_shared_weight_is_one_weight():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert shapes(nn.Sequential(first, nn.ReLU(), second, first)) == [(3, 3)]
