"""The objectives of attacks: the DLR losses and the margin of a target, against their formulas."""

import pytest
import torch
from torch import Tensor

from ctbench.specification import dlr_at, targeted_dlr_at, targeted_margin_at, violation_at

POINTS = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0)).double()  # [R, B, n]
Y, TARGET = torch.tensor([1, 3, 0]), torch.tensor([2, 0, 4])


def net(classes: int):
    weight = torch.randn(classes, 6, generator=torch.Generator().manual_seed(classes)).double()
    return lambda points: points @ weight.T


def singly(formula, net) -> Tensor:
    """A formula of the logits, the label and the target of one point, for all points."""
    rows = [
        [formula(net(x).tolist(), int(y), int(t)) for x, y, t in zip(row, Y, TARGET, strict=True)] for row in POINTS
    ]
    return torch.tensor(rows, dtype=torch.float64)


def dlr(z: list[float], y: int, _) -> float:
    top = sorted(z, reverse=True)
    return -(z[y] - max(z[:y] + z[y + 1 :])) / (top[0] - top[2])


def targeted_dlr(z: list[float], y: int, target: int) -> float:
    top = sorted(z, reverse=True)
    return -(z[y] - z[target]) / (top[0] - (top[2] + top[3]) / 2)


def test_dlr_is_the_formula():
    torch.testing.assert_close(dlr_at(net(5), Y)(POINTS), singly(dlr, net(5)), rtol=1e-10, atol=0)


def test_targeted_dlr_is_the_formula():
    values = targeted_dlr_at(net(5), Y, TARGET)(POINTS)
    torch.testing.assert_close(values, singly(targeted_dlr, net(5)), rtol=1e-10, atol=0)


def test_targeted_margin_is_the_formula():
    values = targeted_margin_at(net(5), Y, TARGET)(POINTS)
    torch.testing.assert_close(values, singly(lambda z, y, target: z[target] - z[y], net(5)), rtol=1e-12, atol=1e-15)


def test_dlr_by_hand():
    logits = torch.tensor([[[4.0, 3.0, 1.0, -5.0]]]).double()  # [1, 1, 4]
    zero, two = torch.tensor([0]), torch.tensor([2])
    assert dlr_at(lambda z: z, zero)(logits).item() == pytest.approx(-1 / 3)
    assert dlr_at(lambda z: z, two)(logits).item() == pytest.approx(1.0)  # z_(1) is not z_y
    assert targeted_dlr_at(lambda z: z, zero, two)(logits).item() == pytest.approx(-3 / 6)


@pytest.mark.parametrize("loss", [dlr_at, lambda net, y: targeted_dlr_at(net, y, TARGET)])
def test_dlr_does_not_see_scale_or_shift(loss):
    logits = net(5)
    torch.testing.assert_close(
        loss(logits, Y)(POINTS), loss(lambda x: 1e4 * logits(x) - 7, Y)(POINTS), rtol=1e-9, atol=0
    )


def test_dlr_of_two_classes_is_the_margin():
    y = torch.tensor([1, 0, 0])
    assert torch.equal(dlr_at(net(2), y)(POINTS), violation_at(net(2), y)(POINTS))
    assert not torch.equal(dlr_at(net(3), y)(POINTS), violation_at(net(3), y)(POINTS))


def test_targeted_dlr_of_three_classes_is_refused():
    y, target = torch.tensor([1, 0, 0]), torch.tensor([2, 1, 1])
    with pytest.raises(ValueError, match="has 3 classes but the targeted DLR loss needs 4 or more"):
        targeted_dlr_at(net(3), y, target)(POINTS)
    assert targeted_dlr_at(net(4), y, target)(POINTS).shape == (5, 3)


@pytest.mark.parametrize("loss", [dlr_at, lambda net, y: targeted_dlr_at(net, y, TARGET)])
def test_equal_logits_give_zero_and_finite_gradients(loss):
    points = torch.zeros(1, 3, 5, requires_grad=True)
    values = loss(lambda x: x, Y)(points)
    (gradient,) = torch.autograd.grad(values.sum(), points)
    assert torch.equal(values, torch.zeros(1, 3))
    assert gradient.isfinite().all()
