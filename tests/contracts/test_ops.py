"""What every op must satisfy: a new op needs an example here."""

import math
import random
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ctbench.graph import Affine, Elementwise, Lines, Op, lower
from ctbench.graph.ops import (
    GELU,
    Abs,
    Absolute,
    Add,
    BatchNorm,
    Clamp,
    Concat,
    Conv2d,
    Dropout,
    Input,
    LeakyReLU,
    Max,
    Mean,
    PiecewiseLinear,
    ReLU,
    Reshape,
    Scale,
    ScaledConv2d,
    Select,
    Shape,
    Shift,
    Sigmoid,
    SiLU,
    Tanh,
    rearrangement,
)
from ctbench.networks import Normalize


def batch_norm(channels: int) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(channels)
    module.running_mean.copy_(torch.linspace(-1, 1, channels))
    module.running_var.copy_(torch.linspace(0.5, 2, channels))
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-2, 1, channels))  # negative factors turn intervals around
        module.bias.copy_(torch.linspace(1, -1, channels))
    return module


# the cases are lists, which would be shrunk for minutes
RANDOM = partial(settings, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------- affine

# name: a layer and the shape of its input
LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear on rows": (lambda: nn.Linear(5, 3), (2, 5)),
    "linear on images": (lambda: nn.Linear(5, 3), (2, 3, 5)),
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
    "conv with same padding": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 4, 5)),
    "conv with unequal padding": (lambda: nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 4, 5)),
    "conv with reflection": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 4, 5)),
    "conv with replication": (lambda: nn.Conv2d(2, 3, 3, 2, padding=2, padding_mode="replicate"), (2, 4, 5)),
    "conv in a circle": (lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"), (2, 4, 5)),
    "conv of sequences": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, bias=False), (2, 8)),
    "conv of sequences with options": (lambda: nn.Conv1d(4, 6, 2, dilation=3, groups=2), (4, 7)),
    "transposed conv": (lambda: nn.ConvTranspose2d(2, 3, 3), (2, 4, 5)),
    "transposed conv without bias": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False), (2, 4, 5)),
    "transposed conv with padding": (lambda: nn.ConvTranspose2d(2, 3, 3, 2, padding=1), (2, 3, 4)),
    "transposed conv with groups": (lambda: nn.ConvTranspose2d(4, 6, 3, (2, 1), (1, 0), groups=2), (4, 3, 4)),
    "transposed conv with more rows": (lambda: nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1), (2, 3, 4)),
    "transposed conv with dilation": (lambda: nn.ConvTranspose2d(2, 3, 3, 3, 1, (2, 1), dilation=2), (2, 3, 4)),
    "transposed conv with more rows than its stride": (
        lambda: nn.ConvTranspose2d(2, 3, 3, 1, 1, output_padding=(2, 1), dilation=3),
        (2, 3, 4),
    ),
    "average pooling": (lambda: nn.AvgPool2d(2), (2, 5, 4)),
    "average pooling that overlaps": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (2, 6, 7)),
    "average pooling with gaps": (lambda: nn.AvgPool2d((1, 2), stride=3), (2, 6, 7)),
    "adaptive pooling": (lambda: nn.AdaptiveAvgPool2d(1), (2, 6, 7)),
    "adaptive pooling of uneven parts": (lambda: nn.AdaptiveAvgPool2d([4, 3]), (2, 6, 7)),
    "adaptive pooling of repeated parts": (lambda: nn.AdaptiveAvgPool2d((None, 9)), (2, 3, 4)),
    "normalise": (lambda: Normalize([0.1, 0.7], [0.5, 0.2]), (2, 3, 2)),
    "normalise vectors": (lambda: Normalize([0.1, 0.7], [0.5, 0.2], spatial=0), (2,)),
    "batch norm": (lambda: batch_norm(3), (3, 2, 2)),
    "dropout": (lambda: nn.Dropout(0.5), (3, 2)),
    "dropout of channels": (lambda: nn.Dropout2d(0.5), (3, 2, 2)),
    "flatten": (lambda: nn.Flatten(), (2, 3, 2)),
    "flatten the end": (lambda: nn.Flatten(2), (2, 3, 2)),
    "flatten the middle": (lambda: nn.Flatten(1, 2), (2, 3, 2)),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6, 2)),
    "identity": (lambda: nn.Identity(), (2, 3)),
    "zeros around": (lambda: nn.ZeroPad2d((1, 2, 0, 1)), (2, 3, 2)),
    "zeros around, and a cut": (lambda: nn.ZeroPad2d((-1, 2, 0, 1)), (2, 3, 3)),
    "a constant around": (lambda: nn.ConstantPad2d((1, 0, 2, 0), -0.7), (2, 3, 2)),
    "a constant at the ends": (lambda: nn.ConstantPad1d(2, 0.3), (2, 3)),
    "reflection": (lambda: nn.ReflectionPad2d((1, 0, 2, 1)), (2, 3, 2)),
    "replication": (lambda: nn.ReplicationPad2d((1, 0, 2, 1)), (2, 3, 2)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (8, 2, 3)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (2, 4, 6)),
    "channel shuffle": (lambda: nn.ChannelShuffle(3), (6, 2, 2)),
}
# ops that come from functions or from other ops, which tests/graph compares with torch
CONV = Conv2d(rand(3, 2, 3, 3), rand(3), (2, 1), (1, 0), (1, 1), 1, (2, 5, 4))
FUNCTIONS = {
    "scaled conv": (ScaledConv2d.of(CONV, Scale(rand(3, 1, 1), rand(3, 1, 1))), (2, 5, 4)),
    "mean": (Mean((0, 2), (2, 3, 4)), (2, 3, 4)),
    "mean of all": (Mean((0,), (5,)), (5,)),
    "shift": (Shift(torch.linspace(-1, 2, 3).double().view(3, 1)), (3, 2)),
    "one shift for all": (Shift(torch.tensor(0.5).double()), (3, 2)),
}
BY_THEMSELVES = {
    Input,
    Add,
    Concat,
    Conv2d,
    Max,
    BatchNorm,
    Dropout,
}  # neither affine nor elementwise: see below, and tests/graph


