"""The exact networks themselves: their values agree with plain fractions, and no point is below their least margin."""

from fractions import Fraction
from random import Random

import pytest
import torch
from tests.exact import BITS, ExactNetwork, Skip, ball, rationals
from torch import nn


def network(
    seed: int, inputs: int, *, leaky: bool = False, skip: bool = False, normalized: bool = False
) -> nn.Sequential:
    torch.manual_seed(seed)
    activation = nn.LeakyReLU(0.3) if leaky else nn.ReLU()
    middle = [Skip(nn.Linear(4, 4), activation, nn.Linear(4, 4))] if skip else [nn.Linear(4, 4)]
    norm = [nn.BatchNorm1d(4)] if normalized else []
    model = nn.Sequential(nn.Linear(inputs, 4), *norm, activation, *middle, nn.ReLU(), nn.Linear(4, 3)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    for layer in norm:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return model


def by_hand(model: nn.Sequential, point: list[Fraction]) -> list[Fraction]:
    """The outputs in plain fractions, neuron by neuron."""
    for layer in model:
        if isinstance(layer, nn.Linear):
            pairs = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            point = [sum(Fraction(w) * v for w, v in zip(row, point, strict=True)) + Fraction(b) for row, b in pairs]
        elif isinstance(layer, nn.LeakyReLU):
            point = [max(v, Fraction(layer.negative_slope) * v) for v in point]
        elif isinstance(layer, Skip):
            point = [a + b for a, b in zip(point, by_hand(layer.inner, point), strict=True)]
        else:
            point = [max(v, Fraction(0)) for v in point]
    return point


def between(draw: Random, lower: list[Fraction], upper: list[Fraction]) -> list[Fraction]:
    return [a + (b - a) * Fraction(draw.randint(0, 999), 999) for a, b in zip(lower, upper, strict=True)]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("leaky", [False, True])
def test_values_are_those_of_plain_fractions(leaky, skip):
    model, draw = network(3, 2, leaky=leaky, skip=skip), Random(0)
    exact = ExactNetwork.of(model, 2)
    for _ in range(10):
        point = [Fraction(draw.randint(0, 999), 999) for _ in range(2)]
        assert exact(point) == by_hand(model, point)
        outputs = exact(point)
        assert exact.margin(point, 1) == min(outputs[1] - outputs[0], outputs[1] - outputs[2])


@pytest.mark.parametrize("options", [{}, {"leaky": True}, {"skip": True}, {"normalized": True}], ids=str)
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_no_point_has_a_smaller_margin_and_one_has_this(inputs, options):
    draw = Random(inputs)
    for seed in range(4):
        exact = ExactNetwork.of(network(seed, inputs, **options), inputs)
        lower, upper = ball([Fraction(draw.randint(0, 99), 99) for _ in range(inputs)], 0.25)
        least = exact.least(lower, upper, seed % 3)
        assert all(a <= v <= b for a, v, b in zip(lower, least.point, upper, strict=True))
        assert exact.margin(least.point, seed % 3) == least.margin
        sampled = [between(draw, lower, upper) for _ in range(30)]
        # and near the minimiser, where a wrong cell would show
        sampled += [[m + (v - m) / 1000 for m, v in zip(least.point, point, strict=True)] for point in sampled]
        assert all(exact.margin(point, seed % 3) >= least.margin for point in sampled)


def test_the_least_margin_may_lie_inside():
    """|x - 1/3| - 1/8, with the kink at a number that is not a double."""
    first, last = nn.Linear(1, 2).double(), nn.Linear(2, 2).double()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0], [-3.0]]))
        first.bias.copy_(torch.tensor([-1.0, 1.0]))
        last.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        last.bias.copy_(torch.tensor([-0.125, 0.0]))
    exact = ExactNetwork.of(nn.Sequential(first, nn.ReLU(), last), 1)
    least = exact.least([Fraction(0)], [Fraction(1)], 0)
    assert (least.margin, least.point, least.doubt) == (Fraction(-1, 8), [Fraction(1, 3)], 0)


def test_an_affine_network_is_least_at_a_corner_however_many_inputs_it_has():
    layer = nn.Linear(30, 2).double()
    exact = ExactNetwork.of(nn.Sequential(layer), 30)
    lower, upper = ball([Fraction(1, 2)] * 30, 0.25)
    difference = [a - b for a, b in zip(*map(rationals, layer.weight), strict=True)]
    wanted = sum(min(d * a, d * b) for d, a, b in zip(difference, lower, upper, strict=True))
    biases = rationals(layer.bias)
    assert exact.least(lower, upper, 0).margin == wanted + biases[0] - biases[1]


def test_inputs_that_no_weight_reads_cost_nothing_and_too_many_others_are_refused():
    model = network(0, 21)
    corners = ball([Fraction(1, 2)] * 21, 0.25)
    with pytest.raises(ValueError, match="21 inputs vary"):
        ExactNetwork.of(model, 21).least(*corners, 0)
    with torch.no_grad():
        model[0].weight[:, 1:] = 0
    alone = network(0, 1)
    alone[0].weight.data.copy_(model[0].weight[:, :1])
    for mine, its in zip(list(alone.parameters())[1:], list(model.parameters())[1:], strict=True):
        mine.data.copy_(its)
    wanted = ExactNetwork.of(alone, 1).least([Fraction(1, 4)], [Fraction(3, 4)], 0)
    assert ExactNetwork.of(model, 21).least(*corners, 0).margin == wanted.margin


def test_the_factor_of_a_batch_norm_is_exact_where_it_is_rational_and_else_as_near_as_it_says():
    layer, last = nn.BatchNorm1d(1, eps=2.0**-16).double().eval(), nn.Linear(1, 2).double()
    with torch.no_grad():
        layer.running_mean.fill_(3.0)
        layer.weight.fill_(5.0)
        layer.bias.fill_(7.0)
        last.weight.copy_(torch.tensor([[1.0], [0.0]]))
        last.bias.zero_()
    model, point = nn.Sequential(layer, last), [Fraction(2)]
    layer.running_var.fill_(0.25 - 2.0**-16)
    exact = ExactNetwork.of(model, 1)
    assert (exact.margin(point, 0), exact.doubt(point)) == ((2 - 3) * 5 * 2 + 7, 0)
    layer.running_var.fill_(0.3)
    exact = ExactNetwork.of(model, 1)
    factor = (exact.margin(point, 0) - 7) / -5  # 1 / sqrt(var + eps)
    variance = Fraction(0.3) + Fraction(2.0**-16)
    doubt = exact.doubt(point)
    assert 0 < doubt < Fraction(1, 2 ** (BITS - 8))
    assert (factor - doubt) ** 2 * variance < 1 < (factor + doubt) ** 2 * variance


def test_another_layer_is_refused():
    with pytest.raises(TypeError, match="no exact Tanh"):
        ExactNetwork.of(nn.Sequential(nn.Tanh()), 1)
