"""Margins, and the losses computed from them."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbench.specification import (
    check_labels,
    cross_entropy_at,
    margin_rows,
    margins,
    robust_cross_entropy,
    violation_at,
    wrong_classes,
)


def test_margin_rows_by_hand():
    rows = margin_rows(torch.tensor([1, 0, 2]), 3)
    assert rows.tolist() == [[[-1, 1, 0], [0, 1, -1]], [[1, -1, 0], [1, 0, -1]], [[-1, 0, 1], [0, -1, 1]]]
    assert margin_rows(torch.tensor([1]), 3, dtype=torch.float64).dtype == torch.float64


def test_wrong_classes_ascend_without_the_label():
    expected = [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert wrong_classes(torch.arange(4), 4).tolist() == expected


def test_margins_are_the_rows_times_the_logits():
    torch.manual_seed(0)
    logits, y = torch.randn(6, 5).double(), torch.tensor([0, 1, 2, 3, 4, 2])
    expected = (margin_rows(y, 5, dtype=torch.float64) @ logits.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(margins(logits, y), expected)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=4))
def test_robust_cross_entropy_is_that_of_zero_and_minus_the_margins(rows):
    m = torch.tensor(rows, dtype=torch.float64)
    logits = torch.cat([torch.zeros(len(m), 1).double(), -m], dim=1)
    expected = F.cross_entropy(logits, torch.zeros(len(m), dtype=torch.long), reduction="none")
    torch.testing.assert_close(robust_cross_entropy(m), expected, rtol=1e-12, atol=1e-12)


def test_robust_cross_entropy_of_true_margins_is_the_cross_entropy():
    torch.manual_seed(0)
    logits, y = torch.randn(6, 5).double(), torch.tensor([0, 1, 2, 3, 4, 2])
    expected = F.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(robust_cross_entropy(margins(logits, y)), expected)
    assert robust_cross_entropy(torch.zeros(1, 3)).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_robust_cross_entropy_of_large_margins_is_finite(dtype):
    m = torch.tensor([[1000.0, 1000.0], [-1000.0, 1000.0], [-1000.0, -1000.0]], dtype=dtype, requires_grad=True)
    loss = robust_cross_entropy(m)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1000.0, 1000.0 + math.log(2)], dtype=dtype))
    loss.sum().backward()
    expected = torch.tensor([[0, 0], [-1, 0], [-0.5, -0.5]], dtype=dtype)
    torch.testing.assert_close(m.grad, expected, rtol=0, atol=1e-4)


def test_labels_are_checked():
    check_labels(torch.tensor([0, 3]), 4)
    check_labels(torch.tensor([0, 3], dtype=torch.int32), 4)
    check_labels(torch.empty(0, dtype=torch.long), 4)
    with pytest.raises(ValueError, match=r"label 4 of sample 1 is out of range: .* 4 classes, so labels are 0\.\.3"):
        check_labels(torch.tensor([0, 4, 9]), 4)
    with pytest.raises(ValueError, match="label -1 of sample 0"):
        check_labels(torch.tensor([-1, 2]), 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_must_be_integers(dtype):
    with pytest.raises(ValueError, match=f"labels must be integers, these are {dtype}"):
        check_labels(torch.tensor([0, 1]).to(dtype), 4)


def test_objectives_are_those_of_each_point():
    torch.manual_seed(0)
    weight, y = torch.randn(4, 3).double(), torch.tensor([1, 3])
    points = torch.randn(5, 2, 3).double()
    losses = cross_entropy_at(lambda x: x @ weight.T, y)(points)
    violations = violation_at(lambda x: x @ weight.T, y)(points)
    assert losses.shape == violations.shape == (5, 2)
    for restart, row in enumerate(points):
        for sample, x in enumerate(row):
            logits, label = weight @ x, int(y[sample])
            others = torch.cat([logits[:label], logits[label + 1 :]])
            assert losses[restart, sample].item() == pytest.approx((logits.logsumexp(0) - logits[label]).item())
            assert violations[restart, sample].item() == pytest.approx((others.max() - logits[label]).item())
