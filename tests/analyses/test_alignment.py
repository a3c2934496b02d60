"""Alignment of segments and of perturbations with the signal, by hand."""

import math

import pytest
import torch

from ctbench.analyses.alignment import alignment, cosine
from ctbench.regions import L2, FirstCoordinate, Linf, RandomSegments, Segments

X = torch.zeros(2, 1, 2)
SIGNAL = torch.tensor([[[3.0, 4.0]], [[0.0, -2.0]]])


def test_segments_by_hand():
    # cosines of (3, 4): 3/5 and 7/(5 sqrt 2);  of (0, -2): 0 and 1/sqrt 2
    one, both = torch.tensor([[[10.0, 0.0]]]), torch.tensor([[[10.0, 0.0]], [[-0.1, -0.1]]])
    assert alignment(Segments(eps=0.5, directions=one).region(X), SIGNAL) == pytest.approx(0.3, abs=1e-7)
    cosines = alignment(Segments(eps=0.5, directions=both).region(X), SIGNAL)
    assert cosines == pytest.approx((7 / 5 + 1) / 2 / math.sqrt(2), abs=1e-7)


def test_the_length_of_signal_and_segments_is_of_no_matter():
    signal = torch.randn(2, 1, 2, generator=torch.Generator().manual_seed(1))
    first, *others = (
        alignment(FirstCoordinate(eps=eps).region(X), scale * signal)
        for eps, scale in ((0.1, 1.0), (9.0, 1.0), (0.1, 1e-3), (0.1, -5.0))
    )
    assert others == pytest.approx([first] * 3, rel=1e-6)


def test_more_directions_align_better_and_all_of_them_by_a_bound():
    x, signal = torch.zeros(50, 8), torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    cosines = [alignment(RandomSegments(eps=1.0, count=k).region(x), signal) for k in range(1, 9)]
    assert cosines == sorted(cosines)
    assert cosines[0] < cosines[-1]
    assert 8**-0.5 <= cosines[-1] < 1


@pytest.mark.parametrize(
    ("threat", "given"), [(Linf(eps=0.1), "a Box"), (L2(eps=0.1), "a L2Ball"), (FirstCoordinate(eps=0.0), "one point")]
)
def test_other_regions_are_refused(threat, given):
    with pytest.raises(ValueError, match=f"the region is {given}: .* a ball without a data range has alignment 1"):
        alignment(threat.region(X), SIGNAL)


def test_the_cosine_by_hand():
    moved = torch.tensor([[[0.0, 0.1]], [[5.0, 5.0]]])
    assert cosine(moved, SIGNAL) == pytest.approx((4 / 5 - 1 / math.sqrt(2)) / 2, abs=1e-7)
    assert cosine(0.01 * SIGNAL, SIGNAL) == pytest.approx(1, abs=1e-12)
    assert cosine(-SIGNAL, SIGNAL) == pytest.approx(-1, abs=1e-12)


def test_inputs_that_were_not_moved_do_not_count():
    moved = torch.tensor([[[0.0, 0.1]], [[0.0, 0.0]]])
    assert cosine(moved, SIGNAL) == pytest.approx(4 / 5, abs=1e-12)
    assert math.isnan(cosine(0 * moved, SIGNAL))


def test_a_signal_that_does_not_fit_is_refused():
    region = FirstCoordinate(eps=1.0).region(X)
    zero = SIGNAL.clone()
    zero[1] = 0
    for measure in (lambda s: alignment(region, s), lambda s: cosine(X, s)):
        with pytest.raises(ValueError, match=r"directions of samples \[1\] are 0"):
            measure(zero)
        with pytest.raises(ValueError, match=r"directions have shape \[1, 1, 2\] but the inputs \[2, 1, 2\]"):
            measure(SIGNAL[:1])
