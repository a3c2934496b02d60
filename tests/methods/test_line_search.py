"""Adversarial training on segments: the loss at the exact worst point, or at that of a grid, and its gradient."""

import pytest
import torch
import torch.nn.functional as F

from ctbench import attacks
from ctbench.attacks.exact_line_search import worst_on_segments
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.pgd import PGD
from ctbench.regions import FirstCoordinate, Linf, RandomSegments
from ctbench.training import codec


def test_the_loss_at_the_worst_point(setting):
    net, logits = setting.frozen()
    batch = setting.batch(logits, region=RandomSegments(eps=3.0, count=4).region(setting.x))
    loss = LineSearchTraining()(net, batch)
    answers = net(worst_on_segments(net, batch.region, batch.y))
    assert torch.equal(loss.per_sample, F.cross_entropy(answers, batch.y, reduction="none"))
    assert torch.equal(loss.correct, answers.argmax(1) == batch.y)
    assert loss.boxes is None


def test_it_is_not_below_other_searches(setting):
    region = RandomSegments(eps=3.0, count=4).region(setting.x)
    exact = setting.run(LineSearchTraining(), region=region).per_sample
    for other in (LineSearchTraining(attack=attacks.LineSearch()), PGD(attack=attacks.PGD(steps=20, restarts=5))):
        assert (setting.run(other, region=region).per_sample <= exact + 1e-12).all()


def test_a_grid_is_that_of_the_attack(setting, same_method):
    grid = attacks.LineSearch(points=7, refinements=1)
    x = setting.x
    for region in (FirstCoordinate(eps=2.0).region(x), RandomSegments(eps=3.0, count=4).region(x)):
        one, other = LineSearchTraining(attack=grid), PGD(attack=grid)
        assert torch.equal(setting.run(one, region=region).per_sample, setting.run(other, region=region).per_sample)
        assert torch.equal(setting.gradient(one, region=region), setting.gradient(other, region=region))


def test_the_gradient_is_that_at_a_fixed_point(setting):
    """The worst point also depends on the weights, but no gradient takes this path."""
    region = RandomSegments(eps=3.0, count=4).region(setting.x)
    net, _ = setting.frozen()
    point = worst_on_segments(net, region, setting.y)
    loss = F.cross_entropy(net(point), setting.y)
    expected = torch.autograd.grad(loss, list(setting.model.parameters()), materialize_grads=True)
    actual = setting.gradient(LineSearchTraining(), region=region)
    torch.testing.assert_close(actual, torch.cat([gradient.flatten() for gradient in expected]), rtol=0, atol=1e-12)


def test_it_stands_in_a_recipe():
    for method in (LineSearchTraining(), LineSearchTraining(attack=attacks.LineSearch(points=11))):
        assert codec.decode(LineSearchTraining, codec.encode(method)) == method


@pytest.mark.parametrize("attack", [None, attacks.LineSearch()])
def test_regions_without_segments_are_refused(setting, attack):
    with pytest.raises(ValueError, match="a line search needs segments"):
        setting.run(LineSearchTraining(attack=attack), region=Linf(eps=0.1).region(setting.x))
