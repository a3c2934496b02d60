"""What every op must satisfy: a new op needs an example here."""

import math
from itertools import product

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from ctbench.graph import Affine, Elementwise, Op, lower
from ctbench.graph.ops import Add, BatchNorm, Input, ReLU, Reshape
from ctbench.networks import Normalize


def batch_norm(channels: int) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(channels)
    module.running_mean.copy_(torch.linspace(-1, 1, channels))
    module.running_var.copy_(torch.linspace(0.5, 2, channels))
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-2, 1, channels))  # negative factors turn intervals around
        module.bias.copy_(torch.linspace(1, -1, channels))
    return module


# name: a layer and the shape of its input
LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear on rows": (lambda: nn.Linear(5, 3), (2, 5)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 4, 5)),
    "conv without bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 4, 5)),
    "conv with rows left over": (lambda: nn.Conv2d(2, 3, 2, stride=3), (2, 7, 10)),
    "conv with padding left over": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 7)),
    "conv as a shortcut": (lambda: nn.Conv2d(2, 3, 1, stride=2), (2, 4, 5)),
    "conv with dilation": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=2, dilation=2), (2, 6, 7)),
    "conv with groups": (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 6, 5)),
    "conv by channel": (lambda: nn.Conv2d(3, 3, 2, dilation=3, stride=4, groups=3), (3, 7, 10)),
    "conv of unequal sides": (lambda: nn.Conv2d(2, 3, (1, 4), (3, 2), (0, 2), (1, 1)), (2, 5, 5)),
    "conv with valid padding": (lambda: nn.Conv2d(2, 3, 3, padding="valid"), (2, 4, 5)),
    "average pooling": (lambda: nn.AvgPool2d(2), (2, 5, 4)),
    "average pooling that overlaps": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (2, 6, 7)),
    "average pooling with gaps": (lambda: nn.AvgPool2d((1, 2), stride=3), (2, 6, 7)),
    "normalise": (lambda: Normalize([0.1, 0.7], [0.5, 0.2]), (2, 3, 2)),
    "normalise vectors": (lambda: Normalize([0.1, 0.7], [0.5, 0.2], spatial=0), (2,)),
    "batch norm": (lambda: batch_norm(3), (3, 2, 2)),
    "flatten": (lambda: nn.Flatten(), (2, 3, 2)),
    "flatten the end": (lambda: nn.Flatten(2), (2, 3, 2)),
    "flatten the middle": (lambda: nn.Flatten(1, 2), (2, 3, 2)),
    "identity": (lambda: nn.Identity(), (2, 3)),
}
ELEMENTWISE = {"relu": (ReLU(), nn.ReLU())}
BY_THEMSELVES = {Input, Add, BatchNorm}  # neither affine nor elementwise: tested in tests/graph


def build(name: str) -> tuple[nn.Module, Affine, tuple[int, ...]]:
    torch.manual_seed(3)
    make, shape = LAYERS[name]
    layer = make().double().eval()
    op = lower(layer, shape).freeze(torch.zeros(1, *shape, dtype=torch.float64), training=False)
    assert isinstance(op, Affine)
    return layer, op, shape


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def subclasses(kind: type) -> set[type]:
    found = set(kind.__subclasses__())
    found |= {sub for child in found for sub in subclasses(child)}
    return {c for c in found if c.__module__.startswith("ctbench.") and not c.__abstractmethods__}


def test_every_op_has_an_example():
    shown = {type(build(name)[1]) for name in LAYERS} | {type(op) for op, _ in ELEMENTWISE.values()}
    assert subclasses(Op) == shown | BY_THEMSELVES
    assert subclasses(Affine) | subclasses(Elementwise) == shown


@pytest.mark.parametrize("name", LAYERS)
def test_affine_ops_equal_their_layers(name):
    layer, op, shape = build(name)
    x = rand(3, *shape)
    torch.testing.assert_close(op(x), layer(x), rtol=1e-12, atol=1e-12)
    assert op.shape(shape) == tuple(layer(x).shape[1:])


