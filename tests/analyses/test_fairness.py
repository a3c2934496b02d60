"""The accuracy discrepancy, by hand."""

import pytest
import torch

from ctbench.analyses.fairness import discrepancy

LABELS = torch.tensor([0, 0, 0, 0, 2, 2, 5, 5])


def wrong(*places: int) -> torch.Tensor:
    return torch.zeros(8, dtype=torch.bool).index_fill(0, torch.tensor(places, dtype=torch.long), True)


def test_by_hand():
    # classes 0, 2, 5 are wrong about 1/4, 1/2 and 0 of their samples, and all together about 2/8
    assert discrepancy(wrong(0, 4), LABELS) == pytest.approx((1 / 2 - 1 / 4) / (3 / 4), abs=1e-15)


def test_the_worst_class_counts_wherever_it_stands():
    assert discrepancy(wrong(0, 1, 2, 4), LABELS) == pytest.approx((3 / 4 - 4 / 8) / (1 / 2), abs=1e-15)


@pytest.mark.parametrize(("places", "expected"), [((), 0.0), ((0, 1, 4, 6), 0.0), ((6, 7), 1.0), (range(7), 1.0)])
def test_fair_and_as_unfair_as_can_be(places, expected):
    assert discrepancy(wrong(*places), LABELS) == pytest.approx(expected, abs=1e-15)


def test_where_all_is_wrong():
    assert discrepancy(wrong(*range(8)), LABELS) == 1.0


def test_it_is_exact_for_many_samples():
    labels = torch.arange(3).repeat(1_000_000)
    errors = (labels == 2) & (torch.arange(3_000_000) % 2 == 0)
    assert discrepancy(errors, labels) == pytest.approx((1 / 2 - 1 / 6) / (5 / 6), abs=1e-12)


@pytest.mark.parametrize(
    ("errors", "labels"),
    [
        (wrong(0), LABELS[:5]),
        (wrong(0).long(), LABELS),
        (wrong(0)[:0], LABELS[:0]),
        (wrong(0).view(2, 4), LABELS.view(2, 4)),
    ],
)
def test_what_does_not_fit_is_refused(errors, labels):
    with pytest.raises(ValueError, match=r"one bool .* and one label per sample"):
        discrepancy(errors, labels)
