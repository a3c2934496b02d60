"""Unions of segments: their construction, and the arguments that their threat models refuse."""

import math

import pytest
import torch

from ctbench.regions import FirstCoordinate, RandomSegments, Segments, Threat
from ctbench.training import codec


def test_the_minimum_is_that_of_the_worst_direction():
    directions = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    region = Segments(eps=0.5, directions=directions).region(torch.tensor([[1.0, 1.0]]))
    a = torch.tensor([[[3.0, 0.0], [3.0, 1.0], [1.0, 3.0]]])
    assert region.minimum(a).tolist() == [[3 - 1.5, 4 - 1.5, 4 - 3.0]]
    assert region.hull.lower.tolist() == [[0.5, 0.0]]
    assert region.hull.upper.tolist() == [[1.5, 2.0]]


def test_samples_are_uniform_on_every_segment():
    x = torch.zeros(1, 2)
    region = Segments(eps=0.5, directions=torch.tensor([[1.0, 0.0], [0.0, -2.0]])).region(x)
    for points in (region.sample(20_000, torch.Generator().manual_seed(0)), region.start(x, 20_000)):
        first, second = points[:, 0].unbind(1)
        assert ((first == 0) != (second == 0)).all()
        assert (first != 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
        for share in (first[first != 0], second[second != 0] / 2):
            assert share.mean().item() == pytest.approx(0, abs=0.01)
            assert share.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_a_step_stays_on_the_segment_and_leaves_the_center_along_the_steepest():
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    x = torch.zeros(1, 2).double()
    region = Segments(eps=0.5, directions=directions).region(x)
    gradient = torch.tensor([[1.0, -5.0]]).double()
    assert region.ascend(x, gradient, 0.2).tolist() == [[0.0, -0.1]]
    on_the_first = torch.tensor([[0.2, 0.0]]).double()
    torch.testing.assert_close(region.ascend(on_the_first, gradient, 0.2), torch.tensor([[0.3, 0.0]]).double())
    assert region.ascend(on_the_first, gradient, 9.0).tolist() == [[0.5, 0.0]]


def test_the_first_coordinate_is_that_of_the_flat_input():
    x = torch.full((2, 3, 4), 0.25)
    region = FirstCoordinate(eps=0.5).region(x)
    moved = region.sample(10) != x
    assert moved[:, :, 0, 0].all()
    assert moved.sum() == 20
    a = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(region.minimum(a), 0.25 * a.sum((2, 3)) - 0.5 * a[:, :, 0, 0].abs())


def test_random_directions_are_orthonormal_nested_and_follow_the_seed():
    x = torch.rand(2, 3, 4).double()
    few, many = (RandomSegments(eps=1.0, count=count, seed=1).region(x).directions for count in (3, 7))
    assert many.shape == (7, 3, 4)
    flat = many.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(7).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(few, many[:3], rtol=0, atol=1e-12)
    other = RandomSegments(eps=1.0, count=3, seed=2).region(x).directions
    assert (other - few).abs().max() > 0.1
    assert RandomSegments(eps=1.0, count=3).region(x.float()).directions.dtype == torch.float32


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (torch.zeros(0, 3), r"directions has the shape \[0, 3\]: give \[k, \*shape\]"),
        (torch.ones(3), r"directions has the shape \[3\]: give \[k, \*shape\]"),
        (torch.tensor([[1.0, math.nan]]), "directions holds NaN"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), r"directions \[1, 2\] are 0 everywhere"),
    ],
)
def test_directions_that_are_none(directions, message):
    with pytest.raises(ValueError, match=message):
        Segments(eps=0.1, directions=directions)


def test_directions_must_have_the_shape_of_one_input():
    with pytest.raises(ValueError, match=r"directions has the shape \[2, 4\] but one input has \[2, 2\]"):
        Segments(eps=0.1, directions=torch.ones(2, 4)).region(torch.rand(5, 2, 2))
    with pytest.raises(ValueError, match=r"count is 5 but inputs of the shape \[2, 2\] have 4 axes"):
        RandomSegments(eps=0.1, count=5).region(torch.rand(5, 2, 2))
    with pytest.raises(ValueError, match="count is 0: there must be at least one direction"):
        RandomSegments(eps=0.1, count=0)


def test_segments_know_no_data_range():
    for make in (
        lambda **clip: FirstCoordinate(eps=3.0, **clip),
        lambda **clip: RandomSegments(eps=3.0, count=1, **clip),
        lambda **clip: Segments(eps=3.0, directions=torch.ones(1, 2), **clip),
    ):
        assert make().clip is None
        with pytest.raises(ValueError, match=r"clip is \(0, 1\): segments are not limited to the data range"):
            make(clip=(0, 1))
        with pytest.raises(ValueError, match="NaN"):
            make().check(torch.tensor([[math.nan, 0.0]]))


def test_threats_without_a_tensor_can_stand_in_a_recipe():
    for threat in (FirstCoordinate(eps=0.5), RandomSegments(eps=0.5, count=3, seed=4)):
        assert codec.decode(Threat, codec.encode(threat)) == threat
    with pytest.raises(ValueError, match="a recipe cannot hold a Tensor"):
        codec.encode(Segments(eps=0.5, directions=torch.ones(1, 2)))


def test_segments_are_equal_if_their_directions_are():
    one, same, other = (Segments(eps=0.5, directions=torch.tensor([[1.0, value]])) for value in (2.0, 2.0, 3.0))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != Segments(eps=0.4, directions=same.directions)
    assert one != FirstCoordinate(eps=0.5)


def test_segments_in_other_directions_do_not_look_the_same():
    one, other = torch.zeros(2, 1, 2000), torch.zeros(2, 1, 2000)
    one[:, 0, 1000], other[:, 0, 500] = 1.0, 1.0
    assert repr(Segments(0.1, directions=one)) != repr(Segments(0.1, directions=other))
    close = torch.full((1, 3), 1.00001), torch.full((1, 3), 1.00002)
    assert repr(Segments(0.1, directions=close[0])) != repr(Segments(0.1, directions=close[1]))
    assert repr(Segments(0.1, directions=one)) == repr(Segments(0.1, directions=one.clone()))
