"""Networks by hand whose margins rounding turns: no stage and no cascade is deceived by them.

What they have in common is that errors of single operations add up, and do not cancel. Each least margin is exact.
"""

from fractions import Fraction
from functools import lru_cache

import pytest
import torch
from tests.exact import ExactNetwork
from tests.instances import STAGES, Instances
from torch import Tensor, nn

from ctbench.domains import alpha_crown, crown, interval
from ctbench.graph import Precisions
from ctbench.regions import L1, L2, Linf
from ctbench.results import Verdict
from ctbench.verify import Problem

PROVING = sorted(STAGES.keys() - {"falsify"})
LABEL = torch.tensor([0])


def sample(model: nn.Module, x: Tensor, eps: float) -> Instances:
    return Instances(model, x, LABEL, eps, ExactNetwork.of(model, x.shape[1]))


def verdict(cases: Instances, stage: str) -> Verdict:
    """The verdict about the only sample, which must not be wrong."""
    ((record, fault),) = cases.certified(STAGES[stage])
    assert not fault
    return record.verdict


@torch.no_grad()
def filled(layers: list[tuple[Tensor, Tensor]]) -> nn.Sequential:
    """Linear layers of these weights and biases, in double precision, with ReLUs between them."""
    made: list[nn.Module] = []
    for weight, bias in layers:
        layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        made += [layer, nn.ReLU()]
    return nn.Sequential(*made[:-1])


@torch.no_grad()
def placed(model: nn.Sequential, x: Tensor, eps: float, margin: float) -> Instances:
    """The same network with a last bias that gives the sample about this least margin."""
    least = sample(model, x, eps).least[0].margin
    model[-1].bias[0] = float(Fraction(model[-1].bias[0].item()) - least + Fraction(margin))
    return sample(model, x, eps)


# -------------------------------------------------------------------------------- equal neurons, whose errors are equal


def tower(width: int, depth: int, weight: float, bias: float) -> nn.Sequential:
    """width^depth (weight x + bias), where that is positive, by layers of equal neurons."""
    ones = torch.ones(width, width, dtype=torch.float64)
    first = torch.full((width, 1), weight), torch.full((width,), bias, dtype=torch.float64)
    middle = [(ones, torch.zeros(width))] * (depth - 1)
    return filled([first, *middle, (torch.stack([ones[0], 0 * ones[0]]), torch.zeros(2))])


@lru_cache
def raised(depth: int, seed: int, below: float) -> Instances:
    """A tower of 100 neurons a layer that is positive everywhere, with a least margin of about -below."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 + torch.rand(1, 1, generator=generator, dtype=torch.float64) / 3
    return placed(tower(100, depth, 1.0, -((x - 1e-6).item() - 1e-7)), x, 1e-6, -below)


@pytest.mark.parametrize("stage", PROVING)
def test_errors_of_equal_neurons_add_up_in_eight_layers(stage):
    cases = raised(8, 0, 0.2)
    assert cases.least[0].margin < Fraction(-1, 10)
    assert verdict(cases, stage) is not Verdict.CERTIFIED


@pytest.mark.parametrize("stage", PROVING)
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_errors_of_equal_neurons_add_up_in_four_layers(share, stage):
    cases = raised(4, 0, share * 100**4 * 1.1e-16)
    assert cases.least[0].margin < 0
    assert verdict(cases, stage) is not Verdict.CERTIFIED


@lru_cache
def lowered(seed: int) -> Instances:
    """A tower at a point, whose margin is about 0.2, where double precision has one below -0.1."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        weight, place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        weight, x = 1 + weight, torch.tensor([[0.3 + place / 3]], dtype=torch.float64)
        cases = placed(tower(100, 8, weight, -weight * x.item() * (1 - 1e-7)), x, 0.0, 0.2)
        with torch.no_grad():
            outputs = cases.model(x)[0]
        if outputs[0] - outputs[1] < -0.1:
            return cases


