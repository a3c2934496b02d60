"""A method's own accuracy: that of its `correct`, on all test inputs."""

import pytest
import torch
from tests.analyses.networks import inputs, labels, network, part

from ctbench import margin_bounds
from ctbench.analyses import OwnAccuracy, own_accuracy
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.standard import Standard
from ctbench.methods.taps import TAPS


def test_of_ibp_it_is_what_intervals_certify():
    model, x = network("cnn"), inputs(300)
    y = model(x).argmax(1)
    found = own_accuracy(model, IBP(), x, y, eps=0.01)
    margins = margin_bounds(model, x, y, eps=0.01, domain="interval")
    certified = [bool((row[torch.arange(4) != label] > 0).all()) for row, label in zip(margins, y, strict=True)]
    assert [bool(value) for value in found.values("own accuracy")] == certified
    assert found.mean("natural accuracy") == 1
    assert 0 < found.mean("own accuracy") < 1


def test_tighter_estimates_are_higher():
    model, x = network("cnn"), inputs(60)
    y = model(x).argmax(1)
    methods = IBP(), TAPS(classifier_relus=1), PGD(), Standard()
    shares = [own_accuracy(model, method, x, y, eps=0.03).mean("own accuracy") for method in methods]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1


def test_taps_without_relus_in_the_classifier_is_ibp():
    """Its classifier is the last affine layer, whose worst corners the attack finds."""
    model, x = network("mlp"), inputs(40)
    y = model(x).argmax(1)
    taps = own_accuracy(model, TAPS(classifier_relus=0), x, y, eps=0.02).values("own accuracy")
    assert taps == own_accuracy(model, IBP(), x, y, eps=0.02).values("own accuracy")


def test_taps_shows_its_margins():
    model, x = network("cnn"), inputs()
    some, method = part(model, x, labels()), TAPS()
    batch = some.batch(some.net)
    margins = method.margins(some.net, batch)
    assert margins.shape == (6, 3)
    again = method(some.net, some.batch(some.net))
    assert torch.equal((margins > 0).all(1), again.correct)


def test_a_method_is_needed_and_the_seed_decides():
    model, x, y = network("cnn"), inputs(), labels()
    with pytest.raises(ValueError, match="method is None: give a training method"):
        OwnAccuracy()(model, x, y, eps=0.1)
    with pytest.raises(ValueError, match="method is 'ibp': give a training method"):
        own_accuracy(model, "ibp", x, y, eps=0.1)
    assert own_accuracy(model, SABR(), x, y, eps=0.1, seed=3) is not None