def build(name: str) -> tuple[nn.Module, list[Op], Shape]:
    """A layer, and its frozen ops in order."""
    torch.manual_seed(3)
    make, shape = LAYERS[name]
    layer = make().double().eval()
    lowered = lower(layer, shape)
    ops, x = [], torch.zeros(2, *shape, dtype=torch.float64)
    for op in lowered if isinstance(lowered, tuple) else (lowered,):
        ops.append(op.freeze(x, training=False))
        x = ops[-1](x)
    return layer, ops, shape


def affine() -> dict[str, tuple[Affine, Shape]]:
    """Every affine op of the examples, with the shape of its input."""
    functions = dict(FUNCTIONS)
    for name in LAYERS:
        _, ops, shape = build(name)
        for op in ops:
            functions[name if len(ops) == 1 else f"{name}: {type(op).__name__.lower()} of {shape}"] = (op, shape)
            shape = op.shape(shape)
    return functions


AFFINE = affine()


def subclasses(kind: type) -> set[type]:
    """The ops of the library, without the abstract families."""
    kinds = set(kind.__subclasses__())
    kinds |= {sub for child in kinds for sub in subclasses(child)}
    return {c for c in kinds if c.__module__.startswith("ctbench.graph.") and not c.__abstractmethods__}


def test_every_op_has_an_example():
    shown = {type(op) for op, _ in AFFINE.values()} | {type(op) for op, _ in ELEMENTWISE.values()}
    assert subclasses(Op) == shown | BY_THEMSELVES
    assert subclasses(Affine) | subclasses(Elementwise) == shown


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_affine_ops_equal_their_layers(name):
    layer, ops, shape = build(name)
    x = rand(3, *shape)
    expected = layer(x)
    for op in ops:
        x, shape = op(x), op.shape(shape)
        assert tuple(x.shape) == (3, *shape)
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", AFFINE)
def test_the_linear_part_is_what_is_left_without_the_offset(name):
    op, shape = AFFINE[name]
    x = rand(3, *shape)
    torch.testing.assert_close(op.linear(x), op(x) - op(0 * x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", AFFINE)
def test_the_adjoint_is_the_transpose(name):
    op, shape = AFFINE[name]
    x, a = rand(2, *shape), rand(2, 4, *op.shape(shape))
    carried = op.adjoint(a)
    assert carried.shape == (2, 4, *shape)
    value = (a * op.linear(x).unsqueeze(1)).flatten(2).sum(2)
    torch.testing.assert_close((carried * x.unsqueeze(1)).flatten(2).sum(2), value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize(("samples", "forms"), [(0, 3), (2, 0), (0, 0)])
def test_no_samples_and_no_forms_have_their_shapes(name, samples, forms):
    """A search asks for the bounds of the open samples, even if there are none."""
    op, shape = AFFINE[name]
    out = op.shape(shape)
    for output in (op(rand(samples, *shape)), op.linear(rand(samples, *shape)), op.magnitude(rand(samples, *shape))):
        assert output.shape == (samples, *out)
    assert op.adjoint(rand(samples, forms, *out)).shape == (samples, forms, *shape)
    offset = op.offset(rand(samples, forms, *out))
    assert isinstance(offset, float) or offset.shape == (samples, forms)


@pytest.mark.parametrize("name", AFFINE)
def test_the_offset_is_the_value_of_a_form_at_zero(name):
    op, shape = AFFINE[name]
    a = rand(2, 4, *op.shape(shape))
    expected = (a * op(torch.zeros(2, *shape).double()).unsqueeze(1)).flatten(2).sum(2)
    torch.testing.assert_close(op.offset(a) + torch.zeros_like(expected), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", AFFINE)
def test_the_magnitude_is_the_absolute_matrix(name):
    op, shape = AFFINE[name]
    size = math.prod(shape)
    columns = op.linear(torch.eye(size, dtype=torch.float64).view(size, *shape))
    r = rand(2, *shape).abs()
    expected = (r.flatten(1) @ columns.abs().flatten(1)).view(2, *op.shape(shape))
    torch.testing.assert_close(op.magnitude(r), expected, rtol=1e-11, atol=1e-11)
    entries = columns.flatten(1) != 0
    assert op.mixes or bool((entries.sum(0) <= 1).all())


@pytest.mark.parametrize("name", AFFINE)
def test_map_reaches_every_tensor(name):
    op, shape = AFFINE[name]
    single = op.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    assert single(rand(2, *shape).float()).dtype == torch.float32
    assert op(rand(2, *shape)).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("linear", (4,), r"takes 5 features, its input has shape \(4,\)"),
        ("conv", (3, 4, 4), r"takes \(2, height, width\), its input has shape \(3, 4, 4\)"),
        ("conv", (8,), r"takes \(2, height, width\), its input has shape \(8,\)"),
        ("conv without bias", (2, 2, 5), r"a window of \(3, 3\) does not fit into \(2, 5\)"),
        ("transposed conv", (3, 4, 4), r"takes \(2, height, width\), its input has shape \(3, 4, 4\)"),
        ("average pooling", (8,), r"takes \(channels, height, width\), its input has shape \(8,\)"),
        ("average pooling", (2, 1, 4), "does not fit"),
        ("adaptive pooling", (8,), r"takes \(channels, height, width\), its input has shape \(8,\)"),
        ("normalise", (3, 2, 2), "factors of shape"),
        ("normalise", (1, 2, 2), "factors of shape"),
        ("normalise", (2, 2), "factors of shape"),
        ("shift", (2, 2), r"a shift of shape \(3, 1\) does not fit inputs of shape \(2, 2\)"),
        ("shift", (1, 2), "a shift of shape"),
        ("shift", (3,), "a shift of shape"),
        ("reflection", (2, 2, 2), r"takes \(2, 3, 2\), its input has shape \(2, 2, 2\)"),
        ("flatten", (5,), r"\(5,\) cannot be reshaped to \(12,\)"),
    ],
)
def test_affine_ops_refuse_other_shapes(name, shape, message):
    with pytest.raises(ValueError, match=message):
        AFFINE[name][0].shape(shape)


def test_reshape_to_two_dimensions():
    op = Reshape((12,), (3, 4))
    a = rand(2, 5, 3, 4)
    assert op.shape((12,)) == (3, 4)
    torch.testing.assert_close(op.adjoint(a), a.flatten(2), rtol=0, atol=0)


@RANDOM(max_examples=40)
@given(data=st.data(), size=st.integers(1, 6), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_any_choice_of_entries(data, size, shape):
    """Entries may come once, often or never; the number after the last is a zero."""
    chosen = data.draw(st.lists(st.integers(0, size), min_size=math.prod(shape), max_size=math.prod(shape)))
    op = Select(torch.tensor(chosen).view(shape), (size,))
    x, a = rand(2, size), rand(2, 3, *shape)
    matrix = F.one_hot(torch.tensor(chosen), size + 1)[:, :size].double()
    torch.testing.assert_close(op(x).flatten(1), x @ matrix.T, rtol=0, atol=0)
    torch.testing.assert_close(op.magnitude(x.abs()).flatten(1), x.abs() @ matrix.T, rtol=0, atol=0)
    torch.testing.assert_close(op.adjoint(a), a.flatten(2) @ matrix, rtol=1e-14, atol=1e-14)
    assert op.shape((size,)) == tuple(shape)


STEPS = {
    "turn": lambda x: x.transpose(1, 2),
    "flip": lambda x: x.flip(2),
    "roll": lambda x: x.roll((1, -1), (1, 2)),
    "cut": lambda x: x[:, -2:, :3],
    "every other": lambda x: x[:, ::2],
    "double": lambda x: torch.cat([x, x], 2),
    "zeros": lambda x: F.pad(x, (1, 0, 0, 1)),
    "ones": lambda x: F.pad(x, (0, 1), value=1.0),
    "reshape": lambda x: x.flatten(1).unsqueeze(1),
}


@RANDOM(max_examples=60)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=5))
@example(steps=["turn", "turn"])
@example(steps=["reshape"])
def test_any_rearrangement(steps):
    def function(x: Tensor) -> Tensor:
        for step in steps:
            x = STEPS[step](x)
        return x

    ops = rearrangement(function, (3, 2))
    x = rand(4, 3, 2)
    expected = function(x)
    for op in ops:
        x = op(x)
    torch.testing.assert_close(x, expected, rtol=0, atol=0)
    in_order = torch.equal(function(torch.arange(6.0).view(1, 3, 2)).flatten(), torch.arange(6.0))
    assert (type(ops[0]) is Reshape) == in_order
    assert len(ops) == 1 + bool((function(torch.zeros(1, 3, 2)) != 0).any())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2 * x,
        lambda x: x * x,
        lambda x: x.cumsum(1),
        lambda x: x + x.flip(1),
        lambda x: x.roll(1, 0),
        lambda x: x[:1].expand(len(x), -1, -1),  # the first sample looks as if nothing had happened
        lambda x: torch.cat([x[:1], x[1:].flip(1)]),
    ],
)
def test_what_does_more_than_move_is_no_rearrangement(function):
    with pytest.raises(ValueError, match="does more than move entries"):
        rearrangement(function, (3, 2))


