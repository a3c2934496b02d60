"""alpha-CROWN, besides what holds for every domain and the reference values."""

import pytest
import torch
from torch import nn

from ctbench import bounds
from ctbench.domains import AlphaCrown, alpha_crown, crown
from ctbench.graph import Twin, freeze, trace, walk_forward
from ctbench.regions import Box, Linf
from ctbench.specification import margin_rows


class Shared(nn.Module):
    """One activation that is used twice, on layers of two widths."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 20), nn.Linear(20, 10), nn.Linear(10, 3)
        self.activation = activation

    def forward(self, x):
        return self.third(self.activation(self.second(self.activation(self.first(x)))))


def problem(samples: int = 4):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)).double()
    x = torch.rand(samples, 6, dtype=torch.float64)
    graph, logits = freeze(trace(model, (6,)), x)
    y = logits.argmax(1)
    return graph.detach(), Linf(eps=0.15).region(x), margin_rows(y, 4, dtype=torch.float64)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
@pytest.mark.parametrize("intermediate", [False, True])
def test_an_activation_may_be_used_twice(activation, intermediate):
    torch.manual_seed(0)
    model, x = Shared(activation).double(), torch.rand(3, 5, dtype=torch.float64)
    lower, upper = bounds(model, x, eps=0.2, domain="alpha-crown", steps=5, intermediate=intermediate)
    plain = bounds(model, x, eps=0.2, domain="crown")
    assert (lower >= plain.lower - 1e-12).all()
    assert (upper <= plain.upper + 1e-12).all()
    values = model(Linf(eps=0.2).region(x).sample(500, torch.Generator().manual_seed(0)))
    assert (lower <= values.amin(0)).all()
    assert (upper >= values.amax(0)).all()


def test_no_steps_is_crown_and_more_steps_are_tighter():
    graph, region, spec = problem()
    plain = crown.lower_bounds(graph, region, spec)
    torch.testing.assert_close(AlphaCrown(steps=0).lower_bounds(graph, region, spec), plain, rtol=1e-12, atol=1e-12)
    few, many = (AlphaCrown(steps=steps).lower_bounds(graph, region, spec) for steps in (2, 40))
    joint = AlphaCrown(steps=40, intermediate=True).lower_bounds(graph, region, spec)
    assert plain.mean() < few.mean() < many.mean() < joint.mean()


def test_forms_above_the_stop_are_left_and_the_others_are_not():
    graph, region, spec = problem(samples=12)
    plain = crown.lower_bounds(graph, region, spec)
    full = alpha_crown.lower_bounds(graph, region, spec)
    stop = plain.amin(1).median().item()
    stopped = AlphaCrown(stop=stop).lower_bounds(graph, region, spec)
    done = (plain > stop).all(1)
    assert 0 < done.sum() < 12
    torch.testing.assert_close(stopped[done], plain[done], rtol=0, atol=1e-14)
    below = full <= stop
    assert below.any()
    torch.testing.assert_close(stopped[below], full[below], rtol=1e-9, atol=1e-9)
    assert (stopped[~done] >= plain[~done] - 1e-12).all()


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"lr": 0.0}, {"lr": float("nan")}, {"decay": 1.5}])
def test_settings_that_cannot_be(wrong):
    graph, region, spec = problem()
    with pytest.raises(ValueError, match="take steps >= 0, lr > 0 and decay"):
        AlphaCrown(**wrong).lower_bounds(graph, region, spec)


def twin(*forms: object) -> Twin[alpha_crown.Forms]:
    """The forms, for searches and for proofs."""
    return Twin(alpha_crown.Forms(*forms), alpha_crown.Forms(*forms))


def test_tightened_boxes_lie_in_those_that_were_given():
    """Where another domain knows more than any slopes could show, that is kept."""
    graph, region, spec = problem()
    points = region.sample(2000, torch.Generator().manual_seed(0))
    values = walk_forward(graph, lambda node, *inputs: node.op(*inputs), points.flatten(0, 1))
    reached = [value.unflatten(0, points.shape[:2]) for value in values]
    given = [Box(value.amin(0) - 1e-3, value.amax(0) + 1e-3) for value in reached]
    given[:2] = crown.boxes(graph, region)[:2]
    bound, found = alpha_crown.tightened(twin(graph, region, spec, given), steps=3)
    own = alpha_crown.tightened(twin(graph, region, spec, crown.boxes(graph, region)), steps=3)[1]
    assert (own[3].lower < given[3].lower - 1e-3).any()  # the slopes alone show less
    assert all((box.lower >= other.lower).all() for box, other in zip(found, given, strict=True))
    assert all((box.upper <= other.upper).all() for box, other in zip(found, given, strict=True))
    expected = crown.lower_bounds(graph, region, spec, inner=given)
    assert (bound >= expected - 1e-12).all()
