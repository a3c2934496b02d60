"""Bounds of any torch module in one call."""

import math
from typing import Any

import pytest
import torch
from tests.kinds import ours
from torch import Tensor, nn

import ctbench
from ctbench import bounds, margin_bounds
from ctbench.domains import Zonotope, crown, domains
from ctbench.domains import domain as named
from ctbench.domains.bounds import _measured
from ctbench.domains.relaxations import parallel, zero
from ctbench.graph import freeze, trace
from ctbench.regions import L1, L2, Box, FirstCoordinate, L1Ball, Linf, Segments, linf_box
from ctbench.regions import threat as named_threat
from ctbench.specification import margin_rows

DOMAINS = sorted(ours(domains()))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).double()


def double() -> nn.Module:
    """x -> x."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    return model


X = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)).double()
Y = torch.tensor([0, 1, 2, 3, 1])


def same(found: Any, expected: Any) -> None:
    for some, other in zip(found, expected, strict=True):
        torch.testing.assert_close(some, other, rtol=1e-12, atol=1e-12)


# -------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("domain", DOMAINS)
def test_bounds_enclose_the_logits(domain):
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lower, upper = bounds(model, X, eps=0.1, domain=domain)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    points = (X + 0.1 * (2 * torch.rand(300, 5, 3).double() - 1)).clamp(0, 1)
    values = model.eval()(points.flatten(0, 1)).view(300, 5, 4)
    assert (lower <= values.amin(0)).all()
    assert (upper >= values.amax(0)).all()
    assert lower.shape == upper.shape == (5, 4)


@pytest.mark.parametrize("domain", DOMAINS)
def test_margin_bounds_at_radius_zero_are_margins(domain):
    logits = network().eval()(X)
    expected = logits.gather(1, Y[:, None]) - logits
    torch.testing.assert_close(margin_bounds(network(), X, Y, eps=0.0, domain=domain), expected)
    found = margin_bounds(network(), X, Y, eps=0.1, domain=domain)
    assert (found <= expected).all()
    assert not found.gather(1, Y[:, None]).any()


def test_margin_bounds_are_at_least_differences_of_bounds():
    lower, upper = bounds(network(), X, eps=0.1, domain="interval")
    separate = lower.gather(1, Y[:, None]) - upper
    separate.scatter_(1, Y[:, None], 0.0)
    assert (margin_bounds(network(), X, Y, eps=0.1, domain="interval") >= separate - 1e-12).all()


def test_bounds_are_those_of_the_domain():
    graph, region = freeze(trace(network(), (3,)), X)[0], Linf(eps=0.1).region(X)
    spec = margin_rows(Y, 4, dtype=X.dtype)
    found = margin_bounds(network(), X, Y, eps=0.1)
    kept = found[torch.arange(4) != Y[:, None]].view(5, 3)
    torch.testing.assert_close(kept, crown.lower_bounds(graph, region, spec), rtol=1e-12, atol=1e-12)
    unit = torch.eye(4).double().expand(5, -1, -1)
    expected = crown.lower_bounds(graph, region, unit), -crown.lower_bounds(graph, region, -unit)
    same(bounds(network(), X, eps=0.1), expected)


def test_integer_labels_of_any_type_are_taken():
    expected = margin_bounds(network(), X, Y, eps=0.1)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(margin_bounds(network(), X, Y.to(dtype), eps=0.1), expected)


# ------------------------------------------------------------------------------------------------------- regions


@pytest.mark.parametrize(
    ("norm", "threat"),
    [
        ("linf", Linf(eps=0.2)),
        (math.inf, Linf(eps=0.2)),
        ("l2", L2(eps=0.2)),
        (2, L2(eps=0.2)),
        ("l1", L1(eps=0.2)),
        (1, L1(eps=0.2)),
        ("first-coordinate", FirstCoordinate(eps=0.2)),
    ],
)
def test_norms_are_regions(norm, threat):
    assert named_threat(norm, 0.2) == threat
    same(bounds(network(), X, threat), bounds(network(), threat.region(X)))
    same([margin_bounds(network(), X, Y, threat)], [margin_bounds(network(), threat.region(X), Y)])


def test_the_range_of_the_data_is_kept_unless_it_is_open():
    x = torch.tensor([[0.95]]).double()
    for ball in (Linf, L2, L1):
        assert bounds(double(), x, ball(0.1)).upper.item() == pytest.approx(1.0)
        assert bounds(double(), x, ball(0.1, clip=None)).upper.item() == pytest.approx(1.05)
        assert bounds(double(), x, ball(0.1, clip=(0, 1.01))).upper.item() == pytest.approx(1.01)
    assert bounds(double(), x, FirstCoordinate(0.1)).upper.item() == pytest.approx(1.05)


def test_a_box_may_lie_in_any_range():
    low, high = X * 255 - 300, X * 255 - 290
    middle = (low + high) / 2
    same(bounds(network(), Box(low, high)), bounds(network(), middle, Linf(5.0, clip=None)))
    same([margin_bounds(network(), Box(X, X), Y)], [margin_bounds(network(), X, Y, eps=0.0)])


def test_each_feature_may_have_its_own_radius():
    eps = torch.tensor([0.1, 0.0, 0.4])
    same(bounds(network(), X, eps=eps), bounds(network(), linf_box(X, eps)))
    same(bounds(network(), X, Linf(eps, clip=None)), bounds(network(), Box(X - eps, X + eps)))
    same(bounds(network(), X, eps=torch.tensor(0.1, dtype=torch.float64)), bounds(network(), X, eps=0.1))
    assert (bounds(network(), X, eps=eps).lower > bounds(network(), X, eps=0.4).lower).all()


def test_a_region_of_segments():
    directions = torch.tensor([[1.0, 0, 0], [0.5, -1, 0]]).double()
    region = Segments(eps=0.3, directions=directions).region(X)
    lower, upper = bounds(network(), region)
    values = network().eval()(region.sample(200).flatten(0, 1)).view(200, 5, 4)
    assert (lower <= values.amin(0)).all()
    assert (upper >= values.amax(0)).all()


# ----------------------------------------------------------------------------------------------------- precision


def test_the_precision_is_that_of_the_network():
    # 0.5 - 0.1 is 0.40000001 in single precision: the region must be made in double
    lower, upper = bounds(double(), torch.full((1, 1), 0.5), eps=0.1)
    assert lower.dtype == torch.float64
    # rounded outward by some units in the last place
    assert 0.4 - 1e-14 < lower.item() <= 0.4
    assert 0.6 <= upper.item() < 0.6 + 1e-14
    assert bounds(double(), torch.ones(1, 1, dtype=torch.uint8), eps=0.1).lower.item() == pytest.approx(0.9, abs=1e-13)
    assert bounds(network().float(), X, eps=0.1).lower.dtype == torch.float32
    assert bounds(network().float(), Linf(eps=0.1).region(X)).lower.dtype == torch.float32
    same(bounds(nn.Sequential(nn.ReLU()), X, eps=0.1), ((X - 0.1).clamp(min=0), (X + 0.1).clamp(max=1)))


def test_gradients_reach_the_inputs_and_the_parameters():
    for domain in DOMAINS:
        model, x = network(), X.clone().requires_grad_()
        bounds(model, x, eps=0.05, domain=domain).lower.sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_single_inputs_and_none_at_all():
    assert bounds(network(), X[:1], eps=0.1).lower.shape == (1, 4)
    for domain in DOMAINS:
        assert bounds(network(), X[:0], eps=0.1, domain=domain).upper.shape == (0, 4)


# ------------------------------------------------------------------------------------------------ options, memory


def test_options_are_handed_to_the_domain():
    crowns = [bounds(network(), X, eps=0.2, slope=slope).lower for slope in (parallel, zero)]
    assert not torch.allclose(*crowns)
    few, many = (margin_bounds(network(), X, Y, eps=0.3, domain="alpha-crown", steps=n) for n in (0, 20))
    same([few], [margin_bounds(network(), X, Y, eps=0.3)])
    assert (many >= few).all()
    assert many.mean() > few.mean() + 1e-3
    folded = bounds(network(), X, eps=0.2, domain="zonotope", fold=1).lower
    assert torch.equal(folded, bounds(network(), X, eps=0.2, domain=Zonotope(fold=1)).lower)
    assert (folded <= bounds(network(), X, eps=0.2, domain="zonotope").lower + 1e-12).all()
    assert not torch.allclose(folded, bounds(network(), X, eps=0.2, domain="zonotope").lower)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_large_batches_are_cut_to_fit_the_memory(domain, norm, monkeypatch):
    parts: list[int] = []
    for kind in (Box, L1Ball):
        take = kind.take
        monkeypatch.setattr(
            kind, "take", lambda region, samples, take=take: parts.append(len(samples)) or take(region, samples)
        )
    model, one = network(), named(domain).footprint(freeze(trace(network(), (3,)), X)[0], 3) * 8

    @torch.no_grad()  # otherwise the memory that gradients keep also counts
    def found(memory: int) -> Tensor:
        return margin_bounds(model, X, Y, named_threat(norm, 0.2), domain=domain, memory=memory)

    whole = found(2**30)
    assert parts == []
    for memory, expected in ((1, [1] * 5), (2 * one, [2, 2, 1]), (5 * one - 1, [4, 1])):
        parts.clear()
        torch.testing.assert_close(found(memory), whole, rtol=1e-9, atol=1e-9)
        assert parts == expected


class Curve(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.head = function, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(x))


@pytest.mark.parametrize("domain", ["interval", "zonotope", "crown-ibp", "crown", "alpha-crown"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("function", [torch.exp, torch.square, torch.log, torch.sqrt, torch.reciprocal])
def test_where_nothing_is_known_bounds_are_infinite(function, dtype, domain):
    """Values overflow, or leave the numbers for which a function is defined; no bound is NaN, and none is wrong."""
    model = Curve(function).to(dtype)
    end = 1e200 if dtype == torch.float64 else 1e30
    lower, upper = torch.tensor([[-1.0, 0.0, -2.0]], dtype=dtype), torch.tensor([[end, 1.0, 800.0]], dtype=dtype)
    low, high = bounds(model, Box(lower, upper), domain=domain)
    margins = margin_bounds(model, Box(lower, upper), torch.tensor([1]), domain=domain)
    assert not (low.isnan() | high.isnan()).any()
    assert not margins.isnan().any()
    assert margins[0, 1] == 0
    assert (margins < torch.inf).all()
    points = lower + torch.rand(200, 3, dtype=dtype) * torch.tensor([5.0, 1.0, 5.0], dtype=dtype)
    values = model(points)
    known = values.isfinite().all(1)
    assert known.any()
    assert ((values >= low - 1e-3 * low.abs()) & (values <= high + 1e-3 * high.abs()))[known].all()


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "eps is -1"),
        ({"eps": 8}, "eps is 8, wider than the data range"),
        ({"x": X * float("nan"), "eps": 0.1}, "NaN"),
        ({"x": X.tolist(), "eps": 0.1}, "a list: give a torch tensor"),
        ({"x": X * 255, "eps": 0.1}, "data range"),
        ({"x": torch.rand(2, 4), "eps": 0.1}, "4"),
        ({"eps": 0.1, "domain": "zonotope3"}, "no domain is called 'zonotope3'"),
        ({}, r"neither a threat model nor eps: give a threat model, e.g. L2\(0.5\), or eps=0.1, which stands for Linf"),
        ({"eps": 0.1, "threat": L2(0.1)}, r"given is the threat model L2\(eps=0.1.* and eps 0.1"),
        ({"threat": "l2"}, "the threat model is 'l2': give one such as Linf"),
        ({"threat": Box(X, X)}, "the threat model is <.*Box.*>: give one such as Linf"),
        ({"x": None, "eps": 0.1}, "the inputs are a NoneType: give a torch tensor"),
        ({"x": Box(X, X), "eps": 0.1}, "x is a region, which needs no threat model and no eps: leave them out"),
        ({"x": Box(X, X), "threat": L2(0.1)}, "x is a region, which needs no threat model and no eps: leave them out"),
        ({"x": Box(X, X - 1)}, "lower is .* but upper is .* at"),
        ({"x": Box(X, X[:2])}, r"lower has the shape \[5, 3\] but upper \[2, 3\]"),
        ({"x": Box(X, X * math.nan)}, "upper holds NaN or infinite values"),
        ({"eps": torch.rand(2)}, r"eps has the shape \[2\] but one input has \[3\]"),
        ({"eps": 0.1, "memory": 0}, "memory is 0: give a number of bytes"),
        ({"eps": 0.1, "memory": 1e9}, r"memory is 1000000000.0: give a number of bytes"),
        ({"eps": 0.1, "slope": "parallel"}, "slope is 'parallel': give a rule"),
        ({"eps": 0.1, "domain": "alpha-crown", "steps": -1}, "steps=-1"),
        ({"x": X[0], "eps": 0.1}, r"the inputs have the shape \[3\]: give a batch"),
        ({"eps": 0.1, "clip": None}, r"clip belongs to the threat model: give e.g. Linf\(0.1, clip=None\)"),
        ({"eps": 0.1, "steps": 3}, "crown takes no steps; it takes slope"),
        ({"eps": 0.1, "domain": "interval", "slope": zero}, "interval takes no slope; it takes no options"),
        ({"eps": 0.1, "domain": "zonotope", "fold": 0}, "fold is 0"),
        ({"eps": 0.1, "domain": "zonotope", "folds": 1}, "zonotope takes no folds; it takes fold, pure"),
        ({"eps": 0.1, "domain": Zonotope(), "fold": 3}, r"Zonotope\(fold=None, pure=False\), given along with fold=3"),
        ({"eps": 0.1, "domain": Zonotope}, r"Zonotope'>: give a name, e.g. 'crown', or a Domain, e.g. Crown\(\)"),
        ({"eps": 0.1, "domain": crown}, "the domain is <module"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        bounds(network(), **{"x": X} | arguments)


def test_errors_of_labels():
    with pytest.raises(ValueError, match="label 4 of sample 2"):
        margin_bounds(network(), X, torch.tensor([0, 1, 4, 0, 0]), eps=0.1)
    with pytest.raises(ValueError, match="there are 2 labels for 5 inputs"):
        margin_bounds(network(), X, Y[:2], eps=0.1)
    with pytest.raises(ValueError, match="labels must be integers"):
        margin_bounds(network(), X, Y.float(), eps=0.1)


def test_what_is_no_network_of_known_layers_is_refused():
    with pytest.raises(ValueError, match="the model is a function: give a torch"):
        bounds(lambda x: x, X, eps=0.1)
    with pytest.raises(ctbench.UnsupportedLayerError, match="Hardshrink"):
        bounds(nn.Sequential(network(), nn.Hardshrink()), X, eps=0.1)


@pytest.mark.parametrize("domain", ["interval", "crown", "coap", "zonotope"])
def test_gradients_are_those_of_the_uncut_bounds(domain):
    """Parts that are computed again in the backward pass, and keep nothing before that."""
    torch.manual_seed(0)
    x, y = torch.rand(24, 3).double(), torch.arange(24) % 3
    found, kept = [], []
    for memory in (2**30, 2**12):
        model, inputs = network(), x.clone().requires_grad_()
        with _measured() as measure:
            rows = margin_bounds(model, inputs, y, eps=0.2, domain=domain, memory=memory)
        kept.append(measure())
        rows.square().sum().backward()
        found.append((rows.detach(), inputs.grad, *(parameter.grad for parameter in model.parameters())))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)
    assert kept[1] < kept[0]


def test_random_projections_are_drawn_again_alike():
    x, y, found = torch.rand(24, 3).double(), torch.arange(24) % 3, []
    for _ in range(2):
        model, generator = network(), torch.Generator().manual_seed(1)
        options = {"domain": "coap", "projections": 5, "generator": generator, "memory": 2**11}
        rows = margin_bounds(model, x, y, Linf(0.2, clip=None), **options)
        state = generator.get_state()
        rows.sum().backward()
        assert torch.equal(generator.get_state(), state)
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.equal(*found)