# ----------------------------------------------------------------------------------------------- elementwise

ELEMENTWISE = {
    "relu": (ReLU(), nn.ReLU()),
    "leaky relu": (LeakyReLU(0.1), nn.LeakyReLU(0.1)),
    "steep relu": (LeakyReLU(2.0), nn.LeakyReLU(2.0)),
    "falling relu": (LeakyReLU(-0.5), nn.LeakyReLU(-0.5)),
    "abs": (Abs(), Absolute()),
    "hardtanh": (Clamp(-1.0, 1.0), nn.Hardtanh()),
    "relu6": (Clamp(0.0, 6.0), nn.ReLU6()),
    "cut above": (Clamp(-math.inf, 0.5), nn.Hardtanh(-math.inf, 0.5)),
    "cut below": (Clamp(0.5, math.inf), nn.Hardtanh(0.5, math.inf)),
    "uncut": (Clamp(-math.inf, math.inf), nn.Hardtanh(-math.inf, math.inf)),
    "sigmoid": (Sigmoid(), nn.Sigmoid()),
    "tanh": (Tanh(), nn.Tanh()),
    "gelu": (GELU(), nn.GELU()),
    "silu": (SiLU(), nn.SiLU()),
}
PRECISIONS = {torch.float64: 1e-12, torch.float32: 2e-6}  # the largest rounding error, relative to the summands

