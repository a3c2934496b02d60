"""TAPS: the place of the cut, the points in the latent box, the gradient connector and the product."""

import pytest
import torch
from tests.methods.residual import Block
from torch import Tensor, nn

from ctbench import attacks
from ctbench.domains import interval
from ctbench.graph import place_of_cut, split, trace
from ctbench.methods.connector import connect
from ctbench.methods.ibp import IBP
from ctbench.methods.taps import TAPS, gradient_scaled
from ctbench.regions import Box
from ctbench.specification import robust_cross_entropy

# ------------------------------------------------------------------------------------------------------------ the cut


@pytest.mark.parametrize(("relus", "name"), [(0, "4"), (1, "2"), (2, "input")])
def test_the_classifier_begins_behind_the_relu_before(relus, name):
    layers = [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
    graph = trace(nn.Sequential(*layers), (3,))
    at = place_of_cut(graph, relus)
    assert graph.nodes[at].name == ("input" if at == 0 else name)
    assert (at == 0) == (relus == 2)


def test_a_residual_network_is_cut_where_its_branches_meet():
    graph = trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Block(1), nn.Linear(3, 2)), (3,))
    kinds = [type(node.op).__name__ for node in graph.nodes]
    assert kinds == ["Input", "Linear", "ReLU", "Linear", "ReLU", "Linear", "Add", "ReLU", "Linear"]
    # one ReLU after the cut: the sum, because the shortcut leads past the ReLU of the block
    assert [place_of_cut(graph, relus) for relus in (0, 1, 2, 3)] == [7, 6, 2, 0]


def test_a_number_of_relus_with_a_branch_past_every_cut_is_refused():
    graph = trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Block(2), nn.Linear(3, 2)), (3,))
    with pytest.raises(ValueError, match="classifier_relus is 2: this network can be cut with 0, 1, 3, 4 activations"):
        place_of_cut(graph, 2)


def test_more_relus_than_there_are_are_refused(setting):
    with pytest.raises(ValueError, match="classifier_relus is 3: this network can be cut with 0, 1, 2 activations"):
        setting.run(TAPS(classifier_relus=3))


# ---------------------------------------------------------------------------------------------------------- connector


def connected(share: float, points: list[float]) -> tuple[list[float], list[float]]:
    """dp/dl and dp/du in the box [1, 3]."""
    lower, upper = (torch.full((1, 1), end, dtype=torch.float64, requires_grad=True) for end in (1.0, 3.0))
    seen = []
    for point in points:
        p = torch.full((1, 1, 1), point, dtype=torch.float64)
        result = connect(p, Box(lower, upper), share)
        assert torch.equal(result, p)
        seen.append(torch.autograd.grad(result.sum(), [lower, upper]))
    return [low.item() for low, _ in seen], [high.item() for _, high in seen]


POINTS = [1.0, 1.25, 1.5, 2.0, 2.5, 3.0]


