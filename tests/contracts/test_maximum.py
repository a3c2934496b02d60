"""Planes around the greatest of several values."""

import math
from itertools import product

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.contracts.intervals import INTERVALS, PRECISIONS, RANDOM, both_precisions
from tests.contracts.ops import rand
from torch import nn

from ctbench.graph import lower
from ctbench.graph.ops import Max

BOXES = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(INTERVALS, min_size=n, max_size=n), min_size=1, max_size=8)
)
DOMINATED = [[(0.0, 1.0), (1.0, 3.0)], [(-1.0, -1.0), (2.0, 2.0)], [(2.0, 2.0), (2.0, 2.0)], [(0.0, 0.0), (0.0, 1.0)]]


@both_precisions
@RANDOM(max_examples=60)
@given(boxes=BOXES)
@example(boxes=DOMINATED)
@example(boxes=[[(-1.0, 2.0)]])
@example(boxes=[[(-1.0, 1.0)] * 5])
@example(boxes=[[(-3.0, 1.0), (-1.0, 2.0)]])
def test_planes_around_a_maximum(dtype, boxes):
    """Sound at corners and inside; they touch the maximum, and are the maximum where one entry dominates the others."""
    lower, upper = torch.tensor(boxes, dtype=torch.float64).unbind(2)  # [B, n]
    lower, upper = lower.to(dtype), upper.to(dtype)
    count, slack = lower.shape[1], PRECISIONS[dtype]
    lines = Max().lines(lower.view(-1, count, 1), upper.view(-1, count, 1))
    assert lines.lower_offset is None
    assert lines.upper_offset.shape == (len(lower), 1)
    low, high, rise = lines.lower_slope.squeeze(2).double(), lines.upper_slope.squeeze(2).double(), lines.upper_offset
    corners = torch.tensor(list(product([0.0, 1.0], repeat=count)), dtype=torch.float64)
    shares = torch.cat([corners, torch.rand(50, count, generator=torch.Generator().manual_seed(0)).double()])
    points = lower.double() + shares.unsqueeze(1) * (upper - lower).double()  # [P, B, n]
    greatest = Max()(points.flatten(0, 1)).view(len(points), -1)
    below, above = (low * points).sum(2), (high * points).sum(2) + rise.squeeze(1).double()
    scale = 1 + torch.maximum(lower.abs(), upper.abs()).double().sum(1)
    assert (below <= greatest + slack * scale).all()
    assert (above >= greatest - slack * scale).all()
    assert ((greatest - below).amin(0) <= slack * scale).all()
    assert ((above - greatest).amin(0) <= slack * scale).all()
    first = lower.argmax(1, keepdim=True)
    dominated = lower.gather(1, first) >= upper.scatter(1, first, -math.inf).amax(1, keepdim=True)
    assert ((above - below).amax(0) <= slack * scale)[dominated.squeeze(1)].all()
    assert (high >= 0).all()
    assert (above.amax(0) <= 2 * scale).all()
    centre = (high * (lower + upper).double() / 2).sum(1) + rise.squeeze(1).double()
    assert (centre <= upper.amax(1) + slack * scale).all()  # nothing is worse at the centre than the interval


def test_planes_around_a_maximum_of_images():
    lower, w = rand(2, 4, 3, 5), rand(2, 4, 3, 5).abs()
    lines = Max().lines(lower, lower + w)
    single = Max().lines(lower[:1, :, 1:2, 3], (lower + w)[:1, :, 1:2, 3])
    for whole, part in zip(lines, single, strict=True):
        assert (whole is None) == (part is None)
        if whole is not None:
            torch.testing.assert_close(whole[:1, ..., 1:2, 3], part, rtol=0, atol=0)