@pytest.mark.parametrize("name", LAYERS)
def test_the_adjoint_carries_a_form_to_the_input(name):
    _, op, shape = build(name)
    zero, x = rand(1, *shape) * 0, rand(2, *shape)
    a = rand(2, 4, *op.shape(shape))
    carried = op.adjoint(a)
    assert carried.shape == (2, 4, *shape)
    value = (a * (op(x) - op(zero)).unsqueeze(1)).flatten(2).sum(2)
    torch.testing.assert_close((carried * x.unsqueeze(1)).flatten(2).sum(2), value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_the_offset_is_the_value_of_a_form_at_zero(name):
    _, op, shape = build(name)
    at_zero = op(rand(2, *shape) * 0)
    a = rand(2, 4, *op.shape(shape))
    expected = (a * at_zero.unsqueeze(1)).flatten(2).sum(2)
    torch.testing.assert_close(op.offset(a) + torch.zeros_like(expected), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_the_magnitude_is_the_absolute_matrix(name):
    _, op, shape = build(name)
    size = math.prod(shape)
    columns = op(torch.eye(size, dtype=torch.float64).view(size, *shape)) - op(rand(1, *shape) * 0)
    r = rand(2, *shape).abs()
    expected = (r.flatten(1) @ columns.abs().flatten(1)).view(2, *op.shape(shape))
    torch.testing.assert_close(op.magnitude(r), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_map_reaches_every_tensor(name):
    _, op, shape = build(name)
    single = op.map(lambda tensor: tensor.float())
    assert single(rand(2, *shape).float()).dtype == torch.float32
    assert op(rand(2, *shape)).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("linear", (4,), r"takes 5 features, its input has shape \(4,\)"),
        ("conv", (3, 4, 4), r"takes \(2, height, width\), its input has shape \(3, 4, 4\)"),
        ("conv", (8,), r"takes \(2, height, width\), its input has shape \(8,\)"),
        ("conv without bias", (2, 2, 5), r"a window of \(3, 3\) does not fit into \(2, 5\)"),
        ("average pooling", (8,), r"takes \(channels, height, width\), its input has shape \(8,\)"),
        ("average pooling", (2, 1, 4), "does not fit"),
        ("normalise", (3, 2, 2), "factors of shape"),
        ("normalise", (1, 2, 2), "factors of shape"),
        ("flatten", (5,), r"\(5,\) cannot be reshaped to \(12,\)"),
    ],
)
def test_affine_ops_refuse_other_shapes(name, shape, message):
    _, op, _ = build(name)
    with pytest.raises(ValueError, match=message):
        op.shape(shape)


def test_reshape_to_two_dimensions():
    op = Reshape((12,), (3, 4))
    a = rand(2, 5, 3, 4)
    assert op.shape((12,)) == (3, 4)
    torch.testing.assert_close(op.adjoint(a), a.flatten(2), rtol=0, atol=0)


def intervals() -> tuple[torch.Tensor, torch.Tensor]:
    ends = [-3.0, -1.0, -1e-6, -1e-300, 0.0, 1e-300, 1e-6, 0.5, 1.0, 3.0]
    pairs = [(low, up) for low, up in product(ends, ends) if low <= up]
    lower, upper = torch.tensor(pairs, dtype=torch.float64).T
    return lower, upper


def grid(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Points of each interval, with both ends and, where it is inside, 0."""
    share = torch.linspace(0, 1, 41, dtype=torch.float64).unsqueeze(1)
    points = torch.cat([lower + share * (upper - lower), lower[None], upper[None], torch.zeros_like(lower[None])])
    return points.clamp(lower, upper)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_ops_equal_their_layers(name):
    op, layer = ELEMENTWISE[name]
    x = rand(2, 3, 4)
    torch.testing.assert_close(op(x), layer(x), rtol=0, atol=0)
    assert op.shape((3, 4)) == (3, 4)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_image_is_the_range_of_values(name):
    op, _ = ELEMENTWISE[name]
    lower, upper = intervals()
    values = op(grid(lower, upper))
    least, greatest = op.image(lower, upper)
    torch.testing.assert_close(least, values.amin(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(greatest, values.amax(0), rtol=1e-12, atol=0)


def check_lines(op: Elementwise, lower: torch.Tensor, upper: torch.Tensor, slope: float) -> None:
    lines = op.lines(lower, upper, torch.full_like(lower, slope))
    points = grid(lower, upper)
    values, slack = op(points), 1e-14 * (1 + lower.abs() + upper.abs())
    below = lines.lower_slope * points + (0 if lines.lower_offset is None else lines.lower_offset)
    above = lines.upper_slope * points + lines.upper_offset
    assert (below <= values + slack).all()
    assert (above >= values - slack).all()
    exact = op.exact(lower, upper)
    torch.testing.assert_close(below[:, exact], values[:, exact], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(above[:, exact], values[:, exact], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_lines_enclose_the_function_at_special_intervals(name, slope):
    check_lines(ELEMENTWISE[name][0], *intervals(), slope)


@pytest.mark.parametrize("name", ELEMENTWISE)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(ends=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), slope=st.floats(0, 1))
@example(ends=(-1.0, 1.0), slope=0.5)
@example(ends=(-5e-324, 5e-324), slope=1.0)
def test_lines_enclose_the_function(name, ends, slope):
    lower, upper = torch.tensor([[min(ends)], [max(ends)]], dtype=torch.float64)
    check_lines(ELEMENTWISE[name][0], lower, upper, slope)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_lines_touch_the_function_and_have_finite_gradients(name):
    op, _ = ELEMENTWISE[name]
    lower, upper = (end.clone().requires_grad_() for end in intervals())
    lines = op.lines(lower, upper, torch.full_like(lower, 0.3))
    points = grid(lower, upper).detach()
    above = lines.upper_slope * points + lines.upper_offset - op(points)
    below = op(points) - lines.lower_slope * points - (0 if lines.lower_offset is None else lines.lower_offset)
    assert above.amin(0).max() < 1e-12  # a line that touches nowhere could be moved
    assert below.amin(0).max() < 1e-12
    wide = upper - lower > 1e-9
    sum(line[wide].sum() for line in lines if line is not None).backward()
    assert lower.grad is not None
    assert upper.grad is not None
    assert torch.isfinite(lower.grad).all()
    assert torch.isfinite(upper.grad).all()