# the kinks, inflections and turning points of the examples, and where they have nearly become lines
PLACES = (
    -40.0,
    -6.0,
    -2.3993572805154675,
    -math.sqrt(2),
    -1.0,
    -0.7517915,
    0.0,
    0.5,
    1.0,
    math.sqrt(2),
    2.4,
    6.0,
    40.0,
)
WIDTHS = (0.0, 5e-324, 1e-300, 1e-40, 1e-12, 1e-7, 1e-3, 1.0, 2.0, 1e8)
SLOPES = (0.0, 1.0, 0.25, 0.5, -0.1, -1.0, 1e-8, -1e-8, 1.12, 2.0)


def around(point: float, width: float, share: float) -> tuple[float, float]:
    """The ends of an interval, of which this share lies to the left of a point."""
    lower = point - share * width
    return lower, max(lower, point + (1 - share) * width)


INTERVALS = st.builds(
    around,
    st.sampled_from(PLACES) | st.floats(-8, 8) | st.floats(-1e6, 1e6),
    st.sampled_from(WIDTHS) | st.floats(0, 8) | st.floats(0, 1e6),
    st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
)
SLOPE = st.sampled_from(SLOPES) | st.floats(-2, 2)
# an interval and two slopes each, and a seed for many more, which are drawn faster
CASES = st.tuples(st.lists(st.tuples(INTERVALS, SLOPE, SLOPE), min_size=1, max_size=3), st.integers(0, 2**32))
SPECIAL = [
    ((low, up), slope, SLOPES[-place - 1])
    for low, up in product((-1e8, *PLACES, 1e8), repeat=2)
    if low <= up
    for place, slope in enumerate(SLOPES[:3])
]


def scattered(seed: int) -> list[tuple[tuple[float, float], float, float]]:
    draw = random.Random(seed)
    points = [draw.choice((*PLACES, *(draw.gauss(0, 10**power) for power in range(-1, 5)))) for _ in range(50)]
    widths = [draw.choice((*WIDTHS, *(10 ** draw.uniform(-9, 5) for _ in range(20)))) for _ in range(50)]
    ends = [
        around(point, width, draw.choice((0, 0.5, 1, draw.random())))
        for point, width in zip(points, widths, strict=True)
    ]
    return [(end, *draw.choices((*SLOPES, draw.gauss(0, 1), draw.uniform(-0.2, 1.2)), k=2)) for end in ends]


