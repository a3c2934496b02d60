"""Networks that cannot be bounded: the message names the layer, and says what to do."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ctbench
from ctbench.graph import UnsupportedLayerError
from ctbench.vnnlib import parse_vnnlib

X, Y = torch.full((1, 2), 0.5), torch.tensor([0])


def normalised(**options: object) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, **options), nn.ReLU(), nn.Linear(3, 2))


class LogSoftmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.layer(x), dim=1)


def test_a_batch_norm_without_statistics_is_named():
    with pytest.raises(ValueError, match=r"layer '1': this batch norm has no running statistics"):
        ctbench.certify(normalised(track_running_stats=False), X, Y, eps=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("running_var", float("nan")),
        ("running_var", -1.0),
        ("running_var", float("inf")),
        ("running_mean", -float("inf")),
    ],
)
def test_statistics_that_cannot_be_are_named(name, value):
    model = normalised()
    getattr(model[1], name)[1] = value
    for call in (lambda: ctbench.bounds(model, X, eps=0.1), lambda: ctbench.certify(model, X, Y, eps=0.1)):
        with pytest.raises(ValueError, match=rf"buffer '1.{name}' holds NaN"):
            call()


@pytest.mark.parametrize(
    "model",
    [LogSoftmax(), nn.Sequential(nn.Linear(2, 3), nn.Softmax(1)), nn.Sequential(nn.Linear(2, 3), nn.LogSoftmax(1))],
)
def test_a_softmax_is_not_needed(model):
    with pytest.raises(UnsupportedLayerError, match="not needed: it keeps the order of the logits, so let the network"):
        ctbench.certify(model, X, Y, eps=0.1)


def test_one_score_has_a_way_out():
    with pytest.raises(ValueError, match=r"TwoClasses\(model\), which returns \[0, z\], or state a VNN-LIB property"):
        ctbench.certify(nn.Linear(2, 1), X, Y, eps=0.1)


def test_a_byte_order_mark_is_read_over():
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= Y_0 1))"
    assert parse_vnnlib("\ufeff" + text) == parse_vnnlib(text)


def test_arrays_of_numpy_are_named():
    model, x, y = nn.Linear(2, 2), X.numpy(), Y.numpy()
    calls = (
        lambda: ctbench.certify(model, x, Y, eps=0.1),
        lambda: ctbench.certify(model, X, y, eps=0.1),
        lambda: ctbench.bounds(model, x, eps=0.1),
        lambda: ctbench.margin_bounds(model, X, y, eps=0.1),
        lambda: ctbench.write_robustness("a.vnnlib", np.zeros(2), np.ones(2), 0, 2),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"ndarray.*give (a )?(torch )?tensor"):
            call()
