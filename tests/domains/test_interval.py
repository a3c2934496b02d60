"""Samples with the same forms are seen to together, which changes no bound and no gradient."""

import pytest
import torch

from ctbench.domains import interval
from ctbench.graph import freeze, trace
from ctbench.networks import CNN3
from ctbench.regions import Linf
from ctbench.specification import margin_rows, robust_cross_entropy


@pytest.mark.parametrize("labels", [[2, 0, 2, 1, 0, 2, 2, 1, 0, 0, 2, 1], [1] * 12, [0, 1, 2] * 4], ids=str)
def test_bounds_and_gradients_are_those_of_one_sample_after_the_other(monkeypatch, labels):
    torch.manual_seed(0)
    model = CNN3(width=2).build((1, 6, 6), 3).double()
    x, y = torch.rand(len(labels), 1, 6, 6, dtype=torch.float64), torch.tensor(labels)
    found = []
    for large in (0, 2**62):
        monkeypatch.setattr(interval, "LARGE", large)
        model.zero_grad()
        net, _ = freeze(trace(model, (1, 6, 6)), x, training=True)
        bounds = interval.lower_bounds(net, Linf(eps=0.05).region(x), margin_rows(y, 3, torch.float64))
        robust_cross_entropy(bounds).sum().backward()
        found.append([bounds.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-11)


def test_they_are_merged_once_a_kind(monkeypatch):
    merged = []
    whole = interval.merge_last_layer
    monkeypatch.setattr(interval, "merge_last_layer", lambda *given: merged.append(given) or whole(*given))
    monkeypatch.setattr(interval, "LARGE", 0)
    net, _ = freeze(trace(CNN3(width=2).build((1, 6, 6), 3).eval(), (1, 6, 6)), torch.zeros(1, 1, 6, 6))
    x, y = torch.rand(12, 1, 6, 6), torch.tensor([0, 1, 2] * 4)
    interval.lower_bounds(net, Linf(eps=0.05).region(x), margin_rows(y, 3))
    assert [len(form.coefficients) for _, form in merged] == [1, 1, 1]


def test_no_forms_have_no_bounds():
    net, _ = freeze(trace(CNN3(width=2).build((1, 6, 6), 3).eval(), (1, 6, 6)), torch.zeros(1, 1, 6, 6))
    region = Linf(eps=0.05).region(torch.rand(2, 1, 6, 6))
    assert interval.lower_bounds(net, region, torch.zeros(2, 0, 3)).shape == (2, 0)
