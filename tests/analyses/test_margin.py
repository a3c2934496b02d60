"""The margin of a data set: by hand, and against all distances at once."""

import pytest
import torch

from ctbench.analyses import margin
from ctbench.analyses.margin import data_margin

X = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.5, 0.0], [3.0, 9.0], [8.0, 4.0]])
Y = torch.tensor([1, 0, 1, 1, 7])


@pytest.mark.parametrize(
    ("norm", "distance", "pair"), [("l2", 41**0.5 / 2, (1, 2)), ("linf", 4.0, (0, 1)), ("l1", 5.0, (1, 3))]
)
def test_by_hand(norm, distance, pair):
    # (1, 2) is (2.5, 4) apart, (1, 3) is (0, 5) and (1, 4) is (5, 0); the nearest of all, (0, 2), is of one class
    x = X.clone()
    if norm == "l2":
        x[2] = torch.tensor([0.5, 2.0])
    margin = data_margin(x, Y, norm)
    assert margin.distance == pytest.approx(distance, abs=1e-15)
    assert margin.pair == pair


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("planted", [(3, 90), (57, 120), (119, 4)])
def test_a_pair_in_any_part_is_found(monkeypatch, norm, planted):
    monkeypatch.setattr(margin, "ROWS", 7)
    monkeypatch.setattr(margin, "COLUMNS", 11)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(121, 2, 3, generator=generator), torch.arange(121) % 4
    first, second = planted
    y[first] = (y[second] + 1) % 4
    x[first] = x[second] + 1e-3
    nearest = data_margin(x, y, norm)
    assert nearest.pair == tuple(sorted(planted))
    difference = (x[first].double() - x[second].double()).abs()
    expected = {"l2": difference.square().sum().sqrt(), "linf": difference.amax(), "l1": difference.sum()}[norm]
    assert nearest.distance == pytest.approx(expected.item(), abs=1e-15)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_it_is_the_least_of_all_distances(norm):
    generator = torch.Generator().manual_seed(2)
    x, y = torch.rand(300, 5, generator=generator), torch.randint(3, (300,), generator=generator)
    difference = x.double().unsqueeze(1) - x.double()
    every = {
        "l2": difference.square().sum(2).sqrt(),
        "linf": difference.abs().amax(2),
        "l1": difference.abs().sum(2),
    }[norm]
    least = every[y.unsqueeze(1) != y].min()
    margin = data_margin(x, y, norm)
    assert margin.distance == pytest.approx(least.item(), abs=1e-15)
    assert every[margin.pair] == least
    assert y[margin.pair[0]] != y[margin.pair[1]]


def test_an_input_with_two_labels_has_margin_zero():
    """Products of matrices alone would give errors of about 1e-6."""
    x = torch.randn(100, 784, generator=torch.Generator().manual_seed(3)) * 100
    x[70] = x[20]
    assert data_margin(x, torch.arange(100) % 3) == (0.0, (20, 70))


@pytest.mark.parametrize(
    ("x", "y", "norm", "message"),
    [
        (X, Y, "l3", "norm is 'l3': it must be one of l2, linf, l1"),
        (X, Y[:3], "l2", "5 inputs .* and 3 labels"),
        (X, Y * 0 + 2, "l2", "all samples are of class 2"),
        (X / 0, Y, "l2", "NaN or infinite"),
    ],
)
def test_what_has_no_margin_is_refused(x, y, norm, message):
    with pytest.raises(ValueError, match=message):
        data_margin(x, y, norm)
