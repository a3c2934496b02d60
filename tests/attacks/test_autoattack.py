"""The wrapper around pyautoattack: the parts that run, the points that it returns, and the state that it restores."""

import sys

import pytest
import torch
from torch import nn

from ctbench.attacks import AutoAttack
from ctbench.attacks.autoattack import _tiled
from ctbench.regions import L1, L2, Linf, threat

SHAPE = torch.Size((1, 6, 6))


def sample(classes: int = 5, dtype: torch.dtype = torch.float64):
    """A network, inputs, and the network's own answers as labels."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, classes)).to(dtype)
    x = torch.rand(6, *SHAPE).to(dtype)
    return net, x, net(x).argmax(1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.4), ("l2", 2.5)])
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_points_of_the_region_fool_the_network(norm, eps, version):
    net, x, y = sample()
    points = AutoAttack(version=version)(net, x, y, threat(norm, eps))
    region = threat(norm, eps).region(x)
    assert points.dtype == x.dtype
    assert torch.equal(region.project(points), points)
    assert (net(points).argmax(1) != y).all()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes(classes):
    net, x, y = sample(classes)
    points = AutoAttack(version="plus")(net, x, y, Linf(0.5))
    assert (net(points).argmax(1) != y).all()


def test_vectors_are_attacked_too():
    net, x, y = sample()
    points = AutoAttack()(net[1:], x.flatten(1), y, Linf(0.4))
    assert points.shape == (6, 36)
    assert (net[1:](points).argmax(1) != y).all()


def test_what_is_misclassified_stays_where_it_is():
    net, x, y = sample(dtype=torch.float32)
    wrong = (y + 1) % 5
    assert torch.equal(AutoAttack()(net, x, wrong, Linf(0.2)), x)


def test_nothing_is_left_behind():
    net, x, y = sample()
    net, x = net[1:], x.flatten(1)  # no image: 5000 questions of Square fewer
    before, state = x.clone(), torch.get_rng_state()
    first, second = (AutoAttack(seed=1)(net, x, y, L2(1.2)) for _ in range(2))
    standing = net(first).argmax(1) == y
    assert standing.any()  # so all parts were run
    assert not standing.all()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not first.requires_grad


def test_the_parts_by_the_number_of_classes():
    standard, plus = AutoAttack(), AutoAttack(version="plus")
    assert standard.parts(SHAPE, 4, "linf") == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert plus.parts(SHAPE, 4, "linf") == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    for attack in (standard, plus):
        assert attack.parts(SHAPE, 3, "linf") == ["apgd-ce", "apgd-dlr", "fab", "square"]
        assert attack.parts(SHAPE, 2, "linf") == ["apgd-ce", "fab", "square"]


def test_one_part_alone():
    assert AutoAttack(only="fab-t").parts(SHAPE, 4, "linf") == ["fab-t"]
    assert AutoAttack(only="fab-t").parts(SHAPE, 3, "linf") == []
    net, x, y = sample()
    points = AutoAttack(only="apgd-ce")(net, x, y, Linf(0.4))
    assert (net(points).argmax(1) != y).any()
    with pytest.raises(ValueError, match="only is 'fgsm': it must be one of apgd-ce, apgd-dlr, fab, square, apgd-t"):
        AutoAttack(only="fgsm")


def test_square_is_for_images_that_its_tiles_fit_into():
    parts = AutoAttack().parts
    assert "square" not in parts(torch.Size((36,)), 10, "linf")
    assert "square" in parts(torch.Size((1, 3, 3)), 10, "linf")
    assert "square" not in parts(torch.Size((1, 3, 3)), 10, "l2")
    assert "square" in parts(torch.Size((3, 32, 32)), 10, "l2")
    assert "square" not in parts(torch.Size((1, 14, 14)), 10, "l2")
    assert all(_tiled(side, side) for side in (8, 28, 32, 64, 224))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threat": L1(0.1)}, "norm is 'l1': AutoAttack is for linf and l2"),
        ({"threat": Linf(torch.rand(SHAPE) / 2)}, "eps has a radius for each feature: AutoAttack takes one number"),
        ({"x": torch.full((6, *SHAPE), 1.5).double()}, "give raw pixels"),
        ({"y": torch.full((6,), 5)}, "label 5 of sample 0 is out of range"),
    ],
)
def test_wrong_arguments_are_refused(changes, message):
    net, x, y = sample()
    arguments = {"x": x, "y": y, "threat": Linf(0.1)} | changes
    with pytest.raises(ValueError, match=message):
        AutoAttack()(net, **arguments)


def test_an_unknown_version_is_refused():
    with pytest.raises(ValueError, match="version is 'best': it must be one of standard, plus"):
        AutoAttack(version="best")


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    net, x, y = sample()
    with pytest.raises(ValueError, match="pip install pyautoattack, or use APGD"):
        AutoAttack()(net, x, y, Linf(0.1))