@pytest.mark.parametrize(
    ("share", "lower"),
    [
        (0.0, [1, 0, 0, 0, 0, 0]),  # binary
        (0.25, [1, 0.5, 0, 0, 0, 0]),
        (0.5, [1, 0.75, 0.5, 0, 0, 0]),
        (1.0, [1, 0.875, 0.75, 0.5, 0.25, 0]),  # linear
    ],
)
def test_the_connector_is_that_of_figure_3(share, lower):
    with_lower, with_upper = connected(share, POINTS)
    assert with_lower == pytest.approx(lower)
    mirrored = connected(share, [4 - point for point in POINTS])
    assert mirrored[0] == pytest.approx(with_upper)
    assert mirrored[1] == pytest.approx(with_lower)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_where_the_bounds_agree_each_has_half(share):
    bounds = torch.tensor([[2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    lower, upper = bounds[:, :1], bounds[:, 1:]
    (gradient,) = torch.autograd.grad(connect(torch.full((1, 1, 1), 2.0), Box(lower, upper), share).sum(), bounds)
    assert gradient.tolist() == [[0.5, 0.5]]


def test_gradients_of_all_points_of_a_sample_add_up():
    lower, upper = (torch.full((2, 1), end, dtype=torch.float64, requires_grad=True) for end in (1.0, 3.0))
    points = torch.tensor([[[1.0], [1.5], [3.0]], [[3.0], [3.0], [2.75]]], dtype=torch.float64, requires_grad=True)
    connect(points, Box(lower, upper), 0.5).sum().backward()
    assert lower.grad.flatten().tolist() == [1.5, 0]
    assert upper.grad.flatten().tolist() == [1, 2.75]
    assert points.grad is None  # nothing flows into the search


# --------------------------------------------------------------------------------------------------------- estimators


def bounds(setting, **fields) -> Tensor:
    return setting.run(TAPS(product=False, **fields)).per_sample


@pytest.mark.parametrize("relus", [1, 2])
def test_bounds_lie_between_any_point_and_intervals(setting, relus):
    """With one hidden layer a long search is nearly exact: never above intervals, never below random points."""
    attack = attacks.PGD(steps=40, restarts=3)
    result = bounds(setting, classifier_relus=relus, attack=attack)
    assert (result <= setting.run(IBP()).per_sample + 1e-12).all()
    net, _ = setting.frozen()
    at = place_of_cut(net, relus)
    region = setting.batch(setting.x).region
    back, box = split(net, at)[1], interval.boxes(net, region)[at]
    logits = torch.stack([back(point) for point in box.sample(300, torch.Generator().manual_seed(0))])
    truth = logits.gather(2, setting.y.view(1, -1, 1).expand(300, -1, 1))
    wrong = torch.ones(5, 4, dtype=torch.bool).scatter(1, setting.y.unsqueeze(1), False)
    margins = (truth - logits).amin(0)[wrong].view(5, 3)
    assert (result >= robust_cross_entropy(margins)).all()


def test_a_point_for_each_class_is_worse_than_one_for_all(setting):
    attack = attacks.PGD(steps=20, restarts=3)
    multi, single = bounds(setting, attack=attack), bounds(setting, multi_estimator=False, attack=attack)
    assert (multi >= single - 1e-9).all()
    assert (multi > single + 1e-4).any()


def test_the_search_does_not_stop_where_the_loss_is_flat(setting):
    """With margins of 1000 the cross-entropy and its gradient are 0, so a search with it would not move."""
    with torch.no_grad():
        setting.model[-1].bias.zero_()
        setting.model[-1].weight *= 1e-3
        setting.model[-1].bias[0] = 1000.0
    setting.y.zero_()
    net, logits = setting.frozen()
    spec = torch.eye(4, dtype=torch.float64)[0] - torch.eye(4, dtype=torch.float64)[1:]
    batch = setting.batch(logits)
    margins = TAPS(classifier_relus=0).margins(net, batch)
    expected = interval.lower_bounds(net, batch.region, spec.expand(5, -1, -1))
    torch.testing.assert_close(margins, expected, rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------ product


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_the_product_has_the_papers_value_and_gradient(setting, scale):
    product, alone = TAPS(scale=scale), TAPS(product=False)
    taps, ibp = setting.run(alone).per_sample.mean(), setting.run(IBP()).per_sample.mean()
    torch.testing.assert_close(setting.run(product).per_sample.mean(), taps * ibp)
    expected = scale * ibp * setting.gradient(alone) + taps * setting.gradient(IBP())
    torch.testing.assert_close(setting.gradient(product), expected, rtol=1e-9, atol=1e-12)


def test_an_infinite_weight_of_taps_leaves_its_gradient_alone(setting):
    infinite, alone = TAPS(scale=2.0, ibp_gradient=False), TAPS(product=False)
    ibp = setting.run(IBP()).per_sample.mean()
    torch.testing.assert_close(setting.run(infinite).per_sample, setting.run(TAPS()).per_sample)
    torch.testing.assert_close(setting.gradient(infinite), 2 * ibp * setting.gradient(alone), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_paper_is_a_multiple_and_tends_to_that_of_infinite_weight(setting):
    def of_paper(weight: float) -> torch.Tensor:
        alpha = weight / (1 + weight)
        taps, ibp = setting.run(TAPS(product=False)).per_sample.mean(), setting.run(IBP()).per_sample.mean()
        of_taps, of_ibp = setting.gradient(TAPS(product=False)), setting.gradient(IBP())
        return 2 * alpha * ibp * of_taps + (2 - 2 * alpha) * taps * of_ibp

    for weight in (0.0, 1.0, 5.0):
        ours = setting.gradient(TAPS(scale=weight))
        torch.testing.assert_close(of_paper(weight), 2 / (1 + weight) * ours, rtol=1e-9, atol=1e-12)
    infinite = setting.gradient(TAPS(scale=2.0, ibp_gradient=False))
    torch.testing.assert_close(of_paper(1e12), infinite, rtol=1e-9, atol=1e-9)


def test_scaling_a_gradient_leaves_the_value():
    x = torch.tensor(3.0, requires_grad=True)
    value = gradient_scaled(x**2, 5.0)
    assert value.item() == 9
    value.backward()
    assert x.grad.item() == 30


def test_the_boxes_are_those_of_intervals(setting):
    taps, ibp = setting.run(TAPS()).boxes, setting.run(IBP()).boxes
    assert len(taps) == len(ibp)
    assert all(torch.equal(a.lower, b.lower) and torch.equal(a.upper, b.upper) for a, b in zip(taps, ibp, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"connector": 1.5}, "connector of taps is 1.5"),
        ({"classifier_relus": -1}, "classifier_relus is -1"),
        ({"scale": -1.0}, "scale of taps is -1"),
        ({"scale": float("nan")}, "scale of taps is nan"),
        ({"scale": float("inf")}, "scale of taps is inf"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        TAPS(**fields)


def test_a_tie_is_not_correct(setting):
    with torch.no_grad():
        setting.model[-1].weight.zero_()
        setting.model[-1].bias.zero_()
    assert not setting.run(TAPS()).correct.any()  # all margins are 0
    with torch.no_grad():
        setting.model[-1].bias[0] = 1e-9
    setting.y.zero_()
    assert setting.run(TAPS()).correct.all()