def test_a_sample_that_is_right_is_not_misclassified_by_rounding():
    cases = lowered(0)
    assert cases.least[0].margin > Fraction(1, 10)
    for stage in ("crown", "falsify", "input-split", "branch-and-bound", "fast", "default"):
        assert verdict(cases, stage) in (Verdict.UNKNOWN, Verdict.CERTIFIED)


def test_a_region_that_is_right_is_not_falsified_by_rounding():
    """Double precision is right at the clean input, and wrong at the lower end."""
    point, eps = lowered(0), 2.0**-30
    cases = sample(point.model, point.x + eps, eps)
    assert cases.least[0].margin > Fraction(1, 10)
    for stage in ("falsify", "input-split", "branch-and-bound", "milp", "fast", "default"):
        assert verdict(cases, stage) in (Verdict.UNKNOWN, Verdict.CERTIFIED)


# ----------------------------------------------------------------------- positive weights, whose products do not cancel


@lru_cache
@torch.no_grad()
def centered(width: int, depth: int, seed: int) -> Instances:
    """Random positive weights; every hidden value is 1e-6 at the lower end of the region, in double precision. The
    least margin is below 0 by a part of the error of double precision there."""
    generator, eps = torch.Generator().manual_seed(seed), 2.0**-40
    x = 0.3 + 0.4 * torch.rand(1, 1, generator=generator, dtype=torch.float64)
    values, layers, before = x - eps, [], 1
    for _ in range(depth):
        weight = torch.randn(width, before, generator=generator, dtype=torch.float64).abs()
        layers.append((weight, 1e-6 - (values @ weight.T)[0]))
        values, before = torch.relu(values @ weight.T + layers[-1][1]), width
    weight = torch.randn(1, width, generator=generator, dtype=torch.float64).abs()
    model = filled([*layers, (torch.cat([weight, 0 * weight]), torch.zeros(2))])
    outputs = model(x - eps)[0]
    error = Fraction((outputs[0] - outputs[1]).item()) - sample(model, x, eps).least[0].margin
    return placed(model, x, eps, -abs(float(error)) / 20)


@pytest.mark.parametrize("stage", ["interval", "crown", "zonotope", "default"])
@pytest.mark.parametrize(("width", "depth"), [(64, 8), (64, 6)])
def test_errors_of_positive_sums_add_up(width, depth, stage):
    cases = centered(width, depth, 0)
    assert cases.least[0].margin < 0
    assert verdict(cases, stage) is not Verdict.CERTIFIED


# --------------------------------------------------------------- long sums, of which every term is rounded the same way


def test_terms_that_a_long_sum_absorbs_count():
    """The first product is 1/2, all others a little more than half a unit in the last place of a partial sum."""
    count, tiny = 150_528, 2.0**-55 * (1 - 2.0**-20)
    row = torch.full((1, count), -2 * tiny, dtype=torch.float64)
    row[:, 0] = 1.0
    x = torch.full((1, count), 0.5, dtype=torch.float64)
    true = Fraction(1, 2) - (count - 1) * Fraction(tiny)
    model = filled([(torch.cat([row, 0 * row]), torch.zeros(2))])
    with torch.no_grad():
        error = abs(Fraction(model(x)[0, 0].item()) - true)
        model[0].bias[0] = -float(true) - float(error) / 10
    cases = sample(model, x, 0.0)
    assert cases.least[0].margin == true + Fraction(model[0].bias[0].item()) < 0
    for stage in ("interval", "crown"):
        assert verdict(cases, stage) is not Verdict.CERTIFIED


# ---------------------------------------------------------------------------------- batch norms of a large running mean


