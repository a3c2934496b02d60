"""Boxes from the user's corners, and with a radius for each feature."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctbench.recipes import recipe
from ctbench.regions import L2, Box, Linf, linf_box


def test_checked_corners_make_a_box():
    lower, upper = torch.zeros(2, 3), torch.ones(2, 3)
    box = Box.checked(lower, upper)
    assert box.lower is lower
    assert box.upper is upper
    Box.checked(lower, lower)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 4), r"lower has the shape \[2, 3\] but upper \[2, 4\]"),
        (torch.zeros(2, 3), torch.ones(3), r"lower has the shape \[2, 3\] but upper \[3\]"),
        (torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2, 3), "lower is of type torch.uint8: .* floating point"),
        (torch.zeros(2, 3), [[1.0] * 3] * 2, "upper is of type list: .* tensor of floating point"),
        (torch.zeros(2, 3), torch.ones(2, 3).double(), "lower is of type torch.float32 but upper of torch.float64"),
        (torch.zeros(2, 3), torch.full((2, 3), math.nan), "upper holds NaN or infinite"),
        (torch.full((2, 3), -math.inf), torch.ones(2, 3), "lower holds NaN or infinite"),
        (
            torch.tensor([[0.0, 0.0], [0.5, 0.75]]),
            torch.tensor([[1.0, 1.0], [1.0, 0.25]]),
            r"lower is 0.75 but upper is 0.25 at \[1, 1\], and so in 1 of 4 places",
        ),
    ],
)
def test_corners_that_make_no_box(lower, upper, message):
    with pytest.raises(ValueError, match=message):
        Box.checked(lower, upper)


def test_a_radius_of_its_own_for_each_channel():
    x = torch.full((2, 3, 4, 4), 0.5)
    eps = torch.tensor([0.0, 0.1, 0.6]).view(3, 1, 1)
    box = linf_box(x, eps)
    assert box.lower.shape == x.shape
    torch.testing.assert_close(box.lower[1, :, 2, 3], torch.tensor([0.5, 0.4, 0.0]))
    torch.testing.assert_close(box.upper[1, :, 2, 3], torch.tensor([0.5, 0.6, 1.0]))
    torch.testing.assert_close(linf_box(x, eps, clip=None).upper[0, 2], torch.full((4, 4), 1.1))


def test_radii_of_any_shape_that_broadcasts_to_one_input_and_in_the_inputs_precision():
    x = torch.rand(5, 2, 3).double()
    for shape in ((), (3,), (1,), (2, 1), (2, 3), (1, 3)):
        box = linf_box(x, torch.full(shape, 0.1))
        assert box.lower.dtype == torch.float64
        torch.testing.assert_close(box.lower, Linf(eps=0.1).region(x).lower, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (5, 2, 3), (1, 2, 3), (4, 1)])
def test_radii_of_another_shape(shape):
    with pytest.raises(ValueError, match=rf"eps has the shape \[{str(list(shape))[1:-1]}\] but one input has \[2, 3\]"):
        linf_box(torch.rand(5, 2, 3), torch.full(shape, 0.1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_radii_must_be_numbers_above_zero(value):
    with pytest.raises(ValueError, match="every radius must be a number >= 0"):
        linf_box(torch.rand(5, 2), torch.tensor([0.1, value]))


def test_radii_in_units_of_255_are_recognised():
    with pytest.raises(ValueError, match=r"eps is 8.0, wider than the data range \[0, 1\]: .*8/255 is 0.0314, not 8"):
        linf_box(torch.rand(5, 2), torch.tensor([0.1, 8]))
    linf_box(torch.rand(5, 2), torch.tensor([0.1, 8]), clip=None)


def test_gradients_reach_the_radii():
    eps = torch.tensor([0.1, 0.2]).requires_grad_()
    linf_box(torch.full((3, 2), 0.5), eps).upper.sum().backward()
    assert eps.grad.tolist() == [3.0, 3.0]


# -------------------------------------------------------------------------------------------- a radius per feature


@pytest.mark.parametrize("radii", [[0.1, 0.0, 0.25], (0.1, 0.0, 0.25), np.array([0.1, 0.0, 0.25])])
def test_a_threat_model_takes_a_radius_for_each_feature(radii):
    threat, x = Linf(radii), torch.full((2, 3), 0.5).double()
    assert threat.eps == (0.1, 0.0, 0.25)
    assert threat == Linf(torch.tensor([0.1, 0.0, 0.25], dtype=torch.float64))
    assert hash(threat) == hash(Linf(radii))
    box = threat.region(x)
    exact = linf_box(x, torch.tensor([0.1, 0.0, 0.25], dtype=torch.float64))
    assert torch.equal(box.lower, exact.lower)  # not those of radii that were rounded to single precision
    assert torch.equal(box.upper, exact.upper)
    assert json.loads(json.dumps(threat.eps)) == [0.1, 0.0, 0.25]


def test_radii_of_channels_broadcast_to_an_image():
    threat = Linf(torch.tensor([0.0, 0.5]).view(2, 1, 1), clip=None)
    assert threat.eps == (((0.0,),), ((0.5,),))
    radius = threat.region(torch.rand(3, 2, 4, 4)).radius
    assert not radius[:, 0].any()
    torch.testing.assert_close(radius[:, 1], torch.full((3, 4, 4), 0.5))


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ([0.1, -0.1], "eps holds NaN, infinite or negative values"),
        ([0.1, math.nan], "eps holds NaN, infinite or negative values"),
        ([0.1, 8.0], r"eps is 8.0, wider than the data range \[0, 1\]"),
        ([[0.1], [0.1, 0.2]], "a radius must be a number >= 0, or an array of such numbers"),
        (["a", 0.1], "a radius must be a number >= 0, or an array of such numbers"),
    ],
)
def test_radii_that_are_refused(radii, message):
    with pytest.raises(ValueError, match=message):
        Linf(radii)


def test_only_linf_takes_a_radius_for_each_feature():
    with pytest.raises(ValueError, match="eps of L2 is an array: only Linf takes a radius for each feature"):
        L2([0.1, 0.2])
    with pytest.raises(ValueError, match=r"threat\.eps has a radius for each feature: training takes one number"):
        replace(recipe("digits_ibp"), threat=Linf([0.1, 0.2]))


def test_a_radius_of_one_number_is_kept_as_a_number():
    for eps in (torch.tensor(0.25), np.float32(0.25), torch.tensor([[0.25]])[0, 0]):
        assert type(Linf(eps).eps) is float
        assert Linf(eps) == Linf(0.25)
    with pytest.raises(ValueError, match=r"clip is \(1, 0\): the range of the data must be"):
        Linf([0.1], clip=(1, 0))