def tensors(cases, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower ends, upper ends, and two slopes for each, [N]."""
    chosen = [*cases[0], *scattered(cases[1])]
    lower, upper, low, high = torch.tensor([(*ends, *slopes) for ends, *slopes in chosen], dtype=torch.float64).T
    return lower.to(dtype), upper.to(dtype), low.to(dtype), high.to(dtype)


def grid(lower: Tensor, upper: Tensor) -> Tensor:
    """Points of each interval in ascending order, with both ends, and dense where functions bend, [P, N]."""
    lower, upper = lower.double(), upper.double()
    shares = torch.linspace(0, 1, 201, dtype=torch.float64).unsqueeze(1)
    bends = torch.tensor([*PLACES, *torch.linspace(-12, 12, 193).tolist()], dtype=torch.float64).unsqueeze(1)
    points = torch.cat([lower + shares * (upper - lower), bends.expand(-1, len(lower)), upper[None]])
    return points.clamp(lower, upper).sort(0).values


def least(function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The least value of a function on each interval, by finer and finer grids, and its place."""
    points, shares = grid(lower, upper), torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(1)
    for _ in range(4):
        at = points.gather(0, function(points).argmin(0, keepdim=True))
        begin = torch.where(points < at, points, points[0]).amax(0)
        end = torch.where(points > at, points, points[-1]).amin(0)
        points = torch.cat([begin + shares * (at - begin), at + shares * (end - at)])
    values, at = function(points).min(0)
    return values, points.gather(0, at.unsqueeze(0)).squeeze(0)


def below(line: tuple[Tensor, Tensor | None], points: Tensor, slack: float) -> Tensor:
    """The values of a line at points [P, N], minus the possible rounding error."""
    slope, offset = line[0].double(), torch.zeros(()) if line[1] is None else line[1].double()
    return slope * points + offset - slack * (1 + (slope * points).abs() + offset.abs())


def check_lines(op: Elementwise, lines: Lines, lower: Tensor, upper: Tensor) -> None:
    """The function lies between its lines, where these are finite."""
    points, slack = grid(lower, upper), PRECISIONS[lower.dtype]
    values = op(points)
    assert not (below(lines[:2], points, slack) > values).any()
    assert not (below((-lines.upper_slope, -lines.upper_offset), points, slack) > -values).any()


both_precisions = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
every_function = pytest.mark.parametrize("name", ELEMENTWISE)


@every_function
def test_elementwise_ops_equal_their_layers(name):
    op, layer = ELEMENTWISE[name]
    x = 4 * rand(2, 3, 4)
    torch.testing.assert_close(op(x), layer(x), rtol=0, atol=0)
    assert op.shape((3, 4)) == (3, 4)
    assert lower(layer, (3, 4)) == op


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_images_and_extremes_are_the_least_and_the_greatest_value(name, dtype, cases):
    op, tolerance = ELEMENTWISE[name][0], PRECISIONS[dtype]
    lower, upper, slope, _ = tensors(cases, dtype)
    for s, found in ((torch.zeros_like(slope), op.image(lower, upper)), (slope, op.extremes(lower, upper, slope))):
        for sign, bound in zip((1, -1), found, strict=True):
            assert bound.dtype == dtype
            best, at = least(lambda z, s=s, sign=sign: sign * (op(z) - s.double() * z), lower, upper)
            scale = 1 + (s.double() * at).abs() + op(at).abs()
            excess = (sign * bound.double() - best) / scale
            assert excess.max() <= tolerance  # sound
            assert excess.min() >= -max(tolerance, 1e-9)  # attained


@pytest.mark.parametrize(
    ("negative", "slope", "least", "greatest"),
    [
        (0.25, 0.5, 0.0, 2.0),  # of 0.5, 0 and 2 at -2, 0 and 4
        (0.25, 0.875, 0.0, 1.25),  # 1.25, 0, 0.5
        (0.25, 0.0, -0.5, 4.0),  # -0.5, 0, 4
        (0.25, 2.0, -4.0, 3.5),  # 3.5, 0, -4
        (2.0, 1.5, -2.0, 0.0),  # -1, 0, -2
        (2.0, 1.125, -1.75, 0.0),  # -1.75, 0, -0.5
    ],
)
def test_either_end_of_a_leaky_relu_may_be_the_extreme_one(negative, slope, least, greatest):
    ends = torch.tensor([-2.0, 4.0, slope])
    assert [end.item() for end in LeakyReLU(negative).extremes(*ends)] == [least, greatest]


def test_the_offset_of_a_chord_holds_at_both_ends():
    """Both values are the same except for rounding, and either may be the greater one."""
    torch.manual_seed(0)
    lower, upper = -torch.rand(1000), torch.rand(1000)
    _, _, slope, offset = ReLU().tightest_lines(lower, upper)
    at_lower, at_upper = -lower * slope, torch.addcmul(upper, upper, slope, value=-1)
    assert (at_lower > at_upper).any()
    assert (at_lower < at_upper).any()
    assert torch.equal(offset, torch.maximum(at_lower, at_upper))


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_slopes_contain_every_difference_quotient(name, dtype, cases):
    op = ELEMENTWISE[name][0]
    lower, upper, _, _ = tensors(cases, dtype)
    low, high = (slope.double() for slope in op.slopes(lower, upper))
    points = grid(lower, upper)
    for begin, end in ((points[:-1], points[1:]), (points[:1], points[-1:]), (points[:-20], points[20:])):
        run = end - begin
        quotient = (op(end) - op(begin)) / torch.where(run > 0, run, 1.0)
        counts = run > 1e-4 * (1 + begin.abs())
        slack = 1e-9 if dtype == torch.float64 else 1e-6
        assert (quotient >= low - slack)[counts].all()
        assert (quotient <= high + slack)[counts].all()
    steps = (op(points[1:]) - op(points[:-1])) / torch.where(points[1:] > points[:-1], points[1:] - points[:-1], 1.0)
    dense = ((points[1:] - points[:-1] < 0.2) & (points[1:] - points[:-1] > 1e-4)).all(0) & (upper > lower)
    assert (steps.amin(0) <= low + 0.2)[dense].all()  # and are no wider than they must be
    assert (steps.amax(0) >= high - 0.2)[dense].all()
    chord = op.chord(lower, upper)
    assert ((chord >= low) & (chord <= high)).all()
    wide = upper.double() - lower.double() > 1e-3 * (1 + lower.double().abs())
    expected = (op(upper.double()) - op(lower.double())) / (upper.double() - lower.double())
    torch.testing.assert_close(
        chord.double()[wide], expected[wide], rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-3
    )


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_lines_of_any_slope_enclose_the_function_and_touch_it(name, dtype, cases):
    op = ELEMENTWISE[name][0]
    lower, upper, low, high = tensors(cases, dtype)
    lines = op.lines(lower, upper, low, high)
    assert all(line is None or line.isfinite().all() for line in lines)
    check_lines(op, lines, lower, upper)
    check_lines(op, op.lines(lower, upper, op.chord(lower, upper), op.chord(lower, upper)), lower, upper)
    for sign, (slope, offset) in ((1, lines[:2]), (-1, lines[2:])):
        slope, offset = slope.double(), torch.zeros(()) if offset is None else offset.double()
        gap, at = least(lambda z, s=slope, b=offset, sign=sign: sign * (op(z) - s * z - b), lower, upper)
        assert (gap / (1 + (slope * at).abs() + offset.abs())).max() <= max(1e-9, PRECISIONS[dtype])


@every_function
@both_precisions
@RANDOM(max_examples=1)
@given(cases=CASES)
@example(cases=(SPECIAL[::3], 0))
def test_the_tightest_lines_leave_the_smallest_area(name, dtype, cases):
    """The area between a line and f is smallest where the line is best at the middle: none of 200 others is better."""
    op = ELEMENTWISE[name][0]
    lower, upper, _, _ = tensors(cases, dtype)
    lines = op.tightest_lines(lower, upper)
    check_lines(op, lines, lower, upper)
    middle, (first, last) = (lower.double() + upper.double()) / 2, op.slopes(lower, upper)
    others = first + (last - first) * torch.linspace(0, 1, 200, dtype=dtype).unsqueeze(1)
    extremes = op.extremes(lower, upper, others)
    for sign, (slope, offset), rivals in ((1, lines[:2], extremes[0]), (-1, lines[2:], extremes[1])):
        value = slope.double() * middle + (0 if offset is None else offset.double())
        best = (sign * (others.double() * middle + rivals.double())).amax(0)
        slack = max(1e-6, PRECISIONS[dtype]) * (1 + middle.abs() + upper.double() - lower.double())
        assert (sign * value >= best - slack).all()


@every_function
@both_precisions
@RANDOM(max_examples=2)
@given(cases=CASES)
@example(cases=(SPECIAL, 0))
def test_exact_means_that_the_lines_are_the_function(name, dtype, cases):
    op = ELEMENTWISE[name][0]
    lower, upper, _, _ = tensors(cases, dtype)
    exact = op.exact(lower, upper)
    assert exact[lower == upper].all()
    if isinstance(op, PiecewiseLinear):
        kinks = torch.tensor(op.kinks, dtype=dtype).view(-1, 1)
        assert torch.equal(exact, ~((lower < kinks) & (kinks < upper)).any(0))
    lower, upper = lower[exact], upper[exact]
    slope = op.slopes(lower, upper)[0]
    lines, points, slack = op.lines(lower, upper, slope, slope), grid(lower, upper), 2 * PRECISIONS[dtype]
    values = op(points)
    assert (
        below((-lines.lower_slope, -(0.0 * lower if lines[1] is None else lines[1])), points, slack) <= -values
    ).all()
    assert (below((lines.upper_slope, lines.upper_offset), points, slack) <= values).all()


@every_function
@both_precisions
@RANDOM(max_examples=1)
@given(cases=CASES)
@example(cases=(SPECIAL[::5], 0))
def test_gradients_are_finite(name, dtype, cases):
    op = ELEMENTWISE[name][0]
    lower, upper, low, high = tensors(cases, dtype)
    steady = (upper == lower) | (upper - lower > 1e-30)  # the gradient of ReLU's chord, 1 / (u - l), overflows
    lower, upper, low, high = (end[steady].requires_grad_() for end in (lower, upper, low, high))
    chord = op.chord(lower, upper)
    all_lines = (
        op.lines(lower, upper, low, high),
        op.tightest_lines(lower, upper),
        op.lines(lower, upper, chord, chord),
    )
    ends = [part.sum() for part in (*op.image(lower, upper), *op.slopes(lower, upper)) if part.requires_grad]
    lines = [part.sum() for pair in all_lines for part in pair if part is not None and part.requires_grad]
    for gradient in torch.autograd.grad(sum(ends + lines), [lower, upper, low, high], materialize_grads=True):
        assert gradient.isfinite().all()


@every_function
def test_tightest_lines_are_those_of_the_tightest_slopes_and_so_are_their_gradients(name):
    op = ELEMENTWISE[name][0]
    ends = torch.tensor([(-1.3, 0.9), (0.2, 2.5), (-3.0, -1.1), (-0.8, 5.0), (0.0, 1.0), (-1.0, 0.0)]).double().T
    lower, upper = ends.clone().requires_grad_()
    pairs = op.tightest_lines(lower, upper), op.lines(lower, upper, *op.tightest(lower, upper))
    weights, gradients = torch.randn(4, 6, dtype=torch.float64), []
    for lines in pairs:
        total = sum((w * line).sum() for w, line in zip(weights, lines, strict=True) if line is not None)
        gradients.append(torch.autograd.grad(total, [lower, upper], materialize_grads=True))
    for fused, plain in zip(pairs[0] + gradients[0], pairs[1] + gradients[1], strict=True):
        assert (fused is None and plain is None) or torch.allclose(fused, plain, rtol=1e-12, atol=1e-12)


def test_a_chord_that_is_hardly_wide_has_finite_gradients():
    """1000 / 1e-37 is infinite in single precision."""
    lower, upper = torch.tensor([-1e-37, 0.0], requires_grad=True), torch.tensor([0.0, 1e-37], requires_grad=True)
    slope = ReLU().tightest_lines(lower, upper).upper_slope
    for gradient in torch.autograd.grad(1000 * slope.sum(), [lower, upper]):
        assert torch.equal(gradient, torch.zeros(2))
    lower, upper = torch.tensor([-1e-45], requires_grad=True), torch.tensor([1e-37], requires_grad=True)
    slope = ReLU().tightest_lines(lower, upper).upper_slope
    for gradient in torch.autograd.grad(1000 * slope.sum(), [lower, upper]):
        assert gradient.isfinite().all()


@every_function
def test_extremes_follow_the_ends_and_the_slope(name):
    """The gradient of an extreme is that of the value at its place: -z for the slope."""
    op = ELEMENTWISE[name][0]
    lower, upper = torch.tensor([-1.3, 0.2, -3.0, -0.8]).double(), torch.tensor([0.9, 2.5, -1.1, 5.0]).double()
    slope = torch.tensor([0.31, 0.07, -0.09, 0.4]).double()
    assert torch.autograd.gradcheck(
        op.extremes, [argument.requires_grad_() for argument in (lower, upper, slope)], rtol=1e-5
    )


@every_function
@both_precisions
@pytest.mark.parametrize("slope", ["tightest", "chord", 0.0, 0.3, 1.0])
def test_bounds_that_are_not_finite_give_no_lines_that_could_certify(name, dtype, slope):
    """NaN makes NaN, which certifies nothing; a finite line of an infinite interval holds on all of it."""
    op = ELEMENTWISE[name][0]
    ends = [(math.nan, 1.0), (-1.0, math.nan), (math.nan, math.nan), (-math.inf, 1.0), (-1.0, math.inf)]
    ends += [(-math.inf, math.inf), (-math.inf, -50.0), (50.0, math.inf)]
    lower, upper = torch.tensor(ends, dtype=dtype).T
    if slope == "tightest":
        lines = op.tightest_lines(lower, upper)
    else:
        both = op.chord(lower, upper) if slope == "chord" else torch.full_like(lower, slope)
        lines = op.lines(lower, upper, both, both)
    assert (lines.upper_slope + lines.upper_offset)[:3].isnan().all()
    least, greatest = op.image(lower, upper)
    assert (least + greatest)[:3].isnan().all()
    some = Lines(*(line if line is None else line[3:] for line in lines))
    check_lines(op, some, lower[3:].clamp(min=-1e4), upper[3:].clamp(max=1e4))


@every_function
def test_what_says_that_it_is_convex_is(name):
    op = ELEMENTWISE[name][0]
    first, second = 3 * rand(1000), 3 * rand(1000)
    bends = op((first + second) / 2) <= (op(first) + op(second)) / 2 + 1e-12
    assert not op.convex or bool(bends.all())


# ------------------------------------------------------------------------------------------------ the maximum

BOXES = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(INTERVALS, min_size=n, max_size=n), min_size=1, max_size=8)
)
DOMINATED = [[(0.0, 1.0), (1.0, 3.0)], [(-1.0, -1.0), (2.0, 2.0)], [(2.0, 2.0), (2.0, 2.0)], [(0.0, 0.0), (0.0, 1.0)]]


