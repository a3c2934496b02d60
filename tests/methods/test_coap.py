"""COAP training: the loss of the dual bounds, and the statistics of estimates."""

import pytest
import torch
from torch import nn

from ctbench.domains import coap
from ctbench.graph import Graph, freeze, trace
from ctbench.methods import Batch
from ctbench.methods.coap import COAP
from ctbench.regions import L2, FirstCoordinate, Linf, Threat
from ctbench.specification import margin_rows, robust_cross_entropy

THREATS = [Linf(eps=0.1), L2(eps=0.3, clip=None), FirstCoordinate(eps=0.4)]


def problem(threat: Threat) -> tuple[Graph, Batch]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    x = torch.rand(20, 5, dtype=torch.float64)
    net, logits = freeze(trace(model, (5,)), x)
    return net, Batch(x, torch.arange(20) % 3, threat.region(x), logits, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_the_loss_is_that_of_the_exact_bounds(threat):
    net, batch = problem(threat)
    loss = COAP()(net, batch)
    spec = margin_rows(batch.y, 3, dtype=torch.float64)
    margins = coap.lower_bounds(net, batch.region, spec)
    torch.testing.assert_close(loss.per_sample, robust_cross_entropy(margins))
    assert torch.equal(loss.correct, (margins > 0).all(1))
    expected = coap.boxes(net, batch.region)
    assert all(torch.equal(a.lower, b.lower) for a, b in zip(loss.boxes, expected, strict=True))


@pytest.mark.parametrize("threat", THREATS[:2], ids=lambda threat: threat.name)
def test_estimates_come_near_the_loss_and_are_no_bounds(threat):
    net, batch = problem(threat)
    exact, estimated = COAP()(net, batch), COAP(projections=2000)(net, batch)
    torch.testing.assert_close(estimated.per_sample, exact.per_sample, rtol=0.1, atol=0.02)
    assert not torch.equal(estimated.per_sample, exact.per_sample)
    assert estimated.boxes is None


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ValueError, match="projections is 0: give at least 1, or None for exact bounds"):
        COAP(projections=0)
    net, batch = problem(FirstCoordinate(eps=0.1))
    with pytest.raises(ValueError, match="the region is a SegmentUnion: random projections support boxes"):
        COAP(projections=5)(net, batch)


def test_one_projection_is_the_least():
    assert COAP(projections=1).projections == 1
    with pytest.raises(ValueError, match="projections is 0: give at least 1"):
        COAP(projections=0)
