"""One precision of a network, whoever asks: its parameters', else its buffers', else that of what it is given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ctbench import bounds, certify, margin_bounds, verify_property
from ctbench.attacks.evaluation import adversarial_accuracy
from ctbench.graph import Precisions, freeze, precision, trace
from ctbench.regions import Box, Linf
from ctbench.vnnlib import parse_vnnlib

TENTH = torch.tensor(0.1)
ROUNDED = float(TENTH)  # 0.1 in single precision is 1.5e-9 more


class Literal(nn.Module):
    """(0.1 x_0, x_1), with a literal in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([0.1 * x[:, :1], x[:, 1:]], dim=1)


class WithParameter(Literal):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(2))
        self.register_buffer("other", torch.ones(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.one


class WithBuffer(Literal):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("one", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.one


class WithAttribute(Literal):
    """A tensor that is neither, which .double() leaves as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = torch.eye(2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ self.unit


KINDS = {"parameter": WithParameter, "buffer": WithBuffer, "attribute": WithAttribute, "neither": Literal}
cases = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return KINDS[request.param]()


def expected(model: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """All tensors of these networks are in single precision."""
    return dtype if type(model) is Literal else torch.float32


def points(dtype: torch.dtype) -> Tensor:
    return torch.tensor([[1.0, 0.25]], dtype=dtype)


def test_inputs_in_half_precision_are_refused():
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match=r"too coarse for bounds: give x\.float"):
            bounds(nn.Flatten(), torch.rand(2, 4, dtype=dtype), eps=0.01)


@cases
def test_the_precision_of_a_network(model: nn.Module, dtype: torch.dtype):
    assert precision(model, points(dtype)).dtype == expected(model, dtype)
    double = WithParameter().double()
    assert precision(double, points(dtype)).dtype == torch.float64


def test_parameters_go_before_buffers():
    assert precision(WithParameter(), points(torch.float64)).dtype == torch.float32


@cases
def test_the_two_precisions_of_a_network(model: nn.Module, dtype: torch.dtype):
    found = Precisions.of(model, points(dtype))
    assert found.like.dtype == expected(model, dtype)
    assert found.search(points(dtype).to(found.like)).dtype == found.like.dtype
    exact = found.proof(points(torch.float64))
    assert exact.dtype == torch.float64
    assert exact.tolist() == [[0.1, 0.25]]  # the literal of the forward, not what single precision makes of it


@cases
def test_a_graph_that_is_traced_and_frozen(model: nn.Module, dtype: torch.dtype):
    x = points(expected(model, dtype))
    graph, logits = freeze(trace(model, (2,)), x)
    assert logits.dtype == x.dtype
    assert torch.equal(logits, model(x))
    floats = [value for node in graph.nodes for value in vars(node.op).values() if isinstance(value, Tensor)]
    assert all(value.dtype == x.dtype for value in floats if value.is_floating_point())


@cases
def test_bounds_are_in_the_precision_of_the_network(model: nn.Module, dtype: torch.dtype):
    x, kind = points(dtype), expected(model, dtype)
    value = 0.1 if kind == torch.float64 else ROUNDED
    for found in (
        bounds(model, x, Linf(0.0, clip=None)),
        bounds(model, Box(x, x)),
        bounds(model, Box(x, x), domain="interval"),
        bounds(model, Box(x, x), domain="zonotope"),
    ):
        assert found.lower.dtype == kind
        # in double precision bounds are rounded outward
        assert found.lower[0, 0].item() == pytest.approx(value, rel=1e-13 if kind == torch.float64 else 0, abs=0)
        assert found.upper[0, 0].item() == pytest.approx(value, rel=1e-13 if kind == torch.float64 else 0, abs=0)
    margins = margin_bounds(model, x, torch.tensor([1]), Linf(0.0, clip=None))
    assert margins.dtype == kind
    exact = torch.tensor(0.25, dtype=kind).sub(torch.tensor(value, dtype=kind)).item()
    assert margins[0, 0].item() == pytest.approx(exact, rel=1e-12 if kind == torch.float64 else 0, abs=0)


@cases
def test_certificates_and_attacks_tell_a_literal_from_its_rounding(model: nn.Module, dtype: torch.dtype):
    """The margin is 0.1 - x_1: below zero with 0.1, and positive with 0.1 in single precision."""
    near = torch.tensor([[1.0, 0.1 + 1e-9]], dtype=torch.float64)
    assert 0.1 < near[0, 1].item() < ROUNDED
    x, y = near.to(dtype), torch.tensor([0])
    (record,) = certify(model, x, y, Linf(0.0, clip=None), timeout=5.0).records
    assert record.verdict.value == "misclassified"
    assert record.prediction == 1
    assert adversarial_accuracy(model, x, y, Linf(0.0, clip=None), attacks=("pgd",)).predictions == (1,)


@cases
@pytest.mark.parametrize(("unsafe", "verdict"), [("(>= Y_0 5)", "holds"), ("(>= Y_0 0.05)", "violated")])
def test_properties(model: nn.Module, dtype: torch.dtype, unsafe: str, verdict: str):
    text = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    text += "".join(f"(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(2))
    found = verify_property(model, parse_vnnlib(f"{text}(assert {unsafe})"), timeout=5.0)
    assert (found.verdict, found.reason) == (verdict, "")


@pytest.mark.parametrize(
    "ask", [lambda m: bounds(m, Box(torch.zeros(1, 2), torch.ones(1, 2))), lambda m: precision(m, torch.zeros(1))]
)
def test_what_is_no_network_is_refused(ask: Callable[[object], object]):
    with pytest.raises(ValueError, match=r"the model is a str: give a torch\.nn\.Module"):
        ask("a path")


def test_a_buffer_of_half_precision_is_refused():
    with pytest.raises(ValueError, match=r"buffer 'one' is torch\.float16, too coarse"):
        trace(WithBuffer().half(), (2,))