@both_precisions
@RANDOM(max_examples=60)
@given(boxes=BOXES)
@example(boxes=DOMINATED)
@example(boxes=[[(-1.0, 2.0)]])
@example(boxes=[[(-1.0, 1.0)] * 5])
@example(boxes=[[(-3.0, 1.0), (-1.0, 2.0)]])
def test_planes_around_a_maximum(dtype, boxes):
    """Sound at corners and inside; they touch the maximum, and are the maximum where one entry dominates the others."""
    lower, upper = torch.tensor(boxes, dtype=torch.float64).unbind(2)  # [B, n]
    lower, upper = lower.to(dtype), upper.to(dtype)
    count, slack = lower.shape[1], PRECISIONS[dtype]
    lines = Max().lines(lower.view(-1, count, 1), upper.view(-1, count, 1))
    assert lines.lower_offset is None
    assert lines.upper_offset.shape == (len(lower), 1)
    low, high, rise = lines.lower_slope.squeeze(2).double(), lines.upper_slope.squeeze(2).double(), lines.upper_offset
    corners = torch.tensor(list(product([0.0, 1.0], repeat=count)), dtype=torch.float64)
    shares = torch.cat([corners, torch.rand(50, count, generator=torch.Generator().manual_seed(0)).double()])
    points = lower.double() + shares.unsqueeze(1) * (upper - lower).double()  # [P, B, n]
    greatest = Max()(points.flatten(0, 1)).view(len(points), -1)
    below, above = (low * points).sum(2), (high * points).sum(2) + rise.squeeze(1).double()
    scale = 1 + torch.maximum(lower.abs(), upper.abs()).double().sum(1)
    assert (below <= greatest + slack * scale).all()
    assert (above >= greatest - slack * scale).all()
    assert ((greatest - below).amin(0) <= slack * scale).all()
    assert ((above - greatest).amin(0) <= slack * scale).all()
    first = lower.argmax(1, keepdim=True)
    dominated = lower.gather(1, first) >= upper.scatter(1, first, -math.inf).amax(1, keepdim=True)
    assert ((above - below).amax(0) <= slack * scale)[dominated.squeeze(1)].all()
    assert (high >= 0).all()
    assert (above.amax(0) <= 2 * scale).all()
    centre = (high * (lower + upper).double() / 2).sum(1) + rise.squeeze(1).double()
    assert (centre <= upper.amax(1) + slack * scale).all()  # nothing is worse at the centre than the interval


