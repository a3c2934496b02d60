"""Threat models by the name of their norm."""

import math

import pytest
from tests.kinds import ours

from ctbench.regions import L1, L2, FirstCoordinate, Linf, RandomSegments, Threat, threat, threats
from ctbench.training import codec


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("linf", Linf), (math.inf, Linf), ("l2", L2), (2, L2), (2.0, L2), ("l1", L1), (1, L1)],
)
def test_a_norm_by_its_name_or_order(norm, kind):
    assert threat(norm, 0.5) == kind(eps=0.5)
    assert threat(norm, 0.5, clip=None) == kind(eps=0.5, clip=None)
    assert threat(norm, 0.5, clip=(-1.0, 1.0)) == kind(eps=0.5, clip=(-1.0, 1.0))


def test_threats_that_are_no_norms():
    assert threat("first-coordinate", 0.5) == FirstCoordinate(eps=0.5)
    assert threat("random-segments", 0.5, count=3) == RandomSegments(eps=0.5, count=3)


@pytest.mark.parametrize("norm", ["l3", "", 3, 0.5, -math.inf])
def test_an_unknown_norm(norm):
    with pytest.raises(ValueError, match=f"norm is {norm!r}: it must be one of first-coordinate, l1, l2, linf, "):
        threat(norm, 0.5)


def test_every_threat_model_is_found_by_the_name_that_it_carries():
    assert list(ours(threats())) == ["first-coordinate", "l1", "l2", "linf", "random-segments", "segments"]
    assert all(kind.name == name for name, kind in threats().items())


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_norms_go_through_a_recipe(kind):
    for model in (kind(eps=0.5), kind(eps=0.5, clip=None)):
        assert codec.decode(Threat, codec.encode(model)) == model