def test_repeats_of_an_entry_have_no_part_in_the_planes():
    """Two entries and their repeats have the planes of the two, even if a repeat differs from its entry by rounding."""
    lower, width = rand(50, 2, 3), rand(50, 2, 3).abs()
    kept = Max().lines(lower, lower + width)
    repeats = torch.tensor([False, False, True, True, True]).view(-1, 1)
    order = [0, 1, 0, 1, 1]
    once = Max(repeats).lines(lower[:, order] + 1e-15 * repeats, (lower + width)[:, order] + 1e-15 * repeats)
    for whole, part in ((once.lower_slope, kept.lower_slope), (once.upper_slope, kept.upper_slope)):
        torch.testing.assert_close(whole[:, :2], part)
        assert not whole[:, 2:].any()
    torch.testing.assert_close(once.upper_offset, kept.upper_offset)


def test_a_window_over_the_edge_has_the_planes_of_its_entries_inside():
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    low, width = rand(2, 3, 5, 5), rand(2, 3, 5, 5).abs()
    select, greatest = lower(pool, (3, 5, 5))
    lines = greatest.lines(select(low), select(low + width))
    corner = Max().lines(low[:, :, :2, :2].flatten(2).mT, (low + width)[:, :, :2, :2].flatten(2).mT)
    torch.testing.assert_close(lines.upper_offset[:, :, 0, 0], corner.upper_offset)
    torch.testing.assert_close(lines.upper_slope[:, :, :, 0, 0].sum(1), corner.upper_slope.sum(1))
    assert ((lines.upper_slope != 0).sum(1) <= 4)[:, :, 0, 0].all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", range(3))
def test_a_maximum_of_bounds_that_are_not_finite_has_no_finite_plane(bad, at):
    for side in range(2):
        ends = torch.tensor([[[-1.0, -2.0, 0.0]], [[1.0, -1.5, 2.0]]])
        if math.isnan(bad) or (bad < 0) == (side == 0):
            ends[side, 0, at] = bad
            assert not Max().lines(*ends.unsqueeze(3))[3].isfinite().any()


def test_gradients_of_planes_are_finite():
    ends = torch.tensor([*DOMINATED, [(-1.0, 1.0)] * 2, [(-3.0, 1.0), (-1.0, 2.0)]], dtype=torch.float64)
    lower, upper = (ends[..., side].clone().requires_grad_() for side in (0, 1))
    lines = Max().lines(lower, upper)
    (lines.upper_slope.sum() + lines.upper_offset.sum()).backward()
    assert lower.grad.isfinite().all()
    assert upper.grad.isfinite().all()
    assert lower.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.AdaptiveMaxPool1d(3), (2, 7)),
        (nn.AdaptiveMaxPool1d(1), (2, 4)),
        (nn.AdaptiveMaxPool2d((4, None)), (2, 6, 5)),
        (nn.AdaptiveMaxPool2d(2), (1, 4, 6)),
        (nn.AdaptiveMaxPool2d((7, 9)), (1, 3, 4)),
        (nn.AdaptiveMaxPool3d((2, 3, 1)), (1, 3, 4, 2)),
    ],
)
def test_adaptive_poolings_are_maxima_of_their_windows(layer, shape):
    select, greatest = lower(layer, shape)
    x = rand(3, *shape)
    assert torch.equal(greatest(select(x)), layer(x))
    assert greatest.shape(select.shape(shape)) == tuple(layer(x).shape[1:])
    places = torch.arange(1.0, 1 + math.prod(shape)).view(1, *shape)
    entries = select(places)
    if greatest.repeats is not None:
        entries = entries.masked_fill(greatest.repeats, 0.0)
    for window in entries.flatten(2)[0].T:  # each entry counts once
        counted = window[window > 0]
        assert len(counted.unique()) == len(counted)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.AdaptiveMaxPool2d(2, return_indices=True), (1, 4, 4), "set return_indices=False"),
        (nn.AdaptiveMaxPool1d(2), (1, 4, 4), r"takes \(channels, .*\), its input has shape \(1, 4, 4\)"),
    ],
)
def test_adaptive_poolings_that_are_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        lower(layer, shape)