def test_planes_around_a_maximum_of_images():
    lower, w = rand(2, 4, 3, 5), rand(2, 4, 3, 5).abs()
    lines = Max().lines(lower, lower + w)
    single = Max().lines(lower[:1, :, 1:2, 3], (lower + w)[:1, :, 1:2, 3])
    for whole, part in zip(lines, single, strict=True):
        assert (whole is None) == (part is None)
        if whole is not None:
            torch.testing.assert_close(whole[:1, ..., 1:2, 3], part, rtol=0, atol=0)


def test_repeats_of_an_entry_have_no_part_in_the_planes():
    """Two entries and their repeats have the planes of the two, even if a repeat differs from its entry by rounding."""
    lower, width = rand(50, 2, 3), rand(50, 2, 3).abs()
    kept = Max().lines(lower, lower + width)
    repeats = torch.tensor([False, False, True, True, True]).view(-1, 1)
    order = [0, 1, 0, 1, 1]
    once = Max(repeats).lines(lower[:, order] + 1e-15 * repeats, (lower + width)[:, order] + 1e-15 * repeats)
    for whole, part in ((once.lower_slope, kept.lower_slope), (once.upper_slope, kept.upper_slope)):
        torch.testing.assert_close(whole[:, :2], part)
        assert not whole[:, 2:].any()
    torch.testing.assert_close(once.upper_offset, kept.upper_offset)