@lru_cache
@torch.no_grad()
def shifted(seed: int) -> Instances:
    """(x - mean) factor + bias, where the bias is mean factor rounded; the margin is minus half of that rounding."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        mean, factor, place = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        mean, factor = 1e6 * (1 + mean), 1 + factor
        bias = float(Fraction(mean) * Fraction(factor))
        lost = Fraction(mean) * Fraction(factor) - Fraction(bias)
        if lost > 0:
            break
    layer, last = nn.BatchNorm1d(1, eps=2.0**-16).double(), nn.Linear(1, 2).double()
    for tensor, value in (
        (layer.running_mean, mean), (layer.running_var, 1 - 2.0**-16), (layer.weight, factor), (layer.bias, bias)
    ):  # fmt: skip
        tensor.fill_(value)
    last.weight.copy_(torch.tensor([[1.0], [0.0]]))
    last.bias.zero_()
    x = torch.tensor([[0.3 + 0.4 * place]], dtype=torch.float64)
    return placed(nn.Sequential(layer, last).eval(), x, 1e-3, -float(lost) / 2)


@pytest.mark.parametrize("stage", ["interval", "crown", "zonotope", "milp", "default"])
def test_the_rounding_of_a_folded_shift_counts(stage):
    for seed in range(4):
        cases = shifted(seed)
        assert cases.least[0].margin < 0 == cases.least[0].doubt
        assert verdict(cases, stage) is not Verdict.CERTIFIED


# ---------------------------------------------------------------------------- integer programs whose columns are narrow


@lru_cache
@torch.no_grad()
def narrow(sizes: tuple[float, ...], width: int, seed: int, eps: float) -> Instances:
    """A network of 21 inputs, one of which it reads; kinks lie in the region, and the least margin is just below 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((1, 21), 0.5, dtype=torch.float64)
    values, reach, layers = x, torch.full_like(x, eps), []
    for place, size in enumerate(sizes):
        rows = 2 if place == len(sizes) - 1 else width
        weight = size * torch.randn(rows, values.shape[1], generator=generator, dtype=torch.float64)
        if place:
            weight /= values.shape[1] ** 0.5
        else:
            weight[:, 1:] = 0
        products, reach = values @ weight.T, reach @ weight.T.abs()
        shares = torch.rand(rows, generator=generator, dtype=torch.float64)
        layers.append((weight, ((2 * shares - 1) * reach / 2 - products)[0]))
        values = torch.relu(products + layers[-1][1])
    return placed(filled(layers), x, eps, -1e-8 * float(reach.max()))


@pytest.mark.parametrize("stage", ["milp", "default"])
@pytest.mark.parametrize("seed", [2, 23])
def test_no_program_of_narrow_columns_certifies_a_negative_margin(seed, stage):
    cases = narrow((1e-6, 1e7, 1.0), 5, seed, 1e-3)
    assert cases.least[0].margin < 0
    assert verdict(cases, stage) is not Verdict.CERTIFIED


@pytest.mark.parametrize("stage", ["milp", "default"])
def test_no_program_of_a_small_region_certifies_a_negative_margin(stage):
    cases = narrow((1.0,) * 4, 4, 18, 1e-4)
    assert cases.least[0].margin < 0
    assert verdict(cases, stage) is not Verdict.CERTIFIED


# ------------------------------------------------------------------------------- radii below the distance of numbers


class Steps(nn.Module):
    """The margin floor(x_1) - 1/2: positive at 1, and negative just below it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x) * torch.tensor([1.0, 0.0]).to(x) + torch.tensor([0.0, 0.5]).to(x)


@pytest.mark.parametrize("threat", [Linf(1e-20, clip=None), Linf((1e-20, 0.1), clip=(0, 2)), L2(1e-20), L1(1e-20)])
def test_a_radius_that_double_precision_does_not_see_proves_nothing(threat):
    x = torch.ones(1, 2, dtype=torch.float64)
    net = Precisions.of(Steps().double(), x).proof
    if isinstance(threat, Linf):
        with pytest.raises(ValueError, match="eps is 1e-20 where x is 1: double precision has no other number"):
            Problem.of_labels(net, x, LABEL, threat)
        return
    problem = Problem.of_labels(net, x, LABEL, threat)
    for domain in (interval, crown, alpha_crown):
        assert not bool((domain.lower_bounds(problem.net, problem.region, problem.spec) > 0).any())


def test_a_fixed_number_is_that_number():
    x = torch.ones(1, 2, dtype=torch.float64)
    net = Precisions.of(Steps().double(), x).proof
    problem = Problem.of_labels(net, x, LABEL, Linf((0.0, 0.1)))
    assert crown.lower_bounds(problem.net, problem.region, problem.spec).item() == pytest.approx(0.5)
