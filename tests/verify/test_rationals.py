"""Values in whole numbers against fractions, for samples of any shape; verdicts at the edge of the range of doubles."""

from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import nn

from ctbench import certify
from ctbench.graph import Graph, Node, freeze, trace
from ctbench.graph.ops import AlongAxis, Concat, Input, Max, Select
from ctbench.onnx.gemm import Gemm
from ctbench.regions import L2, Linf
from ctbench.results import Verdict
from ctbench.verify import ALPHA_CROWN, Bound, BranchAndBound, rationals

LOUD = pytest.mark.filterwarnings("ignore::ctbench.StageFailedWarning")  # NaN is told, and no verdict


def fractions(tensor: torch.Tensor) -> list[Fraction]:
    return [Fraction(value) for value in tensor.flatten().tolist()]


def exact(op, *inputs: torch.Tensor) -> list[Fraction]:
    found = rationals._evaluated(op, *(rationals.Exact.of(each) for each in inputs))
    return found.fractions()


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64) * 10.0 ** torch.randint(-6, 7, shape).double()


LAYERS = {
    "linear": (nn.Linear(3, 2), (3,)),
    "linear, rows": (nn.Linear(3, 2), (4, 3)),
    "linear, square": (nn.Linear(2, 2), (2, 2, 2)),
    "linear, images": (nn.Linear(2, 3), (3, 2, 2)),
    "convolution": (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 5, 4)),
    "dilated": (nn.Conv2d(2, 3, 2, dilation=2, bias=False), (2, 4, 5)),
    "relu": (nn.ReLU(), (2, 3)),
    "leaky": (nn.LeakyReLU(0.1), (2, 3)),
    "clamp": (nn.Hardtanh(-0.3, 0.7), (2, 3)),
    "half clamp": (nn.ReLU6(), (5,)),
    "pooling": (nn.MaxPool2d(2), (2, 4, 4)),
    "flatten": (nn.Flatten(), (2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_layer(name, seed):
    """The double precision value is that of exact numbers where these have so few digits that nothing is rounded."""
    torch.manual_seed(seed)
    layer, shape = LAYERS[name]
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randint(-64, 65, parameter.shape) / 16)
    x = torch.randint(-64, 65, (1, *shape)).double() / 16
    model = nn.Sequential(layer, nn.Flatten())
    graph = freeze(trace(model, shape), x)[0].detach()
    expected = model(x)[0]
    if name == "leaky":  # 0.1 has many digits
        expected, found = torch.relu(x).flatten(), torch.relu(-x).flatten()
        parts = zip(fractions(expected), fractions(found), strict=True)
        values = [above - Fraction(0.1) * below for above, below in parts]
    elif name == "clamp":
        values = [min(max(value, Fraction(-0.3)), Fraction(0.7)) for value in fractions(x)]
    else:
        values = fractions(expected)
    assert rationals.forms(graph, x[0], torch.eye(len(values), dtype=torch.float64)) == values


@pytest.mark.parametrize("seed", range(5))
def test_numbers_of_any_size(seed):
    """Sums of products whose exponents differ by far more than the digits of a double."""
    torch.manual_seed(seed)
    layer = nn.Linear(6, 3).double()
    with torch.no_grad():
        layer.weight.copy_(draw(3, 6) * 10.0 ** torch.randint(-150, 150, (3, 6)).double())
        layer.bias.copy_(draw(3))
    x = draw(6)
    x[0] = 0.0
    graph = freeze(trace(nn.Sequential(layer), (6,)), x.unsqueeze(0))[0].detach()
    expected = [
        sum((w * v for w, v in zip(fractions(row), fractions(x), strict=True)), Fraction(bias))
        for row, bias in zip(layer.weight, layer.bias.tolist(), strict=True)
    ]
    assert rationals.forms(graph, x, torch.eye(3, dtype=torch.float64)) == expected


def test_joins():
    a, b = draw(2, 3), draw(1, 3)
    assert exact(Concat(0, (2, 1)), a, b) == fractions(torch.cat([a, b]))
    assert exact(Max(), a) == fractions(a.amax(0))
    assert exact(Select(torch.tensor([[0, 6], [5, 5]]), (2, 3)), a) == fractions(
        torch.stack([a[0, 0], a.new_zeros(()), a[1, 2], a[1, 2]])
    )


@pytest.mark.parametrize(
    "layer", [nn.Sigmoid(), nn.AvgPool1d(3), nn.BatchNorm1d(3)], ids=lambda layer: type(layer).__name__
)
def test_what_has_no_exact_value_says_so(layer):
    shape = (2, 3) if isinstance(layer, nn.AvgPool1d) else (3,)
    if isinstance(layer, nn.AvgPool1d):
        layer = nn.Sequential(nn.Unflatten(1, (1, 2)), nn.AvgPool2d((1, 3)))
    x = torch.rand(1, *shape, dtype=torch.float64)
    graph = freeze(trace(nn.Sequential(layer, nn.Flatten()).double().eval(), shape), x)[0].detach()
    with pytest.raises(rationals.NoExactValueError):
        rationals.forms(graph, x[0], torch.eye(graph.classes, dtype=torch.float64))


def test_a_large_network_is_not_evaluated(monkeypatch):
    monkeypatch.setattr(rationals, "MOST_PRODUCTS", 10)
    x = torch.rand(1, 4, dtype=torch.float64)
    graph = freeze(trace(nn.Sequential(nn.Linear(4, 3)).double(), (4,)), x)[0].detach()
    with pytest.raises(rationals.NoExactValueError, match=r"takes \d+ products"):
        rationals.forms(graph, x[0], torch.eye(3, dtype=torch.float64))


def test_samples_of_several_dimensions_are_classified_exactly():
    """The second and third entry differ by the last digit: which one is greater decides whether 0 is right."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Flatten(), nn.Linear(8, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
        model[2].weight.zero_()
        model[2].weight[0, 1] = model[2].weight[1, 2] = 1.0
    x = torch.full((1, 2, 2, 2), 0.2, dtype=torch.float64)
    x[0, 0, 0, 1], x[0, 0, 1, 0] = 0.5 + 2.0**-53, 0.5
    found = certify(model, x, torch.tensor([0]), eps=0.0, stages=[Bound(domain="interval")])
    assert found[0].verdict is not Verdict.MISCLASSIFIED
    assert certify(model, x, torch.tensor([1]), eps=0.0, stages=[Bound(domain="interval")])[0].verdict is (
        Verdict.MISCLASSIFIED
    )


def test_weights_that_were_multiplied_in_double_precision_are_not_exact():
    """The margin 0.1 (0.3 + 1e-17) less what double precision makes of 0.03 is above 0, and by rounding below it."""
    gemm = Gemm(2, 2, alpha=0.1, beta=1.0).double()
    with torch.no_grad():
        gemm.weight.copy_(torch.tensor([[0.3, 0.0], [0.0, 1e-17]], dtype=torch.float64))
        gemm.bias.copy_(torch.tensor([0.0, 0.1 * 0.3], dtype=torch.float64))
    x = torch.ones(1, 2, dtype=torch.float64)
    graph = freeze(trace(nn.Sequential(gemm), (2,)), x)[0].detach()
    with pytest.raises(rationals.NoExactValueError):
        rationals.forms(graph, x[0], torch.eye(2, dtype=torch.float64))
    for y in (0, 1):
        found = certify(gemm, x, torch.tensor([y]), Linf(0.0, clip=None), stages=[Bound(domain="crown")])
        assert found[0].verdict is Verdict.UNKNOWN
    single = freeze(trace(nn.Sequential(Gemm(2, 2, alpha=0.5, beta=1.0)).double(), (2,)), x)[0].detach()
    assert len(rationals.forms(single, x[0], torch.eye(2, dtype=torch.float64))) == 2


def chain(*factors: float) -> nn.Sequential:
    """z = x times all factors, one after the other; logits (1/4, z)."""
    layers: list[nn.Module] = []
    for factor in factors:
        linear = nn.Linear(1, 1).double()
        nn.init.constant_(linear.weight, factor)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
    last = nn.Linear(1, 2).double()
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[0.0], [1.0]]))
        last.bias.copy_(torch.tensor([0.25, 0.0]))
    return nn.Sequential(*layers, nn.ReLU(), last)


EVERY = [
    *(Bound(domain=name) for name in ("interval", "crown-ibp", "crown", "zonotope", "coap")),
    ALPHA_CROWN,
    BranchAndBound(),
]


@LOUD
@pytest.mark.parametrize("stage", EVERY, ids=lambda stage: stage.title)
@pytest.mark.parametrize(
    "factors",
    [(1e-200, 1e-200, 1e200, 1e200), (2.0**-120,) * 10 + (2.0**120,) * 10, (1e200, 1e200, 1e-200, 1e-200)],
    ids=str,
)
def test_what_underflows_or_overflows_certifies_nothing(stage, factors):
    """The margin is 1/4 - x, and x = 1/2."""
    found = certify(
        chain(*factors), torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0]), eps=0.1, stages=[stage]
    )
    assert found[0].verdict is not Verdict.CERTIFIED


@pytest.mark.parametrize("stage", EVERY, ids=lambda stage: stage.title)
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_tiny_coefficients_have_a_norm_over_a_ball(stage, clip):
    """The margin 1e-170 (x_1 + x_2), less a bias within the data range, is below 0 somewhere in the ball."""
    model = nn.Sequential(nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1e-170, 1e-170], [0.0, 0.0]]))
        model[0].bias.copy_(torch.tensor([0.0 if clip is None else -1e-171, 0.0]))
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    found = certify(model, x, torch.tensor([0]), L2(0.9, clip=clip), stages=[stage])
    assert found[0].verdict is not Verdict.CERTIFIED


def test_an_ellipsoid_of_vanishing_scales():
    """x scaled by 1e-170, 1e150 and 1e20 is x again; the margin of (x_1 + 0.3) - x_2 turns within the ball."""
    scales = [nn.Linear(2, 2, bias=False).double() for _ in range(3)]
    for layer, factor in zip(scales, (1e-170, 1e150, 1e20), strict=True):
        layer.weight.data.copy_(factor * torch.eye(2))

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
            for layer in (self.first, self.last):
                layer.weight.data.copy_(torch.eye(2))
                layer.bias.data.zero_()
            self.first.bias.data[0] = 0.3

        def forward(self, x):
            return self.last(torch.relu(self.first(x * 1e-170 * 1e150 * 1e20)))

    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    for stage in EVERY:
        found = certify(Scaled(), x, torch.tensor([0]), L2(0.5, clip=None), stages=[stage])
        assert found[0].verdict is not Verdict.CERTIFIED, stage


@LOUD
def test_a_sum_that_overflows_certifies_nothing():
    """One margin overflows to infinity, and another one is positive; which the numbers are depends on their order."""
    x = torch.ones(1, 5, dtype=torch.float64)
    for order in sorted(set(product((0.604e308, -0.85e308), repeat=5))):
        if sum(value > 0 for value in order) != 3:
            continue
        model = nn.Sequential(nn.Linear(5, 3)).double()
        half = torch.tensor(order, dtype=torch.float64) / 2
        with torch.no_grad():
            model[0].weight.copy_(torch.stack([half, -half, torch.zeros(5, dtype=torch.float64)]))
            model[0].bias.copy_(torch.tensor([-0.0555e308, 0.0555e308, -0.1e308], dtype=torch.float64))
        for stage in (Bound(domain="interval"), Bound(domain="crown")):
            found = certify(model, x, torch.tensor([0]), eps=1e-3, stages=[stage])
            assert found[0].verdict is not Verdict.CERTIFIED


def test_fractions_are_cut_off_toward_zero():
    class Cut(nn.Module):
        def forward(self, x):
            return torch.trunc(x)

    x = torch.tensor([[-2.5, 2.5, -0.75]], dtype=torch.float64)
    graph = freeze(trace(Cut(), (3,)), x)[0]
    assert rationals.forms(graph, x[0], torch.eye(3, dtype=torch.float64)) == [-2, 2, 0]


def test_thirds_have_no_exact_value():
    weight = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    graph = Graph((Node("input", Input(), (), (3,)), Node("mean", AlongAxis(weight, 0), (0,), (1,))))
    with pytest.raises(rationals.NoExactValueError, match="rounded"):
        rationals.forms(graph, torch.ones(3, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