def test_a_window_over_the_edge_has_the_planes_of_its_entries_inside():
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    low, width = rand(2, 3, 5, 5), rand(2, 3, 5, 5).abs()
    select, greatest = lower(pool, (3, 5, 5))
    lines = greatest.lines(select(low), select(low + width))
    corner = Max().lines(low[:, :, :2, :2].flatten(2).mT, (low + width)[:, :, :2, :2].flatten(2).mT)
    torch.testing.assert_close(lines.upper_offset[:, :, 0, 0], corner.upper_offset)
    torch.testing.assert_close(lines.upper_slope[:, :, :, 0, 0].sum(1), corner.upper_slope.sum(1))
    assert ((lines.upper_slope != 0).sum(1) <= 4)[:, :, 0, 0].all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", range(3))
def test_a_maximum_of_bounds_that_are_not_finite_has_no_finite_plane(bad, at):
    for side in range(2):
        ends = torch.tensor([[[-1.0, -2.0, 0.0]], [[1.0, -1.5, 2.0]]])
        if math.isnan(bad) or (bad < 0) == (side == 0):
            ends[side, 0, at] = bad
            assert not Max().lines(*ends.unsqueeze(3))[3].isfinite().any()


def test_gradients_of_planes_are_finite():
    ends = torch.tensor([*DOMINATED, [(-1.0, 1.0)] * 2, [(-3.0, 1.0), (-1.0, 2.0)]], dtype=torch.float64)
    lower, upper = (ends[..., side].clone().requires_grad_() for side in (0, 1))
    lines = Max().lines(lower, upper)
    (lines.upper_slope.sum() + lines.upper_offset.sum()).backward()
    assert lower.grad.isfinite().all()
    assert upper.grad.isfinite().all()
    assert lower.grad.abs().sum() > 0


def test_joins_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"branches of the same shape, got \(2,\) and \(3,\): expand one"):
        Add().shape((2,), (3,))
    for shapes in [((2, 3), (2, 4)), ((1, 4), (2, 3)), ((2, 3), (2, 3))]:
        with pytest.raises(ValueError, match="cannot be joined in dimension 0"):
            Concat(0, (2, 1)).shape(*shapes)
    assert Concat(0, (2, 1)).shape((2, 3), (1, 3)) == (3, 3)
    assert Max().shape((4, 3, 2)) == (3, 2)


@pytest.mark.parametrize(("dim", "sizes"), [(0, (2, 1)), (1, (3, 1, 2)), (2, (4,))])
def test_the_parts_of_joined_coefficients_belong_to_their_branches(dim, sizes):
    shapes = [tuple(size if place == dim else 4 for place in range(3)) for size in sizes]
    op, branches = Concat(dim, sizes), [rand(2, *shape) for shape in shapes]
    a = rand(2, 3, *op.shape(*shapes))
    whole = (a * op(*branches).unsqueeze(1)).flatten(2).sum(2)
    parts = [(part * branch.unsqueeze(1)).flatten(2).sum(2) for part, branch in zip(op.split(a), branches, strict=True)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=1e-12)


def test_dropout_is_open_until_it_is_frozen():
    op, x = Dropout(0.5), rand(2, 3, 4)
    with pytest.raises(ValueError, match=r"call freeze\(graph, x\) first"):
        op(x)
    with pytest.raises(ValueError, match=r"dropout of rate 0.5 cannot be trained with bounds: .* set p=0"):
        op.freeze(x, training=True)
    assert op.freeze(x, training=False) == Dropout(0.0).freeze(x, training=True) == Reshape((3, 4), (3, 4))
    assert op.shape((3, 4)) == (3, 4)
